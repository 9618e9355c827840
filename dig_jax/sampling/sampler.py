"""Draw images with a trained backbone."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, Key

from dig_jax.data.labels import label_counts
from dig_jax.devices.compiling import compile_lowered
from dig_jax.devices.sharding import BATCH_AXES, batch_sharded, place_batch, to_host
from dig_jax.experiment import Experiment
from dig_jax.experiment.images import open_dataset
from dig_jax.interfaces import Images, Params, UInt8Images
from dig_jax.options import SampleOptions
from dig_jax.sampling.between import Between, make_mixed_denoiser
from dig_jax.sampling.choices import choose_solver, choose_times
from dig_jax.sampling.decoding import Pixels, create_to_pixels
from dig_jax.sampling.grid import class_names
from dig_jax.sampling.groups import batch_size_of, group_size, image_keys
from dig_jax.sampling.guided import Guide, create_denoiser
from dig_jax.sampling.inpainting import KnownPixels, given_known, known_record
from dig_jax.sampling.label_rules import choose_labels
from dig_jax.solvers import sample
from dig_jax.solvers.sample import Watch, sample_path


class Sampler:
    """Draws uint8 images with the parameters it is given; compiles once for all calls.

    With several processes every process makes the same calls and has all images.

    Args:
        experiment: Backbone, SDE and prediction target.
        options: Solver, its steps, and the batch; kept as `options`.
        mesh: The devices that images are spread over.
        guide: What to guide by where `options.guide` names a run; kept as `guide`.

    Attributes:
        to_pixels: What makes pixels of what the solver ends with: rounding, or where
            images are latents the autoencoder.
        known: Pixels that all images shall have; None for new images.
        paths: Programs of `draw_path`, which all copies share.
        keep_latents: Called with the number of each batch's first image and what the
            solver ends with, before its pixels are handed out; None for nobody.
    """

    def __init__(
        self,
        experiment: Experiment,
        options: SampleOptions,
        mesh: Mesh,
        guide: Guide | None = None,
    ):
        self._experiment = experiment
        self.options = options
        self.guide = guide
        self._group = group_size(mesh.devices.flat[0].platform)
        self.batch_size = batch_size_of(options, mesh)
        self.to_pixels = create_to_pixels(experiment.data, mesh, options.decode_batch)
        self.known: KnownPixels | None = None
        self.keep_latents: Callable[[int, np.ndarray], None] | None = None
        self.mesh, self.paths = mesh, dict[Watch, Callable]()
        spread = PartitionSpec(BATCH_AXES)
        self._draw_batch = jax.jit(
            jax.shard_map(
                self.draw_groups,
                mesh=mesh,
                in_specs=(*[PartitionSpec()] * 2, spread, spread, PartitionSpec()),
                out_specs=spread,
                check_vma=False,
            )
        )
        self._image_keys, self._place = image_keys, lambda labels: labels
        if jax.process_count() > 1:  # each can give the others nothing but its own rows
            spread_keys = batch_sharded(mesh)
            self._image_keys = jax.jit(image_keys, out_shardings=spread_keys)
            self._place = partial(place_batch, mesh)
        self._programs: list[Callable] = []  # the one that all copies share, once made
        self._label_counts = self._count_labels()

    def _count_labels(self) -> Int[np.ndarray, "class"] | None:
        experiment = self._experiment
        if self.options.labels != "training" or not experiment.backbone.num_classes:
            return None
        return label_counts(
            open_dataset(experiment, "train"),
            max_damaged_share=experiment.data.max_damaged_share,
        )

    def with_seed(self, seed: int) -> "Sampler":
        """The same with another seed; it compiles once for both."""
        return self.with_options(replace(self.options, seed=seed))

    def with_options(self, options: SampleOptions) -> "Sampler":
        """The same with other options of one `program_of`; it compiles once for all."""
        other = copy.copy(self)
        other.options = options
        if options.labels != self.options.labels:
            other._label_counts = other._count_labels()
        return other

    def with_known(self, known: KnownPixels | None) -> "Sampler":
        """The same for other known pixels; it compiles once for all that have some."""
        other = copy.copy(self)
        if (known is None) != (self.known is None):
            other._programs = []
        other.known = known
        return other

    @property
    def known_record(self) -> dict[str, Any]:
        """What a record of the images must say of known pixels; {} without any."""
        if self.known is None:
            return {}
        return known_record(self.known, self.options, self._experiment.sde)

    @property
    def labels(self) -> Int[np.ndarray, "batch"] | None:
        """The label of each image that `draw` gives."""
        options = self.options
        return choose_labels(
            options.labels,
            options.num_images,
            self._experiment.backbone.num_classes,
            seed=options.seed,
            label_counts=self._label_counts,
            class_names=self._experiment.data.class_names,
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        """A name for each label, if only its digits; () without labels."""
        return class_names(self._experiment)

    @property
    def _guide_params(self) -> Params | None:
        return self.guide.params if self.guide is not None else None

    @property
    def is_compiled(self) -> bool:
        """Whether drawing begins at once."""
        return bool(self._programs)

    def compile(self, params: Params) -> None:
        """Compile now; otherwise the first `draw` does."""
        if not self._programs:
            batch = self._batch(0, self.labels)
            lowered = self._draw_batch.lower(
                params, self._guide_params, *batch, self.known
            )
            self._programs.append(compile_lowered(lowered))

    def draw(
        self, params: Params, on_progress: Callable[[int], None] | None = None
    ) -> UInt8Images:
        """Draw `options.num_images` images.

        Args:
            params: Parameters of the backbone.
            on_progress: Called with the number of images drawn so far.

        Raises:
            NonFiniteError: The network's output was not finite.
        """
        drawn, done = [], 0
        for images in self.draw_batches(params):
            drawn.append(images)
            done += len(images)
            if on_progress is not None:
                on_progress(done)
        return np.concatenate(drawn)

    def draw_batches(self, params: Params, start: int = 0) -> Iterator[UInt8Images]:
        """Draw image `start` and all after it, a batch at a time.

        Raises:
            NonFiniteError: The network's output was not finite.
        """
        self.compile(params)
        (draw_batch,) = self._programs
        labels, total = self.labels, self.options.num_images
        waiting: tuple[int, Images, int] | None = None
        for first in range(start, total, self.batch_size):
            # The devices draw this batch while the host takes up the one before.
            batch = self._batch(first, labels)
            images = draw_batch(params, self._guide_params, *batch, self.known)
            if waiting is not None:
                yield self._finish(*waiting)
            waiting = first, images, min(total - first, self.batch_size)
        if waiting is not None:
            yield self._finish(*waiting)

    def _finish(self, first: int, images: Images, count: int) -> Pixels:
        """The pixels of a batch's first images; their latents are kept if wanted."""
        drawn = to_host(images)[:count]
        pixels = self.to_pixels(drawn)
        if self.known is not None:
            pixels = self.known.put_into(pixels)
        if self.keep_latents is not None:
            self.keep_latents(first, drawn)
        return pixels

    def _batch(
        self, start: int, labels: Int[np.ndarray, "image"] | None
    ) -> tuple[Key[Array, "batch"], Int[Array | np.ndarray, "batch"] | None]:
        """Keys and labels of images start, start + 1, ...; past the end they repeat."""
        index = np.arange(start, start + self.batch_size)
        keys = self._image_keys(self.options.seed, index)
        if labels is None:
            return keys, None
        return keys, self._place(labels[np.minimum(index, len(labels) - 1)])

    def draw_groups(
        self,
        params: Params,
        guide_params: Params | None,
        keys: Key[Array, "batch"],
        labels: Int[Array, "batch"] | None,
        known: KnownPixels | None = None,
        *,
        group: int | None = None,
        between: Between | None = None,
        watch: Watch | None = None,
    ) -> Images | Float[Array, "batch frame row col rgb"]:
        """Whole groups of images, one after the other: what a device computes.

        Args:
            params: Parameters of the backbone.
            guide_params: Of the guide, if there is one.
            keys: One for each image, from `image_keys`.
            labels: One for each image.
            known: Pixels that all of them shall have; None for new images.
            group: Images in a group; those of the mesh's platform by default.
            between: What the images lie between, for those that do.
            watch: Which steps to give, each image's one after the other.
        """
        group = group or self._group
        experiment, options = self._experiment, self.options
        solver = choose_solver(options, experiment.sde)
        times = choose_times(options, experiment.sde)

        guided = partial(
            create_denoiser,
            experiment,
            options,
            params,
            guide=self.guide,
            guide_params=guide_params,
        )

        def draw_group(
            one: tuple[Key[Array, "group"], Int[Array, "group"] | None, Between | None],
        ) -> Array:
            group_keys, group_labels, there = one
            denoise = guided(group_labels)
            if there is not None and there.labels is not None:
                other = guided(there.labels)
                denoise = make_mixed_denoiser(denoise, other, there.part)
            shape, sde = experiment.backbone.image_shape, experiment.sde
            way, mix = (denoise, solver, times), there and there.mix
            if known is not None:
                way = given_known(options, sde, known, *way)
            if watch is None:
                return sample(*way, group_keys, shape, sde=sde, mix=mix)
            path = sample_path(*way, group_keys, shape, sde=sde, mix=mix, watch=watch)
            return jnp.moveaxis(path, 0, 1)

        groups = jax.tree.map(
            lambda a: a.reshape(-1, group, *a.shape[1:]), (keys, labels, between)
        )
        images = jax.lax.map(draw_group, groups)
        return images.reshape(-1, *images.shape[2:])
