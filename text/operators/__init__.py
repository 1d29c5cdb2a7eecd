"""Operators: classifiers of sentences' latents, and what is steered, edited and joined by them."""
