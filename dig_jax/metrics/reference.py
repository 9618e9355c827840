"""Reference statistics: what a set of real images' features are, in a file.

Our file is an npz of `mu`, `sigma` and, where there are any, `mu_s`, `sigma_s` (the
names of pytorch-fid and of the ADM evaluator, which can both read it), `features` of
some images in float32, and `provenance`, a JSON text. Those projects' own files are
read too.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from dig_jax.errors import InputError
from dig_jax.files.npz import NpzFile, any_header, open_npz
from dig_jax.files.paths import AnyPath, make_folder, written_whole
from dig_jax.files.reading import parse_object, readable
from dig_jax.files.shown import printable
from dig_jax.interfaces import UInt8Images
from dig_jax.metrics.extraction import FeatureSpace
from dig_jax.metrics.feature_scores import FeatureSummary, describe_space
from dig_jax.metrics.moments import Moments
from dig_jax.metrics.reference_arrays import (
    MAX_DIM,
    check_vector,
    read_arrays,
    read_images,
)

SCHEMA = 1
MAX_PROVENANCE_BYTES = 2**20

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
        network: What their features are of; UNKNOWN in another project's file, which is
            then taken to be of the network that it is compared by.
    """

    summary: FeatureSummary
    images: ReferenceSet
    sha256: str
    keys: tuple[str, ...]
    network: str = UNKNOWN


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
            batch of images alone: `read_reference_file` reads it).
    """
    found = read_reference_file(path, space)
    if not isinstance(found, ReferenceStatistics):
        raise InputError(
            f"Reference statistics are arrays mu and sigma (and mu_s, sigma_s), got "
            f"arr_0 in {path}. Features of its images (arr_0) would do."
        )
    return found


def read_reference_file(
    path: AnyPath, space: FeatureSpace
) -> ReferenceStatistics | UInt8Images:
    """Statistics (see `read_reference`), or a batch of images where that is all.

    Raises:
        InputError: There is no such file, it is damaged, or holds neither.
    """
    if not path.is_file():
        raise InputError(
            f"There are no reference statistics {path}; make some with --mode=stats, "
            "or name a .npz of pytorch-fid or of the ADM evaluator."
        )
    with open_npz(path) as npz:
        if "arr_0" in npz and "mu" not in npz:
            return read_images(npz)
        keys = tuple(k for k in ("mu", "sigma", "mu_s", "sigma_s") if k in npz)
        if keys not in (("mu", "sigma"), ("mu", "sigma", "mu_s", "sigma_s")):
            raise InputError(
                "Reference statistics are arrays mu and sigma (and mu_s, sigma_s), "
                f"got {npz.describe()} in {path}."
            )
        if "provenance" in npz:
            return _own_statistics(npz, read_arrays(npz))
        return _foreign_statistics(path, read_arrays(npz), space)


def check_reference(
    reference: ReferenceStatistics,
    space: FeatureSpace,
    images: ReferenceSet,
    *,
    force: bool = False,
) -> list[str]:
    """What the statistics differ in from a run, and what is unknown, a line each.

    What is unknown passes where features are Inception's: files of other projects do
    not say their network. A classifier is trained for this comparison, and no file of
    another project can be of it.

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
    unknown = reference.network == UNKNOWN
    if theirs != space:
        differences.append(
            f"features of {describe_space(theirs)} instead of {describe_space(space)}"
        )
    elif unknown and space.domain and not force:
        raise InputError(_of_no_classifier(space.dim))
    for name, wanted in asdict(images).items():
        found = asdict(reference.images)[name]
        if UNKNOWN not in (wanted, found) and wanted != found:
            differences.append(f"{name} {found} instead of {wanted}")
    if differences and not force:
        raise InputError(
            f"The reference statistics are of {'; '.join(differences)}. Make some with "
            "--mode=stats, name others, or force it."
        )
    if unknown:
        differences.append(f"an unknown network with {theirs.dim} features")
    if reference.images == ReferenceSet():
        differences.append("unknown images")
    return differences


