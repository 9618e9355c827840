"""Static graphs of image patches, built once in NumPy."""

from dig_jax.graphs.graph import Graph
from dig_jax.graphs.grid import GridGraph, Scale, Stencil
from dig_jax.graphs.normalization import NodeFactors, Normalization, node_factors
from dig_jax.graphs.patches import image_to_patches, patches_to_image
from dig_jax.graphs.relations import RelationalGraph

__all__ = [
    "Graph",
    "GridGraph",
    "NodeFactors",
    "Normalization",
    "RelationalGraph",
    "Scale",
    "Stencil",
    "image_to_patches",
    "node_factors",
    "patches_to_image",
]
