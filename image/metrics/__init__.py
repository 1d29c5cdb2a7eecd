"""Measures of pictures in a feature space, most with a `compute` in the manner of `evaluate`; the
features they take, and their statistics."""
