"""Images of which some pixels are known: read, checked, and drawn around."""

import hashlib
import os
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Shaped, UInt8
from PIL import Image

from dig_jax.data.decode import BadImageError, decode_image, normalize_image
from dig_jax.data.transforms import to_unit_range
from dig_jax.diffusion.completion import make_completing_denoiser
from dig_jax.errors import InputError
from dig_jax.files.paths import open_path
from dig_jax.files.reading import readable
from dig_jax.interfaces import SDE, Denoiser, Solver, UInt8Images
from dig_jax.options import DataOptions, SampleOptions
from dig_jax.sampling.choices import choose_solver
from dig_jax.sampling.decoding import LATENT_CHANNELS
from dig_jax.solvers.repaint import jump_path, remembers_nothing, repaint

PixelsOrFile: TypeAlias = Shaped[np.ndarray, "..."] | str | os.PathLike[str]
GivenImage: TypeAlias = PixelsOrFile | Image.Image
"""Pixels, Pillow's image, or the file that they are in."""

WHITE_FROM = 128
"""Of masks that hold more than 0 and 1."""
_CHANGED = ("16-bit", "transparent", "CMYK", "YCbCr")
"""What makes other pixels of a file's when it is decoded."""


class KnownPixels(NamedTuple):
    """An image, and which of its pixels are to be drawn.

    Attributes:
        image: [row, col, rgb]
        drawn: True where to draw; the others are known.
    """

    image: UInt8[np.ndarray | Array, "row col rgb"]
    drawn: Bool[np.ndarray | Array, "row col 1"]

    def put_into(self, images: UInt8Images) -> UInt8Images:
        """The images with the known pixels as they are."""
        return np.where(self.drawn, images, self.image)


def read_known(image: GivenImage, mask: GivenImage, data: DataOptions) -> KnownPixels:
    """An image and a mask that fit a run's images.

    Args:
        image: Of bytes, or a file of 8 bits, in the channels of the run's images.
        mask: True, or 128 and more, where to draw; of 0 and 1 alone, 1.
        data: What the run's images are.

    Raises:
        InputError: Of another size or other channels, unreadable, a mask that leaves
            nothing to draw or nothing known, or a run on latents.
    """
    if data.channels == LATENT_CHANNELS:
        raise InputError(
            "Inpainting needs a run on pixels: this one's images are latents, of which "
            "no part is a part of the picture."
        )
    rows, cols, channels = data.image_shape
    pixels = _read_image(image, channels)
    if pixels.shape != (rows, cols, channels):
        raise InputError(
            f"The known image must be {rows}x{cols} (rows, cols) with {channels} "
            f"{'channel' if channels == 1 else 'channels'}, as the run's images, got "
            f"{_said(pixels, image)}."
        )
    drawn = _read_mask(mask)
    if drawn.shape != (rows, cols):
        raise InputError(
            f"The mask must be {rows}x{cols} (rows, cols), as the run's images, got "
            f"{_said(drawn, mask)}."
        )
    if drawn.all() or not drawn.any():
        found = "white: draw new images instead" if drawn.all() else "black"
        raise InputError(
            f"The mask must be white ({WHITE_FROM} and more; 1, of 0 and 1) where to "
            f"draw and black where the image is kept, got one that is all {found}."
        )
    return KnownPixels(pixels, drawn[..., None])


def check_inpainting(options: SampleOptions, sde: SDE) -> None:
    """Raise InputError for options by which unknown pixels cannot be drawn."""
    if options.inpaint == "moments":
        if options.variance == "learned":
            raise InputError(
                "sample.variance=learned is of images without known pixels: set "
                "sample.variance=posterior, or sample.inpaint=repaint."
            )
        return
    solver = choose_solver(options, sde)
    if not remembers_nothing(solver):
        raise InputError(
            "sample.inpaint=repaint needs a solver whose steps stand alone (ancestral, "
            f"ddim, euler_maruyama, ode_euler), got {options.solver}: set another, or "
            "sample.inpaint=moments, which goes with all."
        )
    _path(options, solver)


def given_known(
    options: SampleOptions,
    sde: SDE,
    known: KnownPixels,
    denoise: Denoiser,
    solver: Solver,
    times: Float[np.ndarray, "time"],
) -> tuple[Denoiser, Solver, Float[np.ndarray, "moment"]]:
    """What `sample` draws the unknown pixels with: denoiser, solver, times.

    Args:
        options: How.
        sde: The forward process.
        known: The known pixels.
        denoise: Of images of which nothing is known; likewise the others.
    """
    image, drawn = to_unit_range(known.image), jnp.asarray(known.drawn)
    if options.inpaint == "moments":
        iterations = options.inpaint_iterations
        denoise = make_completing_denoiser(denoise, image, drawn, iterations=iterations)
        return denoise, solver, times
    path = _path(options, solver)
    return denoise, repaint(solver, sde, image, drawn, path), times[path]