def check_reference_file(
    path: AnyPath, *, dim: int, of_classifier: bool, force: bool = False
) -> None:
    """Raise InputError for a file that cannot be a network's, by what it declares.

    Args:
        path: The file.
        dim: Features of the network.
        of_classifier: Whether that was trained on the data set itself.
        force: Whether statistics of an unknown network are taken for it.
    """
    with open_npz(path) as npz:
        if "mu" not in npz:
            return
        limit = f"{MAX_DIM} features"
        mean = npz.read("mu", check_vector, max_bytes=8 * MAX_DIM, limit=limit)
        if len(mean) != dim:
            raise InputError(
                f"The reference statistics in {path} have {len(mean)} features, the "
                f"network has {dim}; name statistics of it."
            )
        if of_classifier and "provenance" not in npz and not force:
            raise InputError(f"{path}: {_of_no_classifier(dim)}")


def arrays_to_score_by(path: AnyPath) -> frozenset[str]:
    """Which of mu, mu_s and features a file has, or gives: images give all of them.

    Raises:
        InputError: The file cannot be read.
    """
    with open_npz(path) as npz:
        if "mu" not in npz and "arr_0" in npz:
            return frozenset({"mu", "mu_s", "features"})
        found = {name for name in ("mu", "mu_s") if name in npz}
        if "features" in npz and "provenance" in npz:  # as `read_arrays` takes them
            found.add("features")
        return frozenset(found)


def _of_no_classifier(dim: int) -> str:
    return (
        f"Statistics of this data set's own classifier say so, and these do not: they "
        f"are {dim} features of an unknown network. Make some with --mode=stats, or "
        f"take them all the same, marked as unknown "
        f"(--config.evaluation.allow_other_reference=true)."
    )


def _own_statistics(npz: NpzFile, arrays: dict[str, np.ndarray]) -> ReferenceStatistics:
    path = npz.place
    text = npz.read(
        "provenance", any_header, max_bytes=MAX_PROVENANCE_BYTES, limit="of a JSON text"
    )
    again = "Make it anew with --mode=stats."
    with readable(path, "has no readable provenance", again):
        described = parse_object(str(text).encode())
        digest, schema = described.pop("sha256"), described["schema"]
    if schema != SCHEMA:
        raise InputError(
            f"{path} is of schema {printable(schema)}, this version reads {SCHEMA}. "
            f"{again}"
        )
    if _digest(arrays, described) != digest:
        raise InputError(
            f"{path} is damaged: its arrays are not those that were written. {again}"
        )
    with readable(path, "has no readable provenance", again):
        space = FeatureSpace(**described["space"])
        images, count = ReferenceSet(**described["images"]), int(described["count"])
        inception_score = described["inception_score"]
        summary = replace(
            _summary(path, arrays, space, count),
            inception_score=None if inception_score is None else tuple(inception_score),
            label_accuracy=described["label_accuracy"],
        )
        _check_described(summary, images)
    return ReferenceStatistics(summary, images, digest, tuple(arrays), space.name)


def _check_described(summary: FeatureSummary, images: ReferenceSet) -> None:
    """Raise TypeError unless what is said of statistics has the types of what is."""
    space, texts = asdict(summary.space), asdict(images)
    numbers = (*(summary.inception_score or ()), summary.label_accuracy or 0.0)
    del space["dim"]
    if not all(isinstance(text, str) for text in (*space.values(), *texts.values())):
        raise TypeError("what it says of its images and features is not text")
    if not all(isinstance(number, float | int) for number in numbers):
        raise TypeError("its scores are no numbers")


def _foreign_statistics(
    path: AnyPath, arrays: dict[str, np.ndarray], space: FeatureSpace
) -> ReferenceStatistics:
    digest = _digest(arrays, {})
    summary = _summary(path, arrays, space, count=None)
    return ReferenceStatistics(summary, ReferenceSet(), digest, tuple(arrays))


def _summary(
    path: AnyPath | str,
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
    return FeatureSummary(replace(space, dim=dim), moments, spatial, held)


def _moments(
    path: AnyPath | str, mean: np.ndarray, cov: np.ndarray, count: int | None
) -> Moments:
    for values in (mean, cov):
        if not np.isfinite(values).all():
            raise InputError(f"{path} needs finite floating-point numbers.")
    return Moments(count, mean.astype(np.float64), cov.astype(np.float64))


def _digest(arrays: Mapping[str, np.ndarray], described: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name in sorted(arrays):
        values = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {values.dtype.str} {values.shape};".encode())
        digest.update(values.data)
    return digest.hexdigest()
