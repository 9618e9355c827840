"""The network that images are drawn with, guided as the options say."""

from typing import NamedTuple

from jaxtyping import Array, Int

from dig_jax.diffusion import make_denoiser, make_variance_denoiser
from dig_jax.diffusion.guidance import (
    make_autoguided_denoiser,
    make_guided_denoiser,
    make_guided_variance_denoiser,
)
from dig_jax.experiment import Experiment
from dig_jax.interfaces import Backbone, Denoiser, Params
from dig_jax.options import SampleOptions
from dig_jax.sampling.choices import choose_guidance


class Guide(NamedTuple):
    """A worse network that guides another (autoguidance).

    Attributes:
        params: Its parameters.
        backbone: The network, where it is not the guided one's own.
        step: Its checkpoint.
    """

    params: Params
    backbone: Backbone | None
    step: int


def create_denoiser(
    experiment: Experiment,
    options: SampleOptions,
    params: Params,
    labels: Int[Array, "group"] | None,
    *,
    guide: Guide | None = None,
    guide_params: Params | None = None,
) -> Denoiser:
    """An experiment's network as its images are drawn with it; a pure function.

    Args:
        experiment: Network, noise and target.
        options: How it is guided, checked.
        params: Its parameters.
        labels: One for each image, or None.
        guide: What guides it, where a run is named.
        guide_params: Its parameters in place of `guide.params`: traced ones.
    """
    backbone, sde, objective = (
        experiment.backbone,
        experiment.sde,
        experiment.objective,
    )
    guidance = choose_guidance(options)
    if guide is not None:
        other = guide.backbone
        return make_autoguided_denoiser(
            backbone.apply,
            params,
            guide_params,
            sde,
            objective,
            labels,
            guidance=guidance,
            guide_apply=other.apply if other is not None else None,
        )
    guided = {"null_label": backbone.num_classes, "guidance": guidance}
    if options.variance == "learned":
        network = backbone.with_variance
        assert network is not None  # by `check_sample_options`
        if labels is None or guidance.scale == 1:
            return make_variance_denoiser(network, params, sde, objective, labels)
        return make_guided_variance_denoiser(
            network, params, sde, objective, labels, **guided
        )
    network = backbone.apply
    if labels is None or guidance.scale == 1:
        return make_denoiser(network, params, sde, objective, labels)
    return make_guided_denoiser(network, params, sde, objective, labels, **guided)
