"""The design on a page: everything in dig_jax meets at these signatures.

A `Backbone` predicts, an `SDE` says how images are noised, a `Denoiser` estimates the
clean image, a `Solver` steps a sampler, an `ImageSource` hands out real images, a
`Metric` compares images. A new backbone, SDE, solver, data set or metric is one file
that makes one of these, and one line in its folder's table.

Images are [batch, row, col, rgb] (one channel or three), in [-1, 1] inside and uint8
outside. Time t is in [0, 1]: 0 is data, 1 is noise.
"""

import inspect
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray, UInt8

from dig_jax.graphs import GridGraph

T = TypeVar("T")

Params: TypeAlias = Any
"""A tree of arrays: nested mappings from a module's name to its parameters."""

Images: TypeAlias = Float[Array, "batch row col rgb"]
Time: TypeAlias = Float[Array, ""]
Index: TypeAlias = Int[Array, ""]
Times: TypeAlias = Float[Array, "batch"]
Labels: TypeAlias = Int[Array, "batch"]
UInt8Images: TypeAlias = UInt8[np.ndarray, "batch row col rgb"]


@runtime_checkable
class ApplyFn(Protocol):
    """The network: `(params, x, t, label) -> prediction`, of the shape of x."""

    def __call__(
        self, params: Params, x: Images, t: Times, label: Labels | None
    ) -> Images: ...


@runtime_checkable
class OutputsFn(Protocol):
    """All outputs of a network: predictions by scale, from the coarsest to the finest.

    The side of the images is a multiple of each one's, and the last has their shape. A
    network with one output gives that alone, as an `ApplyFn` does.
    """

    def __call__(
        self, params: Params, x: Images, t: Times, label: Labels | None
    ) -> tuple[Images, ...] | Images: ...


@runtime_checkable
class VarianceFn(Protocol):
    """The prediction, and the network's word on the variance of a step back.

    Of the shape of x: 1 for the log of the greatest variance that a step may have, -1
    for that of the least, linear between (arXiv:2102.09672, Eq. 15).
    """

    def __call__(
        self, params: Params, x: Images, t: Times, label: Labels | None
    ) -> tuple[Images, Images]: ...


@runtime_checkable
class FeaturesFn(Protocol):
    """Features of the patch nodes after each block; training never needs them."""

    def __call__(
        self, params: Params, x: Images, t: Times, label: Labels | None
    ) -> Float[Array, "block batch node width"]: ...


@runtime_checkable
class InitFn(Protocol):
    """Random parameters (float32) from a key, drawn leaf by leaf.

    `places`, a tree of `jax.sharding.Sharding`, says where each leaf is to lie; None
    for where JAX puts it. The same key gives the same numbers anywhere.
    """

    def __call__(self, key: PRNGKeyArray, places: Any = None) -> Params: ...


class Backbone(NamedTuple):
    """A network as a set of pure functions over one parameter tree.

    Attributes:
        init: Random parameters (float32) from a key.
        apply: The network itself.
        features: Patch-node features after each block.
        image_shape: (row, col, rgb) of the images it was made for.
        num_classes: Number of labels, or 0 for an unconditional network.
        graph: The graph it passes messages on; None for networks without one.
        null_label: Whether the label `num_classes` stands for "no class", as
            classifier-free guidance needs.
        attention: What computes its attention on the platform that it was made for, in
            words; None for networks without any.
        by_scale: The predictions of a network that has several; None for one.
        with_variance: Prediction and variance of a network that learns both; None for
            one that predicts alone.
    """

    init: InitFn
    apply: ApplyFn
    features: FeaturesFn
    image_shape: tuple[int, int, int]
    num_classes: int
    graph: GridGraph | None
    null_label: bool = False
    attention: str | None = None
    by_scale: OutputsFn | None = None
    with_variance: VarianceFn | None = None

    @property
    def outputs(self) -> OutputsFn:
        """All that training measures: predictions by scale, or the one there is."""
        return self.by_scale or self.apply


