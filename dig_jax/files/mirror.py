"""A local folder whose files are uploaded to a bucket, again when they have changed.

Objects cannot be appended to. What grows line by line is therefore written locally, and
uploaded whole now and then.
"""

import shutil
import tempfile
import threading
from pathlib import Path

from absl import logging

from dig_jax.files.paths import AnyPath, upload

UPLOAD_SECONDS = 30.0


class Mirror:
    """Uploads the files of a local folder as they change.

    That happens every `seconds` in the background, where an error is logged and the
    next time tries again, and when `upload` is called.

    Args:
        target: Folder in a bucket.
        seconds: Between two looks at the files.

    Attributes:
        folder: The local folder: temporary, empty, flat.
    """

    def __init__(self, target: AnyPath, seconds: float = UPLOAD_SECONDS) -> None:
        self._target, self._seconds = target, seconds
        self.folder = Path(tempfile.mkdtemp(prefix="dig_jax_"))
        self._uploaded: dict[str, tuple[int, int]] = {}
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._keep_uploading, daemon=True)
        self._thread.start()

    def upload(self) -> None:
        """Upload what has changed.

        Raises:
            Exception: Of the bucket's client.
        """
        with self._lock:
            for file in sorted(self.folder.iterdir()):
                found = file.stat()
                version = (found.st_size, found.st_mtime_ns)
                if self._uploaded.get(file.name) != version:
                    upload(file, self._target / file.name)
                    self._uploaded[file.name] = version

    def try_upload(self) -> None:
        """Upload what has changed; an error is logged."""
        try:
            self.upload()
        except Exception as error:  # of a network: its classes are the client's
            logging.warning(
                "%s cannot be written now, and will be tried again: %s",
                self._target,
                _short(error),
            )

    def close(self) -> None:
        """Upload the last changes and remove the local folder.

        Raises:
            OSError: They cannot be uploaded, and stay where they are.
        """
        self._ended.set()
        self._thread.join()
        try:
            self.upload()
        except Exception as error:
            raise OSError(
                f"{self._target} could not be written ({_short(error)}); what belongs "
                f"there is in {self.folder}."
            ) from error
        shutil.rmtree(self.folder)

    def _keep_uploading(self) -> None:
        while not self._ended.wait(self._seconds):
            self.try_upload()


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
