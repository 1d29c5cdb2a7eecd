"""Measures of sentences, each with a `compute` in the manner of `evaluate`."""
