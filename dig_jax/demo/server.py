"""The server of the page: loopback, one drawing at a time, no path from its users."""

import asyncio
import errno
import json
import socket
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tornado.httpserver
import tornado.netutil
import tornado.web

from dig_jax.demo.asked import Asked
from dig_jax.demo.playing import Played
from dig_jax.errors import InputError, NonFiniteError
from dig_jax.files.shown import printable
from dig_jax.sampling.choices import check_sample_options

PAGE = Path(__file__).parent / "page"
FILES = {
    "": ("page.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css; charset=utf-8"),
    "page.js": ("page.js", "text/javascript; charset=utf-8"),
}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MOST_WAITING = 8
MOST_BYTES = 16_384
"""Of a request."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src "
    "'self'; img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Server": "dig_jax",
    "X-Content-Type-Options": "nosniff",
}


class Queue:
    """One thread that draws; those who wait are counted.

    Attributes:
        waiting: Requests that are not answered yet, the one at work included.
        at_work: Whether the thread draws, also for who no longer waits.
    """

    def __init__(self) -> None:
        self.waiting, self.at_work = 0, False
        self._thread = ThreadPoolExecutor(1, "drawing")

    async def answer(self, draw: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `draw` gives, or the error in words."""
        if self.waiting >= MOST_WAITING:
            return {"error": f"{self.waiting} drawings wait already: try again later."}

        def work() -> dict[str, Any]:
            self.at_work = True
            try:
                return draw()
            finally:
                self.at_work = False

        self.waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, work)
        except (InputError, NonFiniteError) as error:
            return {"error": printable(error).replace("sample.", "")}
        except Exception:
            traceback.print_exc()
            return {"error": "Something went wrong; the terminal says what."}
        finally:
            self.waiting -= 1


class _Handler(tornado.web.RequestHandler):
    """What all answers have in common."""

    def initialize(self, models: list[Played], queue: Queue, guarded: bool) -> None:
        self.models, self.queue, self.guarded = models, queue, guarded

    def set_default_headers(self) -> None:
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        """Refuse what other pages of the browser ask for in our name."""
        host = urlsplit(f"//{self.request.host}").hostname
        origin = self.request.headers.get("Origin")
        foreign = origin is not None and urlsplit(origin).netloc != self.request.host
        if foreign or (self.guarded and host not in LOOPBACK):
            raise tornado.web.HTTPError(403)

    def write_error(self, status_code: int, **_: Any) -> None:
        self.finish(f"{status_code} {self._reason}\n")


class PageHandler(_Handler):
    """The page and its two files."""

    def get(self, name: str) -> None:
        """Send a file of the page."""
        file, kind = FILES[name]
        self.set_header("Content-Type", kind)
        self.finish((PAGE / file).read_bytes())


class StateHandler(_Handler):
    """What the page must know, and how many wait."""

    def get(self, name: str) -> None:
        """Send it."""
        if name == "queue":
            self.finish({"waiting": self.queue.waiting})
            return
        described = [model.describe() for model in self.models]
        self.finish({"models": described, "defaults": self.models[0].defaults()})


class AskHandler(_Handler):
    """Draw, go between, look at a node: by all models, or one of them."""

    async def post(self, name: str) -> None:
        """Answer a JSON object by one, with `error` where there is one."""
        if self.request.headers.get("Content-Type") != "application/json":
            raise tornado.web.HTTPError(415)
        try:
            fields = json.loads(self.request.body)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, Mapping):
            raise tornado.web.HTTPError(400)
        asked = Asked(fields)

        def draw() -> dict[str, Any]:
            if name == "node":
                which = asked.whole("model", 1, len(self.models))
                return self.models[which - 1].node(asked)
            began = time.monotonic()
            ask = {"draw": Played.draw, "between": Played.between}[name]
            answers = [ask(model, asked) for model in self.models]
            return {"models": answers, "seconds": time.monotonic() - began}

        self.finish(await self.queue.answer(draw))


def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen there; port 0 is any that is free.

    Raises:
        InputError: The port is in use, or the host is not this machine's.
    """
    try:
        return tornado.netutil.bind_sockets(port, host)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(
                f"Port {port} of {host} is in use: choose another with --port=N, or "
                "--port=0 for any that is free."
            ) from None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise InputError(
                f"Port {port} of {host} may not be used by this user: choose one from "
                "1024 on with --port=N."
            ) from None
        raise InputError(
            f"--host={host} is no address of this machine: {error.strerror}."
        ) from None


def check_models(models: list[Played]) -> None:
    """Raise InputError for models that cannot draw, or not from the same noise."""
    for model in models:
        check_sample_options(model.run.experiment, model.run.experiment.sample)
    first, *others = (model.run.experiment.backbone.image_shape for model in models)
    for other in others:
        if other != first:
            raise InputError(
                f"Side by side models draw from the same noise, so from images of one "
                f"shape; got {first} and {other}."
            )


def create_application(
    models: list[Played], queue: Queue, *, guarded: bool = True
) -> tornado.web.Application:
    """The page's server.

    Args:
        models: One, or two side by side.
        queue: What draws.
        guarded: Whether none but this machine's own names are answered, so that no
            other page leads here by a name of its own.
    """
    shared = {"models": models, "queue": queue, "guarded": guarded}
    return tornado.web.Application(
        [
            (r"/(|page\.css|page\.js)", PageHandler, shared),
            (r"/api/(model|queue)", StateHandler, shared),
            (r"/api/(draw|between|node)", AskHandler, shared),
        ],
        log_function=lambda handler: None,
    )


async def serve(
    application: tornado.web.Application,
    sockets: list[socket.socket],
    ended: asyncio.Event,
) -> None:
    """Answer at these sockets until the event is set."""
    server = tornado.httpserver.HTTPServer(
        application, max_body_size=MOST_BYTES, max_header_size=MOST_BYTES
    )
    server.add_sockets(sockets)
    await ended.wait()
    server.stop()
