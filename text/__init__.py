"""The text panel of Diptych: codecs, networks, data, metrics for sentences."""

from text.pipeline import Pipeline

__all__ = ["Pipeline"]
