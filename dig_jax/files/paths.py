"""Paths, local or in a bucket, and files that are written whole or not at all.

A bucket has no folders, no appending, and no renaming but by copies: what is written
there is uploaded whole, which the bucket shows at once or not at all.
"""

import contextlib
import importlib.util
import logging
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from shlex import quote
from typing import TypeAlias

from etils import epath

from dig_jax.errors import InputError
from dig_jax.files.pretrained import find_shipped, refuse_shipped

AnyPath: TypeAlias = Path | epath.Path
"""A local path, or one in a bucket as in gs://bucket/run."""

BUCKET_SCHEME = "gs"
CHECKPOINTS, BEST = CHECKPOINT_FOLDERS = ("checkpoints", "best")
"""Of a run: each holds a folder for each step; `best`, that of the best score."""


def open_path(path: str | os.PathLike[str]) -> AnyPath:
    """A path as users spell it: local, with ~ for home, or gs://BUCKET/NAME.

    Raises:
        InputError: Storage of another kind, or the client of buckets is missing.
    """
    text = os.fspath(path)
    scheme, is_url, rest = text.partition("://")
    if not is_url and text.startswith(f"{BUCKET_SCHEME}:/"):
        raise InputError(
            f"A path in a bucket must be text, because pathlib takes a slash away, got "
            f"{text!r}."
        )
    if not is_url:
        return Path(text).expanduser()
    if scheme != BUCKET_SCHEME or not rest.strip("/"):
        raise InputError(
            f"A path must be local, or in a bucket of Google Cloud Storage as in "
            f"gs://bucket/folder, got {text!r}."
        )
    if importlib.util.find_spec("gcsfs") is None:
        raise InputError(f"{text} needs the client of buckets: pip install gcsfs")
    _prepare_client()
    return epath.Path(text)


def open_workdir(path: str | os.PathLike[str]) -> AnyPath:
    """The folder of a run; see `open_path`.

    `pretrained:NAME` is a model that comes with the package.

    Raises:
        InputError: Its bucket does not exist or cannot be reached, too; or it is a
            file, or one of a run's checkpoints; or there is no such model.
    """
    if (shipped := find_shipped(path)) is not None:
        return shipped
    workdir = open_path(path)
    _check_folder(workdir, "workdir")
    inner = workdir.parent if workdir.name.isdecimal() else workdir
    if (run := _run_of_checkpoints(inner)) is None:
        return workdir
    step = "best" if inner.name == "best" else workdir.name
    flag = f" {quote(f'--step={step}')}" if inner != workdir or step == "best" else ""
    kind = "a checkpoint" if flag else "a folder of checkpoints"
    meant = f"--workdir={quote(str(run))}{flag}"
    modes = " (of --mode=sample, evaluate or export)" if flag else ""
    raise InputError(f"{workdir} is {kind} of the run in {run}: say {meant}{modes}.")


def open_out(path: str | os.PathLike[str]) -> AnyPath:
    """A folder to write to; see `open_path`.

    Raises:
        InputError: Its bucket cannot be reached, or it is a file, or in the checkpoints
            of a run, or of a model that comes with the package.
    """
    if (shipped := find_shipped(path)) is not None:
        refuse_shipped(shipped)
    out = open_path(path)
    if not is_remote(out):
        refuse_shipped(out)
    _check_folder(out, "out")
    for folder in (out, *out.parents):
        if (run := _run_of_checkpoints(folder)) is not None:
            raise InputError(
                f"{out} is among the checkpoints of the run in {run}, where nothing "
                f"else is written: choose another folder, such as --out={run / 'out'}."
            )
    return out


def _check_folder(folder: AnyPath, name: str) -> None:
    """Raise InputError for a path that can be no folder."""
    if not is_remote(folder):
        file = next((p for p in (folder, *folder.parents) if p.is_file()), None)
        if file is not None:
            raise InputError(f"A folder is needed, got {folder}: {file} is a file.")
        return
    # Asked first: gcsfs would try to make a bucket of a misspelt name.
    bucket = epath.Path("/".join(str(folder).split("/")[:3]))
    with explain_remote_errors(name, folder):
        if not bucket.exists():
            raise FileNotFoundError(f"there is no {bucket}, or you may not see it")