@runtime_checkable
class SDE(Protocol):
    """The forward process: x_t = alpha(t) x0 + sigma(t) eps, dx = f x dt + g dw."""

    @property
    def prior_std(self) -> float:
        """Standard deviation of the noise that sampling starts from at t = 1."""
        ...

    def alpha(self, t: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Weight of x0 in x_t."""
        ...

    def sigma(self, t: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Weight of the noise in x_t."""
        ...

    def logsnr(self, t: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """log(alpha^2 / sigma^2), strictly decreasing in t."""
        ...

    def time_of_logsnr(self, logsnr: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """The inverse of `logsnr`."""
        ...

    def drift(self, t: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """f(t) = d log(alpha) / dt, the factor of x in the drift."""
        ...

    def diffusion(self, t: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """g(t), with g^2 = d sigma^2 / dt - 2 f sigma^2."""
        ...


@runtime_checkable
class Denoiser(Protocol):
    """`(x_t, t) -> E[x0 | x_t]`, with one t for the batch or one for each image."""

    def __call__(self, x: Images, t: Float[Array, "*batch"]) -> Images: ...


@runtime_checkable
class VarianceDenoiser(Denoiser, Protocol):
    """A `Denoiser` of a network that learns the variance of a step back as well."""

    def with_variance(
        self, x: Images, t: Float[Array, "*batch"]
    ) -> tuple[Images, Images]:
        """E[x0 | x_t], and what `VarianceFn` says of the variance."""
        ...


@runtime_checkable
class Noise(Protocol):
    """Standard normal noise for a solver's step, of the shape of x; index counts draws.

    It is drawn for each image from that image's own key, so that an image does not
    depend on its batch; in the last step of a sampler it is zero.
    """

    def __call__(self, index: int = 0) -> Images: ...


StepFn: TypeAlias = Callable[
    [Denoiser, Images, Any, Time, Time, Noise], tuple[Images, Any]
]
"""`(denoise, x, state, t, s, noise) -> (x, state)`, from time t down to s."""


class Solver(NamedTuple):
    """One step of a sampler, in the shape of an optax transformation.

    Attributes:
        init: `x -> state`: what the solver carries along, a tree of arrays.
        step: See `StepFn`.
        evaluations: Calls of the denoiser in each step; as many entries as steps.
        even: Whether the calls, and not the steps, are what a time grid spaces: a step
            of k calls then spans k of its intervals.
    """

    init: Callable[[Images], Any]
    step: StepFn
    evaluations: tuple[int, ...]
    even: bool = False


@runtime_checkable
class ImageSource(Protocol):
    """A finite set of labelled images with random access.

    Attributes:
        name: Name in DATASETS.
        split: Which part of the data set.
        image_shape: (row, col, rgb), the same for every image.
        num_classes: Number of labels; 0 when the images have none.
        class_names: A name for each label.
        fingerprint: Hex digest of what the source is; equal for equal data.
        transform: Name of what made these images from the originals; "none".
        may_flip: Whether a mirrored image is still one of its class.
    """

    name: str
    split: str
    image_shape: tuple[int, int, int]
    num_classes: int
    class_names: tuple[str, ...]
    fingerprint: str
    transform: str
    may_flip: bool

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """`image` uint8 [row, col, rgb], `label` int32 [] (0 where there is none)."""
        ...


class LabelledImages(NamedTuple):
    """Images in memory, with one label each."""

    images: UInt8Images
    labels: Int[np.ndarray, "batch"]


@runtime_checkable
class Metric(Protocol):
    """`(images, train) -> {score's name: value}`: images against training images.

    The same score of real test images is what drawn ones are measured by.
    """

    def __call__(
        self, images: LabelledImages, train: LabelledImages
    ) -> dict[str, float]: ...


class Table(dict[str, T]):
    """What can be chosen by name; `help` on a table says what its entries are.

    Args:
        entries: By name.
        meaning: What an entry is, and how one is called or chosen.
    """

    def __init__(self, entries: Mapping[str, T], meaning: str) -> None:
        super().__init__(entries)
        lines = [f"  {name}: {_first_line(entry)}" for name, entry in entries.items()]
        self.__doc__ = "\n".join([textwrap.fill(meaning, 80), "", *lines])


def _first_line(entry: Any) -> str:
    return (inspect.getdoc(entry) or "").partition("\n")[0]
