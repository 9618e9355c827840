"""--mode=demo: a page to play with a trained model."""

from __future__ import annotations

import importlib.util
import signal
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import ConfigDict

from dig_jax.cli.command_line import step_of, workdir_of
from dig_jax.errors import EXIT_DONE, InputError
from dig_jax.files.pretrained import name_of
from dig_jax.files.shown import say

if TYPE_CHECKING:
    from dig_jax.run import Run

MOST_PORT = 65535


def demo_mode(config: ConfigDict, options: flags.FlagValues) -> int:
    """--mode=demo: serve the page until Ctrl-C."""
    from dig_jax.devices.processes import exit_now, is_distributed

    if importlib.util.find_spec("tornado") is None:
        raise InputError("--mode=demo needs tornado: pip install tornado.")
    if options.port > MOST_PORT:
        raise InputError(
            f"--port must be from 0 to {MOST_PORT}, got --port={options.port}."
        )
    if is_distributed():
        raise InputError(
            "--mode=demo runs in one process: leave out --distributed, "
            "--num_processes and what goes with them."
        )
    import asyncio

    from dig_jax.demo import server  # the imports take seconds
    from dig_jax.demo.playing import Played
    from dig_jax.reporting.progress import Progress
    from dig_jax.run import load

    sockets, queue = server.bind(options.host, options.port), server.Queue()
    try:
        with Progress(0, description="demo") as progress:
            runs: list[Run] = []
            with progress.busy(f"loading {name_of(workdir_of(options))}"):
                run = load(workdir_of(options), step=step_of(options), config=config)
                runs.append(run)
            if options.beside:
                with progress.busy(f"loading {options.beside}"):
                    runs.append(load(options.beside))
            models = [Played(run) for run in runs]
            server.check_models(models)
            for model in models:
                with progress.busy(f"warming up {model.name}"):
                    model.warm_up()
        port = sockets[0].getsockname()[1]
        shown = f"[{options.host}]" if ":" in options.host else options.host
        say(f"Play at http://{shown}:{port}/ (Ctrl-C ends it)")
        guarded = options.host in server.LOOPBACK
        application = server.create_application(models, queue, guarded=guarded)
        asyncio.run(server.serve(application, sockets, asyncio.Event()))
    except KeyboardInterrupt:
        # Another one would find Python on its way out, and nobody to catch it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        say("\nEnded.")
        if queue.at_work:  # Python's own exit would wait for the drawing
            exit_now(EXIT_DONE)
    finally:
        for listening in sockets:
            listening.close()
    return EXIT_DONE
