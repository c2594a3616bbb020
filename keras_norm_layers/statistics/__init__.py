"""What ``adapt`` learns: mergeable accumulators (empty, add, merge, result), and the sources that feed them."""
