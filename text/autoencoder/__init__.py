"""Sentences as points: a variational autoencoder, and the codec of its latents."""
