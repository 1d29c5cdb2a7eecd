"""The diffusion core that both panels of Diptych share. It knows nothing of either modality."""
