"""What to do when a training step needs more memory than a device has."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import jax

from dig_jax.devices.device_errors import is_out_of_memory
from dig_jax.devices.sharding import divisors
from dig_jax.errors import InputError
from dig_jax.reporting.progress import Progress
from dig_jax.training.programs import TrainingPrograms


class Use(NamedTuple):
    """Bytes that a step needs on each device with so many images computed at a time."""

    images: int
    num_bytes: int


@contextlib.contextmanager
def explaining_shortage(
    programs: TrainingPrograms, progress: Progress
) -> Iterator[None]:
    """Turn a device's want of memory into a line that says what fits.

    Raises:
        InputError: The block ran out of a device's memory.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not is_out_of_memory(error):
            raise
        there = bytes_of_device(programs)
        with progress.busy("out of memory: looking for what fits"):
            # One process alone must not compile what all of them run.
            uses = measure_uses(programs) if jax.process_count() == 1 else []
        if there and uses and uses[0].num_bytes < there:
            raise  # it was something else that did not fit
        raise InputError(advice(programs, uses, there)) from error


def bytes_of_device(programs: TrainingPrograms) -> int | None:
    """What programs may use of a device's memory; None where that is not known."""
    stats = programs.mesh.local_devices[0].memory_stats() or {}
    return stats.get("bytes_limit")


def measure_uses(programs: TrainingPrograms) -> list[Use]:
    """What the step needs as it is, and with half as many images at a time.

    By the compiler's account: nothing is run. What does not compile is left out.
    """
    part = _images_at_a_time(programs)
    uses = []
    for images in (part, part // 2):
        if images % programs.mesh.size or not images:
            continue
        if programs.options.microbatch:
            options = replace(programs.options, microbatch=images)
        else:
            options = replace(programs.options, batch_size=images)
        smaller = replace(programs, options=options)
        try:
            found = smaller.lower_step().compile().memory_analysis()
        except jax.errors.JaxRuntimeError:  # it may be what there is no memory for
            continue
        if found is None:
            continue
        results = found.output_size_in_bytes - found.alias_size_in_bytes
        needed = found.argument_size_in_bytes + results + found.temp_size_in_bytes
        uses.append(Use(images, needed))
    return uses


def most_images(uses: list[Use], there: int) -> int | None:
    """The most images that fit by the line through two uses; None if it says none.

    No more than in proportion to the smaller use: the line may cross 0 too far to the
    right where the compiler arranges small batches better.
    """
    if len(uses) < 2:
        return None
    large, small = uses
    slope = (large.num_bytes - small.num_bytes) / (large.images - small.images)
    if slope <= 0:
        return None
    by_line = small.images + (there - small.num_bytes) / slope
    return max(int(min(by_line, small.images * there / small.num_bytes)), 0)


def advice(programs: TrainingPrograms, uses: list[Use], there: int | None) -> str:
    """What a step needs, what there is, the largest batch that fits, and microbatch."""
    options, part = programs.options, _images_at_a_time(programs)
    needed = [use.num_bytes for use in uses if use.images == part]
    said = f"A training step that computes {part} images at a time needs "
    said += f"{_gib(needed[0])}" if needed else "more memory"
    said += " on each device, which has "
    said += f"{_gib(there)}. " if there else "less. "
    largest = most_images(uses, there) if there else None
    # No fewer than one image on each device.
    fitting = [n for n in divisors(options.batch_size) if n % programs.mesh.size == 0]
    fitting = [n for n in fitting if n <= (part // 2 if largest is None else largest)]
    if largest is not None and fitting:
        said += f"About {largest} images fit. "
    elif largest is not None:
        said += "Not one image fits on each device. "
    if fitting:
        said += (
            f"training.microbatch={fitting[-1]} keeps the batch of "
            f"{options.batch_size} with less memory; so do "
        )
    else:
        said += "Less is needed with "
    return said + "backbone.remat=true and more devices in mesh.fsdp."


def _images_at_a_time(programs: TrainingPrograms) -> int:
    return programs.options.microbatch or programs.options.batch_size


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB"
