"""Images of one step of a run: described, drawn or found again, and kept."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from dig_jax.errors import InputError
from dig_jax.experiment import Experiment
from dig_jax.files.paths import AnyPath, make_folder
from dig_jax.files.shown import say
from dig_jax.interfaces import LabelledImages, Params, UInt8Images
from dig_jax.reporting.images import write_png
from dig_jax.reporting.progress import Progress
from dig_jax.sampling.grid import sample_grid
from dig_jax.sampling.latents import LatentFiles
from dig_jax.sampling.pictures import PICTURES, write_pictures
from dig_jax.sampling.sampler import Sampler
from dig_jax.sampling.samples import (
    describe_samples,
    read_samples,
    save_adm_batch,
    save_samples,
)
from dig_jax.sampling.store import SampleStore, draw_into
from dig_jax.storage.workdir_lock import SAMPLE, only_run

SAMPLES = "samples.npz"


class Drawn(NamedTuple):
    """Images and where they come from.

    Attributes:
        images: [image, row, col, rgb].
        labels: What each was drawn for; None where that is nothing.
        provenance: All that they depend on.
        class_names: Of the labels, where they have names.
    """

    images: UInt8Images
    labels: Int[np.ndarray, "batch"] | None
    provenance: dict[str, Any]
    class_names: tuple[str, ...] = ()

    def save(self, path: AnyPath) -> None:
        """Write them as samples.npz."""
        save_samples(path, self.images, self.labels, self.provenance, self.class_names)


def read_drawn(path: AnyPath) -> Drawn:
    """Images of a file, whoever drew them; see `read_samples`.

    Raises:
        InputError: The file holds no such images.
    """
    found, provenance = read_samples(path)
    return Drawn(found.images, found.labels, provenance)


class Drawing(NamedTuple):
    """Who draws: the averaged parameters of a step, and a sampler.

    With several processes all of them make the same calls and have all images.

    Attributes:
        experiment: Network and noise.
        sampler: What draws; it says how many, and by which seed.
        params: The parameters.
        step: Of their checkpoint.
        parameters_digest: Of their bits, where somebody has taken it.
    """

    experiment: Experiment
    sampler: Sampler
    params: Params
    step: int
    parameters_digest: str = ""

    def with_seed(self, seed: int) -> "Drawing":
        """The same with another seed, compiled if this one is."""
        return self._replace(sampler=self.sampler.with_seed(seed))

    def describe(self) -> dict[str, Any]:
        """All that the images depend on; see `describe_samples`."""
        return describe_samples(
            self.experiment,
            self.sampler.options,
            self.step,
            guide=self.sampler.guide,
            parameters_digest=self.parameters_digest,
            pixels={**self.sampler.to_pixels.record, **self.sampler.known_record},
        )

    def draw(self, on_progress: Callable[[int], None] | None = None) -> Drawn:
        """Draw the images, in memory.

        Args:
            on_progress: Told how many are drawn, after each batch.

        Raises:
            NonFiniteError: The network's output was not finite.
        """
        images = self.sampler.draw(self.params, on_progress)
        return self._drawn(images, self.describe())

    def find_or_draw(self, workdir: AnyPath, *, silent: bool = False) -> Drawn:
        """The images that samples.npz has, or that were drawn before, or drawn now.

        Args:
            workdir: Of the run; each batch is kept in its eval/samples/.
            silent: Whether nobody is told of it.
        """
        provenance, wanted = self.describe(), self.sampler.options.num_images
        if (workdir / SAMPLES).is_file():
            found, theirs = self._read(workdir / SAMPLES, silent)
            if found and theirs == provenance and len(found.images) >= wanted:
                _say(f"Scoring {workdir / SAMPLES}, drawn before.", silent)
                return self._drawn(found.images[:wanted], provenance)
        store = self._store(workdir / "eval" / "samples", provenance)
        if store.num_images >= wanted:
            _say(f"Scoring {store.folder}, drawn before.", silent)
            return self._drawn(store.images(wanted), provenance)
        return self._drawn(self._fill(store, silent), provenance)

    def write(
        self, folder: AnyPath, *, adm: bool = False, png: bool = False
    ) -> list[AnyPath]:
        """Draw the images into samples.npz and samples.png; returns what was written.

        With sample.keep_latents also the latents that they decode from, latents.npz.

        A kill costs no batch that was drawn: the same call goes on.

        Args:
            folder: Where to.
            adm: Whether to write samples_adm.npz, for the ADM evaluator, too.
            png: Whether to write each image as a PNG, in samples/, too.

        Raises:
            InputError: Another process draws into this folder.
        """
        make_folder(folder)
        with only_run(folder, SAMPLE):
            provenance, labels = self.describe(), self.sampler.labels
            store = self._store(folder / "unfinished_samples", provenance)
            latents = None
            if self.sampler.options.keep_latents:
                latents = LatentFiles(store.folder / "latents")
                self.sampler.keep_latents = latents.write
            images = self._fill(store, silent=False)
            written = [folder / SAMPLES, folder / "samples.png"]
            self._drawn(images, provenance).save(written[0])
            names = self.sampler.class_names
            write_png(written[1], sample_grid(images, labels, class_names=names))
            if adm:
                written.append(folder / "samples_adm.npz")
                save_adm_batch(written[-1], images, labels)
            if png:
                written.append(folder / PICTURES)
                write_pictures(written[-1], images, labels, names)
            if latents is not None:
                written.append(folder / "latents.npz")
                latents.join(written[-1], len(images), provenance)
            store.delete()
        return written

    def _read(
        self, path: AnyPath, silent: bool
    ) -> tuple[LabelledImages | None, dict[str, Any]]:
        """Images of a file; None where it is damaged."""
        try:
            return read_samples(path)
        except InputError as error:
            _say(f"{error} Its images are drawn again.", silent)
            return None, {}

    def _drawn(self, images: UInt8Images, provenance: dict[str, Any]) -> Drawn:
        sampler = self.sampler
        return Drawn(images, sampler.labels, provenance, sampler.class_names)

    def _store(self, root: AnyPath, provenance: dict[str, Any]) -> SampleStore:
        return SampleStore(root, provenance, self.sampler.to_pixels.image_shape)

    def _fill(self, store: SampleStore, silent: bool) -> UInt8Images:
        """Draw what a store lacks."""
        wanted, there = self.sampler.options.num_images, store.num_images
        if 0 < there < wanted:
            _say(f"Going on: {there} of {wanted} images were drawn before.", silent)
        with Progress(
            wanted, description="draw", unit="image", silent=silent
        ) as progress:
            progress.go_on_from(there)
            if not self.sampler.is_compiled:
                with progress.compiling("the sampler"):
                    self.sampler.compile(self.params)
            draw = partial(self.sampler.draw_batches, self.params)
            return draw_into(store, wanted, draw, progress.update)


def _say(text: str, silent: bool) -> None:
    if not silent:
        say(text)