def known_record(
    known: KnownPixels, options: SampleOptions, sde: SDE
) -> dict[str, Any]:
    """What a record of inpainted images says more than that of new ones."""
    drawn = np.asarray(known.drawn)
    image = np.where(drawn, 0, known.image)
    record = {"inpaint": options.inpaint, "known_digest": _digest(image)}
    record["mask_digest"] = _digest(drawn)
    if options.inpaint == "moments":
        return record | {"inpaint_iterations": options.inpaint_iterations}
    solver = choose_solver(options, sde)
    path = _path(options, solver)
    return record | {
        "inpaint_jump": options.inpaint_jump,
        "inpaint_resamplings": options.inpaint_resamplings,
        "function_evaluations": int((np.diff(path) > 0).sum()),
    }


def _path(options: SampleOptions, solver: Solver) -> np.ndarray:
    return jump_path(
        len(solver.evaluations),
        jump=options.inpaint_jump,
        resamplings=options.inpaint_resamplings,
    )


def _digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()[:16]


def _read_image(image: GivenImage, channels: int) -> np.ndarray:
    """[row, col, rgb], in the channels that it has."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            raise InputError(
                "The known image must be uint8 [row, col, rgb], for grey also [row, "
                f"col], got {image.dtype} {image.shape}."
            )
        pixels = image[..., None] if image.ndim == 2 else image
    else:
        pixels, notes = _decode(image, "the known image")
        changed = [note for note in notes if note in _CHANGED]
        if changed:
            raise InputError(
                "The known image must be a picture of 8 bits in grey or RGB, whose "
                f"pixels can be kept as they are, got one that is {changed[0]} in "
                f"{_name(image)}."
            )
    if pixels.shape[-1] in (1, 3) and (pixels == pixels[..., :1]).all():
        return np.repeat(pixels[..., :1], channels, axis=-1)
    return pixels


def _read_mask(mask: GivenImage) -> Bool[np.ndarray, "row col"]:
    """True where to draw."""
    if isinstance(mask, np.ndarray):
        is_picture = mask.ndim == 3 and mask.shape[-1] in (1, 3, 4)
        if mask.dtype not in (np.bool_, np.uint8) or not (mask.ndim == 2 or is_picture):
            raise InputError(
                "The mask must be bool or uint8 [row, col], True or white where to "
                f"draw, got {mask.dtype} {mask.shape}."
            )
        pixels = mask if is_picture else mask[..., None]
        opaque = pixels.shape[-1] < 4 or (pixels[..., 3] == np.max(pixels)).all()
        clear, pixels = not opaque, pixels[..., :3]
    else:
        pixels, notes = _decode(mask, "a mask")
        clear = "transparent" in notes
    if clear:
        raise InputError(
            "The mask must be white where to draw and black where the image is kept, "
            f"without transparent pixels, got one with some in {_name(mask)}: save it "
            "as grey or RGB."
        )
    brightest = pixels.max(axis=-1)
    # 0 and 1 alone are no two shades of black.
    is_bool = brightest.dtype == np.bool_ or brightest.max(initial=0) == 1
    return brightest.astype(np.bool_) if is_bool else brightest >= WHITE_FROM


def _decode(
    given: str | os.PathLike[str] | Image.Image, what: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """RGB pixels of a file or of Pillow's image, and what was done to make them."""
    if not isinstance(given, str | os.PathLike | Image.Image):
        raise InputError(
            "The known image and the mask must each be an array of NumPy, an image of "
            f"Pillow, or the name of a file, got {given!r}."
        )
    try:
        if isinstance(given, Image.Image):
            decoded = normalize_image(given, channels=3, upright=True)
        else:
            path = open_path(given)
            with readable(path, f"cannot be read as {what}"):
                content = path.read_bytes()
            decoded = decode_image(content, channels=3, upright=True)
    except BadImageError as error:
        name = _name(given)
        raise InputError(f"{name} cannot be read as {what}: {error}.") from error
    return np.asarray(decoded.image), decoded.notes


def _name(given: GivenImage) -> str:
    """What was given, for messages."""
    if isinstance(given, np.ndarray):
        return f"{given.dtype} {given.shape}"
    if isinstance(given, Image.Image):
        return f"Pillow's image of mode {given.mode}"
    return os.fspath(given)


def _said(pixels: np.ndarray, source: GivenImage) -> str:
    """Size, channels and file of a picture, for messages."""
    rows, cols, *channels = pixels.shape
    said = f"{rows}x{cols}" + (f" with {channels[0]}" if channels else "")
    return said if isinstance(source, np.ndarray) else f"{said} in {_name(source)}"
