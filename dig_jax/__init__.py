"""Image diffusion with graph neural network backbones in JAX."""
