"""Models that come with the package, and what makes and checks them.

    import dig_jax
    images = dig_jax.load("pretrained:digits").sample(16, labels=3)

`make` writes a model's folder from a trained run; `check` draws and scores the models,
and compares with the scores in their folders. A folder is read as an export is; beside
its parameters lie a card, a picture, the classifier that it was scored by, and the
records of its scores.
"""

from dig_jax.files.pretrained import PREFIX, shipped_names

CLASSIFIER = "classifier.safetensors"

__all__ = ["CLASSIFIER", "PREFIX", "shipped_names"]
