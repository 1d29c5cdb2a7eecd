"""The image panel of Diptych: codecs, networks, data, metrics for pictures."""

from image.pipeline import Pipeline

__all__ = ["Pipeline"]
