"""Slow, plain twins in NumPy float64 (or Python integers), written from the definitions and not from the package."""
