"""Reference statistics: what a set of real images' features are, in a file.

Our file is an npz of `mu`, `sigma` and, where there are any, `mu_s`, `sigma_s` (the
names of pytorch-fid and of the ADM evaluator, which can both read it), `features` of
some images in float32, and `provenance`, a JSON text. Those projects' own files are
read too.
"""

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dig_jax.errors import InputError
from dig_jax.files.paths import AnyPath, make_folder, written_whole
from dig_jax.interfaces import UInt8Images
from dig_jax.metrics.extraction import FeatureSpace
from dig_jax.metrics.feature_scores import FeatureSummary, describe_space
from dig_jax.metrics.moments import Moments

SCHEMA = 1
MAX_DIM = 8192
_LIMITS = {"features": 2**31, "provenance": 2**20, "arr_0": 2**34}
"""Bytes of an array that a file may declare; of the others 8 * MAX_DIM**2."""

UNKNOWN = "unknown"


@dataclass(frozen=True)
class ReferenceSet:
    """Which images the statistics are of.

    Attributes:
        dataset: Entry of DATASETS.
        split: Part of it.
        transform: How its images were made from the originals.
        fingerprint: Digest of the data.
    """

    dataset: str = UNKNOWN
    split: str = UNKNOWN
    transform: str = UNKNOWN
    fingerprint: str = UNKNOWN


@dataclass(frozen=True)
class ReferenceStatistics:
    """Statistics from a file.

    Attributes:
        summary: The features' moments, and features where the file has some. In another
            project's file the number of images is unknown.
        images: Which images they are of; all unknown in another project's file.
        sha256: Hex digest of the arrays and of what is said of them; a score's record
            carries it.
        keys: The arrays that were used.
    """

    summary: FeatureSummary
    images: ReferenceSet
    sha256: str
    keys: tuple[str, ...]


def write_reference(
    path: AnyPath, summary: FeatureSummary, images: ReferenceSet
) -> str:
    """Write a statistics file, whole or not at all; returns the digest it carries.

    The same features give the same file, byte for byte.
    """
    arrays: dict[str, Any] = {
        "mu": summary.moments.mean,
        "sigma": summary.moments.cov,
    }
    if summary.spatial is not None:
        arrays |= {"mu_s": summary.spatial.mean, "sigma_s": summary.spatial.cov}
    if summary.held is not None:
        arrays["features"] = summary.held
    described = {
        "schema": SCHEMA,
        "count": summary.moments.count,
        "space": asdict(summary.space),
        "images": asdict(images),
        "inception_score": summary.inception_score,
        "label_accuracy": summary.label_accuracy,
    }
    digest = _digest(arrays, described)
    arrays["provenance"] = np.array(json.dumps({**described, "sha256": digest}))
    make_folder(path.parent)
    with written_whole(path) as unfinished:
        np.savez(unfinished, **arrays)
    return digest


def read_reference(path: AnyPath, space: FeatureSpace) -> ReferenceStatistics:
    """Read our statistics, pytorch-fid's (mu, sigma), or ADM's (also mu_s, sigma_s).

    Args:
        path: The file.
        space: What features another project's file is taken to be of, since it does not
            say.

    Raises:
        InputError: There is no such file, it is damaged, or holds no statistics (a
            batch of images alone: `read_adm_images` reads it).
    """
    if not path.is_file():
        raise InputError(
            f"There are no reference statistics {path}; make some with --mode=stats, "
            "or name a .npz of pytorch-fid or of the ADM evaluator."
        )
    shapes = _array_shapes(path)
    keys = tuple(k for k in ("mu", "sigma", "mu_s", "sigma_s") if k in shapes)
    if keys not in (("mu", "sigma"), ("mu", "sigma", "mu_s", "sigma_s")):
        hint = " Features of its images (arr_0) would do." if "arr_0" in shapes else ""
        raise InputError(
            f"Reference statistics are arrays mu and sigma (and mu_s, sigma_s), got "
            f"{', '.join(shapes) or 'none'} in {path}.{hint}"
        )
    keys += tuple(k for k in ("features", "provenance") if "provenance" in shapes)
    keys = tuple(key for key in keys if key in shapes)
    for key in keys:
        _check_size(path, key, *shapes[key], _LIMITS.get(key, 8 * MAX_DIM**2))
    arrays = _load(path, keys)
    if "provenance" in arrays:
        return _own_statistics(path, arrays)
    return _foreign_statistics(path, arrays, space)


def holds_only_images(path: AnyPath) -> bool:
    """Whether an npz has a batch of images (`arr_0`) and no statistics."""
    return (
        path.is_file()
        and "arr_0" in (found := _array_shapes(path))
        and ("mu" not in found)
    )


def read_adm_images(path: AnyPath) -> UInt8Images:
    """The images of an ADM reference or sample batch (`arr_0`).

    Raises:
        InputError: There are none, or they are not uint8 [image, row, col, 3].
    """
    shapes = _array_shapes(path)
    if "arr_0" not in shapes:
        raise InputError(
            f"A batch of images is an array arr_0, got {', '.join(shapes)} in {path}."
        )
    _check_size(path, "arr_0", *shapes["arr_0"], _LIMITS["arr_0"])
    images = _load(path, ("arr_0",))["arr_0"]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise InputError(
            f"Images are uint8 [image, row, col, rgb], got {images.dtype} "
            f"{images.shape} in {path}."
        )
    return images


