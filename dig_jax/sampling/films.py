"""Pictures and films for people: what `Run.show`, `film` and `interpolate` give.

Notebooks show them as they are; `save` writes them.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from dig_jax.errors import InputError
from dig_jax.experiment import Experiment
from dig_jax.files.paths import AnyPath, is_remote, open_path, written_whole
from dig_jax.interfaces import Params, UInt8Images
from dig_jax.reporting.images import write_png
from dig_jax.sampling.between import Between, noise_weights
from dig_jax.sampling.choices import choose_solver, choose_times
from dig_jax.sampling.grid import sample_grid
from dig_jax.sampling.groups import image_keys
from dig_jax.sampling.path import Batch, draw_path
from dig_jax.sampling.sampler import Sampler
from dig_jax.solvers.sample import NoiseMix, Watch

FRAME_SECONDS = 0.1
LAST_SECONDS = 2.0
"""How long the finished images stay."""
MOST_FRAMES = 1000
USUAL_FRAMES = 24


@dataclass(frozen=True, repr=False, eq=False)
class Picture:
    """Drawn images, side by side.

    Attributes:
        images: [image, row, col, rgb].
        labels: What each was drawn for; None of networks without labels.
        class_names: A name for each label.
        columns: Images in a row, at most.
    """

    images: UInt8Images
    labels: Int[np.ndarray, "image"] | None
    class_names: tuple[str, ...] = ()
    columns: int = 10

    def __repr__(self) -> str:
        rows, cols, channels = self.images.shape[1:]
        return f"<Picture of {len(self.images)} images, {rows}x{cols}x{channels}>"

    @property
    def pixels(self) -> UInt8[np.ndarray, "height width 3"]:
        """The picture of them all; see `sample_grid`."""
        return sample_grid(self.images, self.labels, self.columns, self.class_names)

    def _repr_png_(self) -> bytes:
        """The picture as notebooks show it."""
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(self.pixels).save(file, format="PNG")
        return file.getvalue()

    def save(self, path: str | AnyPath) -> None:
        """Write the picture as a PNG.

        Raises:
            InputError: The name ends otherwise, or there is no such folder.
        """
        write_png(_named(path, ".png"), self.pixels)


@dataclass(frozen=True, repr=False, eq=False)
class Film:
    """Images while they are drawn, from noise on.

    Attributes:
        frames: [frame, image, row, col, rgb]; the last are the images as drawn.
        times: The diffusion time of each frame, from 1 (noise) down.
        path: What the frames show, before it became pixels: x, or the estimates,
            [image, frame, row, col, channel].
        labels: What each image was drawn for; None of networks without labels.
        class_names: A name for each label.
    """

    frames: UInt8[np.ndarray, "frame image row col rgb"]
    times: Float[np.ndarray, "frame"]
    path: Float[np.ndarray, "image frame high wide channel"]
    labels: Int[np.ndarray, "image"] | None
    class_names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        count, images, rows, cols, channels = self.frames.shape
        return f"<Film of {images} images, {rows}x{cols}x{channels}, {count} frames>"

    @property
    def images(self) -> UInt8Images:
        """The images as drawn, [image, row, col, rgb]."""
        return self.frames[-1]

    def to_gif(self) -> bytes:
        """An animated GIF that goes round for ever; of colours, 256 in each frame."""
        from PIL import Image

        grids = [
            Image.fromarray(sample_grid(f, self.labels, class_names=self.class_names))
            for f in self.frames
        ]
        grey = self.frames.shape[-1] == 1
        # 256 greys are exact; colours are chosen for each frame.
        palettes = [
            g.convert("L") if grey else g.quantize(256, dither=Image.Dither.NONE)
            for g in grids
        ]
        durations = [round(1000 * FRAME_SECONDS)] * (len(grids) - 1)
        file = io.BytesIO()
        palettes[0].save(
            file,
            format="GIF",
            save_all=True,
            append_images=palettes[1:],
            duration=[*durations, round(1000 * LAST_SECONDS)],
            loop=0,
            optimize=False,
        )
        return file.getvalue()

    def _repr_html_(self) -> str:
        """The film as notebooks show it."""
        data = base64.b64encode(self.to_gif()).decode()
        said = f"{len(self.images)} images as they are drawn, {len(self.frames)} frames"
        return f'<img alt="{said}" src="data:image/gif;base64,{data}">'

    def save(self, path: str | AnyPath) -> None:
        """Write the film as a GIF.

        Raises:
            InputError: The name ends otherwise, or there is no such folder.
        """
        path = _named(path, ".gif")
        with written_whole(path) as unfinished:
            unfinished.write_bytes(self.to_gif())


def draw_film(
    experiment: Experiment,
    sampler: Sampler,
    params: Params,
    *,
    num_frames: int | None = None,
    estimates: bool = False,
) -> Film:
    """A sampler's images, with frames on the way: x, or the estimates E[x0 | x].

    Frames are equally many steps apart, as nearly as can be. Where noise is wider than
    images (EDM's), x is shown over its sigma.

    Args:
        experiment: Of the sampler.
        sampler: Says how many images, of which labels, from which seed.
        params: Parameters of the backbone.
        num_frames: How many, the first and the last included; up to the solver's
            steps, and one. 24 by default, or as many as there are.
        estimates: Show the network's estimates in place of x.

    Raises:
        InputError: Frames that are no number from 2 on, or more than there are.
        NonFiniteError: The network's output was not finite.
    """
    options, sde = sampler.options, experiment.sde
    num_steps = len(choose_solver(options, sde).evaluations)
    there_are = min(num_steps + 1, MOST_FRAMES)
    if num_frames is None:
        num_frames = min(USUAL_FRAMES, there_are)
    if type(num_frames) is not int or not 2 <= num_frames <= there_are:
        limit = f"{num_steps} steps of {options.solver}, and the noise before them"
        raise InputError(
            f"num_frames must be a whole number from 2 to {there_are} "
            f"({limit if there_are == num_steps + 1 else 'the most there can be'}), "
            f"got {num_frames!r}."
        )
    steps = np.rint(np.linspace(0, num_steps, num_frames)).astype(int)
    watch = Watch(tuple(steps.tolist()), estimates)
    path = draw_path(sampler, params, watch)
    times = choose_times(options, sde)[steps]
    frames = []
    for k in range(len(steps)):
        wide = max(1.0, float(sde.sigma(jnp.float32(times[k]))))
        scaled = estimates or k == len(steps) - 1
        frames.append(sampler.to_pixels(path[:, k] if scaled else path[:, k] / wide))
    return Film(np.stack(frames), times, path, sampler.labels, sampler.class_names)


def draw_between(
    experiment: Experiment,
    sampler: Sampler,
    params: Params,
    seeds: tuple[int, int],
) -> Picture:
    """A sampler's images from one noise to another, and from one label to another.

    All that is random in image i is cos(a pi/2) n + sin(a pi/2) m, with n and m the
    noise of the first image of either seed and a from 0 to 1, equally spaced: the
    start, and what a stochastic solver adds. Of two labels the denoiser is (1 - a) D_1
    + a D_2 (see `make_mixed_denoiser`). The first picture and the last are those that
    the seeds and labels give by themselves.

    Args:
        experiment: Of the sampler.
        sampler: Says how many; its first label and its second are the ends.
        params: Parameters of the backbone.
        seeds: Of the noise at either end.

    Raises:
        InputError: Less than two images, or seeds that are no whole numbers from 0 on.
        NonFiniteError: The network's output was not finite.
    """
    if sampler.options.num_images < 2:
        raise InputError(
            "Between two images there must be at least two, got num_images="
            f"{sampler.options.num_images}."
        )
    check_seeds(seeds)
    count, labels = sampler.options.num_images, sampler.labels
    first, last = (None, None) if labels is None else (int(labels[0]), int(labels[1]))
    parts = np.linspace(0, 1, count)

    def full(value: int | None) -> Int[np.ndarray, "batch"] | None:
        size = sampler.batch_size
        return None if value is None else np.full(size, value, np.int32)

    def choose(index: Int[np.ndarray, "batch"]) -> Batch:
        part, zero = parts[index].astype(np.float32), np.zeros_like(index)
        mix = NoiseMix(image_keys(seeds[1], zero), noise_weights(parts[index]))
        other = full(last) if first != last else None
        return image_keys(seeds[0], zero), full(first), Between(mix, other, part)

    num_steps = len(choose_solver(sampler.options, experiment.sde).evaluations)
    path = draw_path(sampler, params, Watch((num_steps,)), choose)
    # One row, and no name beside it: its images are of two classes, and between.
    return Picture(sampler.to_pixels(path[:, -1]), None, (), count)


def check_seeds(seeds: tuple[object, ...]) -> None:
    """Raise InputError for seeds that are no whole numbers from 0 on."""
    if not all(type(seed) is int and 0 <= seed < 2**31 for seed in seeds):
        raise InputError(
            f"seeds must be whole numbers from 0 to {2**31 - 1}, got {seeds}."
        )


def two_seeds(given: object) -> tuple[int, int]:
    """One seed twice, or the two that are given.

    Raises:
        InputError: More of them, none, or no seeds.
    """
    seeds = two_of("seeds", given)
    check_seeds(seeds)
    return seeds


def two_of(what: str, given: object) -> tuple:
    """One value twice, or the two that are given.

    Raises:
        InputError: More of them, or none.
    """
    values = (
        tuple(given)
        if isinstance(given, Sequence) and not isinstance(given, str)
        else (given,)
    )
    if len(values) not in (1, 2):
        raise InputError(f"{what} must be one or two, from and to, got {given!r}.")
    return values[0], values[-1]


def _named(path: str | AnyPath, suffix: str) -> AnyPath:
    path = open_path(path)
    if path.suffix.lower() != suffix:
        raise InputError(f"This is saved as NAME{suffix}, got {str(path)!r}.")
    if not is_remote(path) and not path.parent.is_dir():
        raise InputError(f"There is no folder {path.parent} to save {path.name} in.")
    return path
