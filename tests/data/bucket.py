"""A folder as the bucket gs://bucket, for the two clients that read from it."""

import contextlib
import re
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from etils.epath.backend import _OsPathBackend

BUCKET = "gs://bucket"


class BucketBackend(_OsPathBackend):
    """What epath asks about the bucket, answered from a folder."""

    def __init__(self, folder):
        self._folder, self._on_disk = str(folder), _OsPathBackend()

    def __getattribute__(self, name):
        folder, on_disk = (
            object.__getattribute__(self, key) for key in ("_folder", "_on_disk")
        )
        function = getattr(on_disk, name)
        return lambda path, *rest, **options: function(
            str(path).replace(BUCKET, folder), *rest, **options
        )


class ObjectServer(BaseHTTPRequestHandler):
    """Hands out the bucket's objects, or parts of them, as Google's JSON API does."""

    folder: Path
    served: list[str]

    def do_GET(self) -> None:
        path = urllib.parse.unquote(self.path)
        found = re.fullmatch(r"/storage/v1/b/bucket/o/(.+)\?alt=media", path)
        if not found or not (self.folder / found[1]).is_file():
            self.send_error(404)
            return
        self.served.append(found[1])
        content = (self.folder / found[1]).read_bytes()
        first, last = self.headers.get("Range", "bytes=0-")[len("bytes=") :].split("-")
        start = int(first) if first else max(0, len(content) - int(last))
        stop = int(last) + 1 if first and last else len(content)
        self.send_response(206)
        self.send_header("Content-Length", str(len(content[start:stop])))
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.end_headers()
        with contextlib.suppress(OSError):  # the client has had enough
            self.wfile.write(content[start:stop])

    def log_message(self, *rest) -> None:
        pass


@contextlib.contextmanager
def serve_objects(folder):
    """Address of a server of the folder's objects, and the list of those it served."""
    served: list[str] = []
    state = {"folder": Path(folder), "served": served}
    handler = type("FolderServer", (ObjectServer,), state)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", served
        server.shutdown()
