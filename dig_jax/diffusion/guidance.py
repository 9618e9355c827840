"""Guidance: a denoiser pushed away from a worse one, as a denoiser like any other.

D = D_worse + w (D_main - D_worse), with w = 1 for none. The worse denoiser is the same
network without a label (classifier-free guidance, arXiv:2207.12598) or a worse network
(autoguidance, arXiv:2406.02507). At a given x_t the score, eps, v and the velocity are
affine in D, so guiding one of them guides them all by the same w. The literature also
counts from 0 for none: that scale is w - 1.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from dig_jax.diffusion.objective import Objective
from dig_jax.diffusion.prediction import (
    WithVariance,
    make_denoiser,
    make_variance_denoiser,
    per_image,
)
from dig_jax.errors import InputError
from dig_jax.interfaces import (
    SDE,
    ApplyFn,
    Backbone,
    Denoiser,
    Images,
    Labels,
    Params,
    VarianceDenoiser,
    VarianceFn,
)

Outputs: TypeAlias = Float[Array, "batch row col channel"]
"""The image's channels, maybe with those of the variance behind them."""
Pair: TypeAlias = Callable[[Images, Float[Array, "*batch"]], tuple[Outputs, Outputs]]


@dataclass(frozen=True)
class Guidance:
    """How much to guide, and when.

    Attributes:
        scale: w; 1 for none, more to guide, 0 for the worse denoiser alone.
        interval: (least, greatest) time t in [0, 1] at which to guide, both included
            (arXiv:2404.07724 gives it in sigma); elsewhere the network runs once.
        schedule: constant, or power_cosine (MDT, arXiv:2303.14389, and DiffiT): from
            none at t = 1 to all of it at t = 0.
        power: Exponent of power_cosine; the greater, the later guidance sets in.
        offset: Taken off t in power_cosine: 0.001 for networks whose 1,000 steps count
            from 0 (DiffiT), 0 for those that count from 1 (DiMR).
        channels: How many of an image's channels are guided, the first ones: 3 in the
            code of DiT and DiffiT, also of latents with 4. None for all.
    """

    scale: NonNegativeFloat = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    schedule: Literal["constant", "power_cosine"] = "constant"
    power: PositiveFloat = 4.0
    offset: float = 0.0
    channels: PositiveInt | None = None

    def __post_init__(self) -> None:
        if self.scale < 0:
            raise InputError(
                f"A guidance scale must be 0 or more (1 for none), got {self.scale}."
            )
        if self.power <= 0:
            raise InputError(f"A guidance power must be above 0, got {self.power}.")
        if self.schedule not in ("constant", "power_cosine"):
            raise InputError(
                f"Unknown guidance schedule {self.schedule!r}. Available: constant, "
                f"power_cosine."
            )
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise InputError(
                f"A guidance interval must be two ascending times in [0, 1], got "
                f"{tuple(self.interval)}."
            )

    def inside(self, t: Float[Array, "*batch"]) -> Array:
        """Whether t is in the interval."""
        low, high = self.interval
        return (low <= t) & (t <= high)

    def push(self, t: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """w - 1 at time t: 0 for none, as outside the interval.

        power_cosine is (scale - 1) (1 - cos(pi (1 - t)^power)) / 2: 1 - t is how much
        of the sampling is done, as in both projects' code. MDT's paper writes the ramp
        as a factor of w itself. See `offset` for which t that is.
        """
        push = jnp.full_like(t, self.scale - 1)
        if self.schedule == "power_cosine":
            done = jnp.clip(1 - t + self.offset, 0, 1)
            push = push * (1 - jnp.cos(jnp.pi * done**self.power)) / 2
        return jnp.where(self.inside(t), push, 0.0)


def check_guidance(guidance: Guidance, backbone: Backbone) -> Guidance:
    """Raise InputError for classifier-free guidance of a network that cannot do it."""
    rgb = backbone.image_shape[2]
    if guidance.channels is not None and guidance.channels > rgb:
        raise InputError(
            f"Images of {rgb} channels have no {guidance.channels} to be guided: "
            f"guidance_channels must be at most {rgb}, or None for all."
        )
    if guidance.scale == 1 or backbone.null_label:
        return guidance
    if backbone.num_classes == 0:
        raise InputError(
            f"Guidance needs a backbone with classes, and this one is unconditional "
            f"(num_classes=0): the guidance scale must be 1, got {guidance.scale:g}."
        )
    raise InputError(
        f"This run was trained without label dropout (objective.label_dropout=0), so "
        f"its network has not learned to do without a label: the guidance scale must "
        f"be 1, got {guidance.scale:g}."
    )


def make_guided_denoiser(
    apply: ApplyFn,
    params: Params,
    sde: SDE,
    objective: Objective,
    label: Labels,
    *,
    null_label: int,
    guidance: Guidance,
) -> Denoiser:
    """Classifier-free guidance; both sides are one forward of twice the batch.

    Args:
        apply: The network.
        params: Its parameters.
        sde: The forward process.
        objective: What it was trained on.
        label: Labels of the images.
        null_label: The label for "no class": the number of classes.
        guidance: How much, and when.
    """
    plain = make_denoiser(apply, params, sde, objective, label)
    without = jnp.full_like(label, null_label)
    twice = make_denoiser(
        apply, params, sde, objective, jnp.concatenate([label, without])
    )

    def pair(x: Images, t: Float[Array, "*batch"]) -> tuple[Images, Images]:
        t = jnp.broadcast_to(t, x.shape[:1])
        both = twice(jnp.concatenate([x, x]), jnp.concatenate([t, t]))
        return both[: len(x)], both[len(x) :]

    return _guide(guidance, plain, pair)


def make_guided_variance_denoiser(
    network: VarianceFn,
    params: Params,
    sde: SDE,
    objective: Objective,
    label: Labels,
    *,
    null_label: int,
    guidance: Guidance,
) -> VarianceDenoiser:
    """`make_guided_denoiser` of a network that learns the variance too.

    The variance is that of the network with its label, as in the code of DiT and
    DiffiT. The arguments are those of `make_guided_denoiser`, with
    `Backbone.with_variance` for the network.
    """

    without = jnp.full_like(label, null_label)
    alone, twice = (
        make_variance_denoiser(network, params, sde, objective, labels)
        for labels in (label, jnp.concatenate([label, without]))
    )

    # Both put the variance behind the channels of the image.
    def plain(x: Images, t: Float[Array, "*batch"]) -> Array:
        return jnp.concatenate(alone.with_variance(x, t), axis=-1)

    def pair(x: Images, t: Float[Array, "*batch"]) -> tuple[Array, Array]:
        t = jnp.broadcast_to(t, x.shape[:1])
        x, t = jnp.concatenate([x, x]), jnp.concatenate([t, t])
        both = jnp.concatenate(twice.with_variance(x, t), axis=-1)
        return both[: len(label)], both[len(label) :]

    def with_variance(x: Images, t: Float[Array, "*batch"]) -> tuple[Images, Images]:
        rgb = x.shape[-1]
        of_x0 = replace(guidance, channels=guidance.channels or rgb)
        joined = _guide(of_x0, plain, pair)(x, t)
        return joined[..., :rgb], joined[..., rgb:]

    return WithVariance(with_variance)


def make_autoguided_denoiser(
    apply: ApplyFn,
    params: Params,
    guide_params: Params,
    sde: SDE,
    objective: Objective,
    label: Labels | None = None,
    *,
    guidance: Guidance,
    guide_apply: ApplyFn | None = None,
) -> Denoiser:
    """Autoguidance by a worse network with the same labels (arXiv:2406.02507).

    Args:
        apply: The network.
        params: Its parameters.
        guide_params: The guide's: of an earlier step, a shorter EMA, a smaller network.
        sde: The forward process.
        objective: What both were trained on.
        label: Labels of the images, or None.
        guidance: How much, and when.
        guide_apply: The guide's network where it is another one: two forwards. The same
            network runs once, over both parameter trees.

    Raises:
        InputError: Parameters of another network without its guide_apply.
    """
    plain = make_denoiser(apply, params, sde, objective, label)
    if guide_apply is not None:
        guide = make_denoiser(guide_apply, guide_params, sde, objective, label)
        return _guide(guidance, plain, lambda x, t: (plain(x, t), guide(x, t)))
    if jax.tree.map(jnp.shape, params) != jax.tree.map(jnp.shape, guide_params):
        raise InputError(
            "The guide's parameters are not of the guided network's shapes: a guide "
            "that is another network needs its own guide_apply."
        )
    stacked = jax.tree.map(lambda *both: jnp.stack(both), params, guide_params)

    def pair(x: Images, t: Float[Array, "*batch"]) -> tuple[Images, Images]:
        def denoise(params: Params) -> Images:
            return make_denoiser(apply, params, sde, objective, label)(x, t)

        both = jax.vmap(denoise)(stacked)
        return both[0], both[1]

    return _guide(guidance, plain, pair)


def _guide(guidance: Guidance, plain: Denoiser, pair: Pair) -> Denoiser:
    """The guided denoiser, from the main denoiser alone and with the worse one."""
    if guidance.scale == 1:
        return plain

    def guided(x: Images, t: Float[Array, "*batch"]) -> Outputs:
        main, worse = pair(x, t)
        # In this form w = 1 gives the main denoiser to the last bit.
        push = per_image(guidance.push(t)).astype(main.dtype)
        if guidance.channels is not None:
            push = push * (jnp.arange(main.shape[-1]) < guidance.channels)
        return main + push * (main - worse)

    def denoise(x: Images, t: Float[Array, "*batch"]) -> Outputs:
        t = jnp.asarray(t)
        if t.ndim or tuple(guidance.interval) == (0.0, 1.0):
            return guided(x, t)
        return jax.lax.cond(guidance.inside(t), guided, plain, x, t)

    return denoise
