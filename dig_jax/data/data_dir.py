"""Where data sets lie: local folders, or folders of a bucket as in `gs://`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dig_jax.errors import InputError

if TYPE_CHECKING:
    from etils import epath


def open_data_dir(data_dir: str) -> epath.Path:
    """A data_dir as a path.

    Raises:
        InputError: It is neither local nor in a bucket of Google Cloud Storage.
    """
    from etils import epath

    scheme, is_remote, _ = data_dir.partition("://")
    if is_remote and scheme != "gs":
        raise InputError(
            f"data_dir must be a local folder, or one of a bucket as in "
            f"gs://bucket/folder, got {data_dir!r}."
        )
    return epath.Path(data_dir).expanduser()


@contextlib.contextmanager
def explain_remote_errors(data_dir: str) -> Iterator[None]:
    """Turns what a bucket's client raises into an InputError of one line."""
    try:
        yield
    except InputError:
        raise
    # Missing clients, buckets, rights and networks: their errors have no common class.
    except Exception as error:
        if "://" not in data_dir:
            raise
        advice = "Is there such a bucket, and may you read it? Its client looks for "
        advice += "credentials as `gcloud auth application-default login` leaves them."
        if isinstance(error, ImportError):
            advice = "Reading from a bucket needs gcsfs: pip install gcsfs"
        reason = " ".join(str(error).split())[:300]
        raise InputError(
            f"data_dir={data_dir} cannot be read: {type(error).__name__}: {reason}. "
            f"{advice}"
        ) from error
