"""Dual encoders of pictures and captions: trained here, read from folders, and what they judge."""
