"""The bucket gs://bucket, kept in memory by a server that speaks Google's JSON API.

The clients are the real ones: gcsfs and google-cloud-storage, TensorStore (Orbax's
arrays), array_record (data sets). Each has its own way to be pointed to a server.
"""

import contextlib
import hashlib
import json
import re
import threading
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET = "gs://bucket"
PREFIX = "/storage/v1/b/bucket"
TIME = "2026-01-01T00:00:00.000Z"


class Bucket:
    """Objects by name, as the server holds them.

    Attributes:
        address: Of the server.
        objects: Content and generation by name.
        log: Method and path of each request.
        broken: While true every request fails, as of a caller without rights.
    """

    def __init__(self):
        self.address = ""
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.uploads: dict[str, tuple[str, bytearray]] = {}
        self.log: list[tuple[str, str]] = []
        self.broken = False
        self.lock = threading.Lock()
        self._generation = 0

    def put(self, name, content):
        self._generation += 1
        self.objects[name] = (bytes(content), self._generation)

    def put_folder(self, folder, name):
        """Copy a local folder."""
        for path in sorted(Path(folder).rglob("*")):
            if path.is_file():
                relative = path.relative_to(folder).as_posix()
                self.put(f"{name}/{relative}", path.read_bytes())

    def names(self, prefix=""):
        return sorted(name for name in self.objects if name.startswith(prefix))

    def read(self, name):
        return self.objects[name][0]

    def describe(self, name):
        content, generation = self.objects[name]
        return {
            "kind": "storage#object",
            "bucket": "bucket",
            "name": name,
            "id": f"bucket/{name}/{generation}",
            "generation": str(generation),
            "metageneration": "1",
            "size": str(len(content)),
            "contentType": "application/octet-stream",
            "md5Hash": b64encode(hashlib.md5(content).digest()).decode(),
            "etag": str(generation),
            "updated": TIME,
            "timeCreated": TIME,
        }

    def list(self, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        first = max(query.get("startOffset", ""), query.get("pageToken", ""))
        end = query.get("endOffset", "")
        most = int(query.get("maxResults", 1000))
        items, prefixes, token = [], [], None
        for name in self.names(prefix):
            if name < first or (end and name >= end):
                continue
            if len(items) + len(prefixes) == most:
                token = name
                break
            head, found, _ = name[len(prefix) :].partition(delimiter or "\0")
            if not found:
                items.append(self.describe(name))
            elif (folder := prefix + head + delimiter) not in prefixes:
                prefixes.append(folder)
        listed = {"kind": "storage#objects", "items": items, "prefixes": prefixes}
        return listed | ({"nextPageToken": token} if token else {})


class BucketServer(BaseHTTPRequestHandler):
    """Answers as much of the JSON API as the clients use."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    bucket: Bucket

    def answer(self) -> None:
        url = urlsplit(self.path)
        query = {k: v[-1] for k, v in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = url.path.removeprefix("/download")
        name = unquote(path.removeprefix(f"{PREFIX}/o/")) if "/o/" in path else ""
        with self.bucket.lock:
            self.bucket.log.append((self.command, unquote(path)))
            if self.bucket.broken:
                return self.refuse(403, "Anonymous caller does not have access")
            if path.startswith("/upload/"):
                return self.upload(path, query, body)
            if path == "/batch/storage/v1":
                return self.batch(body)
            if path == PREFIX:
                return self.reply({"kind": "storage#bucket", "name": "bucket"})
            if path == f"{PREFIX}/o":
                return self.reply(self.bucket.list(query))
            if "/moveTo/o/" in path or "/rewriteTo/b/" in path:
                return self.copy(path)
            if name not in self.bucket.objects:
                return self.refuse(404, f"No such object: bucket/{name}")
            if self.command == "DELETE":
                del self.bucket.objects[name]
                return self.send(204, b"")
            if query.get("alt") == "media":
                return self.hand_out(name, query)
            return self.reply(self.bucket.describe(name))

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def hand_out(self, name, query):
        content, generation = self.bucket.objects[name]
        if query.get("ifGenerationNotMatch") == str(generation):
            return self.send(304, b"")
        headers = {"X-Goog-Generation": str(generation)}
        if "Range" not in self.headers:
            return self.send(200, content, headers)
        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
        start = int(first) if first else max(0, len(content) - int(last))
        stop = min(int(last) + 1, len(content)) if first and last else len(content)
        if start >= len(content):
            return self.refuse(416, "Range not satisfiable")
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        return self.send(206, content[start:stop], headers)

    def upload(self, path, query, body):
        kind = query.get("uploadType")
        if kind == "resumable":
            number = str(len(self.bucket.uploads))
            name = query.get("name") or json.loads(body)["name"]
            self.bucket.uploads[number] = (name, bytearray())
            where = f"{self.bucket.address}/upload/{number}"
            return self.send(200, b"", {"Location": where})
        if kind == "media":
            name, content = query["name"], body
        elif kind == "multipart":
            name, content = split_multipart(self.headers["Content-Type"], body)
        else:
            name, received = self.bucket.uploads[path.rsplit("/", 1)[-1]]
            received += body
            if self.headers["Content-Range"].endswith("/*"):
                return self.send(308, b"", {"Range": f"bytes=0-{len(received) - 1}"})
            content = received
        wanted = query.get("ifGenerationMatch")
        _, generation = self.bucket.objects.get(name, (b"", 0))
        if wanted is not None and int(wanted) != generation:
            return self.refuse(412, "conditionNotMet")
        self.bucket.put(name, content)
        return self.reply(self.bucket.describe(name))

    def copy(self, path):
        source, how, target = re.split("/(moveTo/o|rewriteTo/b/bucket/o)/", path)
        source = unquote(source.removeprefix(f"{PREFIX}/o/"))
        if source not in self.bucket.objects:
            return self.refuse(404, f"No such object: bucket/{source}")
        self.bucket.put(unquote(target), self.bucket.read(source))
        if how.startswith("moveTo"):
            del self.bucket.objects[source]
            return self.reply(self.bucket.describe(unquote(target)))
        return self.reply({"done": True})

    def batch(self, body):
        parts = []
        for path in re.findall(rb"DELETE (\S+) HTTP", body):
            name = unquote(path.decode().removeprefix(f"{PREFIX}/o/").split("?")[0])
            there = self.bucket.objects.pop(name, None) is not None
            parts.append(f"HTTP/1.1 {204 if there else 404} \r\n\r\n")
        text = "--part\r\n" + "--part\r\n".join(parts) + "--part--"
        headers = {"Content-Type": "multipart/mixed; boundary=part"}
        return self.send(200, text.encode(), headers)

    def reply(self, value):
        return self.send(
            200, json.dumps(value).encode(), {"Content-Type": "application/json"}
        )

    def refuse(self, code, message):
        error = {"code": code, "message": message, "errors": [{"message": message}]}
        return self.send(code, json.dumps({"error": error}).encode())

    def send(self, code, content, headers=()):
        self.send_response(code)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client has had enough
            self.wfile.write(content)

    def log_message(self, *rest) -> None:
        pass


class QuietServer(ThreadingHTTPServer):
    """Says nothing of clients that leave."""

    daemon_threads = True

    def handle_error(self, *rest) -> None:
        pass


def split_multipart(content_type, body):
    """Name and content of an object that is uploaded in one request."""
    found = re.search('boundary="?([^";]+)', content_type)
    assert found is not None
    mark = b"--" + found[1].encode()
    _, described, rest = body.split(mark, 2)
    end = b"\r\n" if described.startswith(b"\r\n") else b"\n"
    _, described = described.split(end + end, 1)
    _, content = rest.rsplit(end + mark, 1)[0].split(end + end, 1)
    return json.loads(described)["name"], content


@contextlib.contextmanager
def serve_bucket():
    """An empty bucket and its server."""
    bucket = Bucket()
    handler = type("Server", (BucketServer,), {"bucket": bucket})
    with QuietServer(("127.0.0.1", 0), handler) as server:
        bucket.address = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield bucket
        server.shutdown()


def settings_of(bucket):
    """What the clients find in the environment to come to the server."""
    return {
        "STORAGE_EMULATOR_HOST": bucket.address,
        "TENSORSTORE_GCS_HTTP_URL": bucket.address,
        "CLOUD_STORAGE_EMULATOR_ENDPOINT": bucket.address,
        # None of them shall look for credentials.
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "none",
        "GOOGLE_CLOUD_PROJECT": "none",
        "NO_GCE_CHECK": "true",
    }
