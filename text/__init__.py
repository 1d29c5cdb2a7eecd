"""The text panel of Diptych: codecs, networks, data, metrics for sentences."""
