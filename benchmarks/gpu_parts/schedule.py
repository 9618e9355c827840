"""The parts in their order, and how a given time is dealt out among them."""

from typing import NamedTuple

DIG_JAX = (
    "jax",
    "flax",
    "optax",
    "orbax.checkpoint",
    "ml_collections",
    "pydantic",
    "jaxtyping",
    "jraph",
    "etils",
    "absl",
    "numpy",
    "packaging",
)
RUNS = (*DIG_JAX, "grain", "array_record", "rich", "matplotlib", "tensorboardX")
"""What a whole run imports, beside what its networks and its step do."""


class Part(NamedTuple):
    """What is run for one question.

    Attributes:
        name: Module of gpu_parts.
        asks: The question.
        share: Of the time, where all parts are run.
        least: Seconds without which it is not begun.
        needs: Modules without which it is left out.
    """

    name: str
    asks: str
    share: float
    least: float
    needs: tuple[str, ...]


PARTS = (
    Part(
        "correct",
        "the tests marked gpu",
        share=30,
        least=45,
        needs=(*RUNS, "pytest", "sklearn"),
    ),
    Part("starting", "from the command to the first step", 17, 30, RUNS),
    Part("tables", "training and forward, products' rates", 22, 40, DIG_JAX),
    Part("aggregations", "aggregations against none", 8, 25, DIG_JAX),
    Part(
        "torch_steps",
        "the same blocks in torch",
        share=8,
        least=25,
        needs=("torch", "torch_geometric", *DIG_JAX),
    ),
    Part("kernels", "where a step's time goes", 5, 20, DIG_JAX),
    Part("xla_flags", "XLA's flags against each other", 9, 25, DIG_JAX),
    Part("memory", "memory and the largest batch", 6, 25, DIG_JAX),
)


def allowance(part: Part, later: list[Part], left: float) -> float:
    """Seconds for a part: its share of what is left, or its least if that is more.

    What earlier parts did not use goes to all that follow.

    Returns:
        0 where the part no longer fits.
    """
    if left < part.least:
        return 0.0
    shares = part.share + sum(other.share for other in later)
    return min(left, max(part.least, left * part.share / shares))
