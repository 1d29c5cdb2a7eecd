"""Autoencoders of pictures: trained here or by others, and the latents that diffusion models learn.

Latent diffusion (Rombach et al. 2022) draws in the latent space of an autoencoder trained before.
"""
