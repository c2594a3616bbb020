"""What ``adapt`` learns: accumulators that can be merged (empty, add, merge, result), and the sources that feed them."""
