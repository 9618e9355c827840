"""Shards written by several processes, which end with the one that started them."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_process
from pathlib import Path
from typing import Any

from dig_jax.errors import InputError
from dig_jax.prepare.shards import Advance, ImageRule, ShardRecord, write_shard
from dig_jax.prepare.splits import RawImage

_SECONDS_BETWEEN_LOOKS = 0.2
_STOP = -(2**62)  # A count of images at which workers end what they are at.
_counter: Any = None  # Of images that are done; set in worker processes alone.


def write_in_processes(
    jobs: Iterable[tuple[Path, Iterable[RawImage]]],
    rule: ImageRule,
    num_workers: int,
    advance: Advance,
) -> Iterator[ShardRecord]:
    """Shards as they are finished, in any order.

    Raises:
        InputError: As `write_shard`, or a worker ended abruptly.
    """
    context = multiprocessing.get_context("spawn")
    counter = context.Value("q", 0)
    told = 0
    with ProcessPoolExecutor(num_workers, context, _start_worker, (counter,)) as pool:
        jobs = iter(jobs)
        running: set[Future[ShardRecord]] = set()
        try:
            while True:
                # Few at a time: each job carries the names of its files.
                for path, images in jobs:
                    running.add(pool.submit(_work, path, images, rule))
                    if len(running) > num_workers:
                        break
                if not running:
                    return
                done, running = wait(
                    running, _SECONDS_BETWEEN_LOOKS, return_when=FIRST_COMPLETED
                )
                now = counter.value
                advance(now - told)
                told = now
                for future in done:
                    yield future.result()
        except BrokenProcessPool as error:
            raise InputError(
                "A worker process ended abruptly, maybe for want of memory. Run the "
                "same command again, perhaps with a smaller --num_workers."
            ) from error
        finally:
            counter.value = _STOP
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(counter: Any) -> None:
    global _counter
    _counter = counter
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent to handle.
    # Workers would wait for ever for jobs from a parent that was killed.
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for_process([parent.sentinel])
        os._exit(1)


def _work(path: Path, images: Iterable[RawImage], rule: ImageRule) -> ShardRecord:
    def advance(count: int) -> None:
        with _counter.get_lock():
            _counter.value += count
            if _counter.value < 0:
                raise InputError("Stopped.")

    return write_shard(path, images, rule, advance)
