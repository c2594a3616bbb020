"""Pure functions on tensors, the same on TensorFlow, JAX and torch: no layer, no state."""
