"""Where data sets lie: local folders, or folders of a bucket as in `gs://`."""

from __future__ import annotations

from contextlib import AbstractContextManager

from etils import epath

from dig_jax.files import paths as files


def open_data_dir(data_dir: str) -> epath.Path:
    """A data_dir as a path.

    Raises:
        InputError: It is neither local nor in a bucket of Google Cloud Storage.
    """
    return epath.Path(files.open_path(data_dir))


def explain_remote_errors(data_dir: str) -> AbstractContextManager[None]:
    """Turns what a bucket's client raises into an InputError of one line."""
    return files.explain_remote_errors("data_dir", data_dir)