def check_reference(
    reference: ReferenceStatistics,
    space: FeatureSpace,
    images: ReferenceSet,
    *,
    force: bool = False,
) -> list[str]:
    """What the statistics differ in from a run, a line each; what is unknown passes.

    Args:
        reference: From a file.
        space: Where the run's features come from.
        images: Which real images the run is to be compared with; what is UNKNOWN is not
            compared.
        force: Return the differences instead of raising. A different number of features
            cannot be forced.

    Raises:
        InputError: They differ.
    """
    theirs, differences = reference.summary.space, []
    if theirs.dim != space.dim:
        raise InputError(
            f"The reference statistics have {theirs.dim} features, the network has "
            f"{space.dim}; name statistics of {space.name}."
        )
    if theirs != space:
        differences.append(
            f"features of {describe_space(theirs)} instead of {describe_space(space)}"
        )
    for name, wanted in asdict(images).items():
        found = asdict(reference.images)[name]
        if UNKNOWN not in (wanted, found) and wanted != found:
            differences.append(f"{name} {found} instead of {wanted}")
    if differences and not force:
        raise InputError(
            f"The reference statistics are of {'; '.join(differences)}. Make some with "
            "--mode=stats, name others, or force it."
        )
    return differences


def _own_statistics(
    path: AnyPath, arrays: dict[str, np.ndarray]
) -> ReferenceStatistics:
    try:
        described = json.loads(str(arrays.pop("provenance")))
        digest, schema = described.pop("sha256"), described["schema"]
        space = FeatureSpace(**described["space"])
        images, count = ReferenceSet(**described["images"]), int(described["count"])
        inception_score = described["inception_score"]
        label_accuracy = described["label_accuracy"]
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise InputError(f"{path} has no readable provenance: {error}.") from error
    if schema != SCHEMA:
        raise InputError(
            f"{path} is of schema {schema}, this version reads {SCHEMA}. Make it anew "
            "with --mode=stats."
        )
    if _digest(arrays, described) != digest:
        raise InputError(
            f"{path} is damaged: its arrays are not those that were written. Make it "
            "anew with --mode=stats."
        )
    summary = replace(
        _summary(path, arrays, space, count),
        inception_score=None if inception_score is None else tuple(inception_score),
        label_accuracy=label_accuracy,
    )
    return ReferenceStatistics(summary, images, digest, tuple(arrays))


def _foreign_statistics(
    path: AnyPath, arrays: dict[str, np.ndarray], space: FeatureSpace
) -> ReferenceStatistics:
    digest = _digest(arrays, {})
    summary = _summary(path, arrays, space, count=None)
    return ReferenceStatistics(summary, ReferenceSet(), digest, tuple(arrays))


def _summary(
    path: AnyPath,
    arrays: Mapping[str, np.ndarray],
    space: FeatureSpace,
    count: int | None,
) -> FeatureSummary:
    moments, spatial = (
        _moments(path, arrays[mean], arrays[cov], count) if mean in arrays else None
        for mean, cov in (("mu", "sigma"), ("mu_s", "sigma_s"))
    )
    assert moments is not None
    dim, held = len(moments.mean), arrays.get("features")
    if held is not None and (held.dtype != np.float32 or held.shape[1:] != (dim,)):
        raise InputError(
            f"{path} needs features float32 [image, {dim}], got {held.dtype} "
            f"{held.shape}."
        )
    return FeatureSummary(replace(space, dim=dim), moments, spatial, held)


def _moments(
    path: AnyPath, mean: np.ndarray, cov: np.ndarray, count: int | None
) -> Moments:
    if mean.ndim != 1 or cov.shape != mean.shape * 2:
        raise InputError(
            f"{path} needs a mean [dim] and a covariance [dim, dim], got {mean.shape} "
            f"and {cov.shape}."
        )
    for values in (mean, cov):
        if values.dtype.kind != "f" or not np.isfinite(values).all():
            raise InputError(f"{path} needs finite floating-point numbers.")
    return Moments(count, mean.astype(np.float64), cov.astype(np.float64))


def _digest(arrays: Mapping[str, np.ndarray], described: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {values.dtype.str} {values.shape};".encode())
        digest.update(values.data)
    return digest.hexdigest()


def _array_shapes(path: AnyPath) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and type that each array of an npz declares, nothing of it read."""
    shapes = {}
    try:
        with path.open("rb") as opened, zipfile.ZipFile(opened) as archive:
            for name in archive.namelist():
                if name.endswith(".npy"):
                    with archive.open(name) as file:
                        version = np.lib.format.read_magic(file)
                        read = {
                            (1, 0): np.lib.format.read_array_header_1_0,
                            (2, 0): np.lib.format.read_array_header_2_0,
                        }[version]
                        shape, _, dtype = read(file)
                        shapes[name.removesuffix(".npy")] = shape, dtype
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is no .npz that can be read: {error}.") from error
    return shapes


def _check_size(
    path: AnyPath, key: str, shape: tuple[int, ...], dtype: np.dtype, limit: int
) -> None:
    size = dtype.itemsize
    for length in shape:
        size *= length
    if dtype.hasobject or size > limit:
        raise InputError(
            f"{path} declares {key} as {dtype} {shape}; at most {limit} bytes of plain "
            "numbers are read."
        )


def _load(path: AnyPath, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in keys}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read: {error}.") from error
