"""Measures of pictures in a feature space, each with a `compute` in the manner of `evaluate`."""
