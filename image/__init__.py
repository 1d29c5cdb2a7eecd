"""The image panel of Diptych: codecs, networks, data, metrics for pictures."""