def _run_of_checkpoints(folder: AnyPath) -> AnyPath | None:
    """The workdir of the run whose checkpoints a folder holds; None for any other."""
    run = folder.parent
    if folder.name not in CHECKPOINT_FOLDERS or not (run / "config.json").is_file():
        return None
    return run


def check_writable(folder: AnyPath, advice: str) -> None:
    """Raise InputError unless files can be made in a local folder, or it be made.

    Args:
        folder: A bucket's rights show when it is written to: it is passed over.
        advice: What to do instead, a sentence.
    """
    if is_remote(folder):
        return
    refuse_shipped(folder)
    there = next(p for p in (Path(folder), *Path(folder).parents) if p.exists())
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".dig_jax_"):
            pass
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written to ({error.strerror}). {advice}"
        ) from None


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path lies in a bucket."""
    return "://" in os.fspath(path)


@contextlib.contextmanager
def explain_remote_errors(name: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns what a bucket's client raises into an InputError of one line.

    Args:
        name: What the user calls the path.
        path: The path.
    """
    try:
        yield
    except InputError:
        raise
    # Missing clients, buckets, rights and networks: their errors have no common class.
    except Exception as error:
        if not is_remote(path):
            raise
        advice = "Is there such a bucket, and do your rights suffice? Its client looks "
        advice += "for credentials where `gcloud auth application-default login` leaves"
        advice += " them."
        if isinstance(error, ImportError):
            advice = "Buckets need gcsfs: pip install gcsfs"
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"{name}={os.fspath(path)} cannot be used: {type(error).__name__}: "
            f"{reason}. {advice}"
        ) from error


def make_folder(path: AnyPath) -> None:
    """Make a local folder, with those on the way; a bucket needs none.

    Raises:
        InputError: It is of a model that comes with the package.
    """
    if not is_remote(path):
        refuse_shipped(path)
        path.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def written_whole(path: AnyPath) -> Iterator[Path]:
    """A local path to write to; the file takes its name when the block has ended.

    So a reader never sees half of it, and what was there stays if writing fails.
    """
    if is_remote(path):
        with tempfile.TemporaryDirectory() as folder:
            unfinished = Path(folder) / path.name
            yield unfinished
            upload(unfinished, path)
        return
    path = Path(path)
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        with naming_file(path):
            yield unfinished
            with unfinished.open("rb+") as file:
                os.fsync(file.fileno())
            unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(path: AnyPath, content: str | bytes) -> None:
    """Write text in UTF-8, or bytes."""
    data = content.encode() if isinstance(content, str) else content
    with written_whole(path) as unfinished:
        unfinished.write_bytes(data)


@contextlib.contextmanager
def naming_file(path: AnyPath) -> Iterator[None]:
    """Gives errors that name no file, as that of a full disk, the name of one."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise type(error)(error.errno, error.strerror, str(path)) from error


def read_text(path: AnyPath) -> str:
    """Text in UTF-8; bytes that are none, as a crash may leave them, become marks."""
    return path.read_bytes().decode(errors="replace")


def upload(file: Path, path: AnyPath) -> None:
    """Copy a local file into a bucket."""
    _client().put_file(str(file), str(path))


def _client():
    import fsspec

    return fsspec.filesystem(BUCKET_SCHEME)


def _prepare_client() -> None:
    """Settle how epath, Orbax and we reach buckets: by gcsfs, which keeps nothing."""
    # It logs the traceback of what it raises, and what it raises is told in a line.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    # Else it asks for the bucket's kind before each request that has no answer, as for
    # want of rights. Who has a zonal bucket sets it.
    os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    import fsspec.config

    # Else epath takes TensorFlow where it is installed, which takes all of a GPU.
    os.environ.setdefault("EPATH_USE_TF", "false")
    # A listing that is kept does not show what others write, nor what TensorStore does.
    fsspec.config.conf.setdefault(BUCKET_SCHEME, {})["use_listings_cache"] = False
