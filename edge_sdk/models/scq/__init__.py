"""Soft Convex Quantization: an autoencoder whose latents are convex combinations of codes."""
