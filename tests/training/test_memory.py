"""A step that needs more memory than there is: what the line says."""

import io
import re
from dataclasses import replace

import jax
import pytest
from processes import digits_config

from dig_jax.devices.sharding import MeshOptions, create_mesh
from dig_jax.errors import InputError
from dig_jax.experiment import create_experiment
from dig_jax.reporting.progress import Progress
from dig_jax.training import memory
from dig_jax.training.memory import Use, advice, explaining_shortage, most_images
from dig_jax.training.programs import create_programs

TINY = {
    "backbone.width": 16,
    "backbone.depth": 2,
    "backbone.hops": 1,
    "backbone.patch_sizes": (4,),
    "training.batch_size": 64,
}
FULL = jax.errors.JaxRuntimeError(
    "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 12345678 bytes."
)


@pytest.fixture(scope="module")
def programs(data_dir):
    config = digits_config(data_dir, TINY, {})
    return create_programs(create_experiment(config), create_mesh(MeshOptions(data=1)))


@pytest.fixture(scope="module")
def uses(programs):
    return memory.measure_uses(programs)


def explained(programs, there, monkeypatch, error=FULL):
    monkeypatch.setattr(memory, "bytes_of_device", lambda programs: there)
    progress = Progress(1, stream=io.StringIO())
    with explaining_shortage(programs, progress):
        raise error


def test_a_line_through_two_batches_says_which_one_fits():
    uses = [Use(64, 1000 + 64 * 10), Use(32, 1000 + 32 * 10)]
    assert most_images(uses, 1000 + 20 * 10) == 20
    assert most_images(uses, 900) == 0
    assert most_images([Use(64, 1500), Use(32, 500)], 400) == 25
    assert most_images(uses[:1], 5000) is None


def test_what_is_advised_fits(programs, uses, monkeypatch):
    whole, half = (use.num_bytes for use in uses)
    there = (whole + 3 * half) // 4
    with pytest.raises(InputError) as caught:
        explained(programs, there, monkeypatch)
    line = str(caught.value)
    assert "\n" not in line
    assert "GiB" in line
    (part,) = map(int, re.findall(r"training\.microbatch=(\d+) keeps", line))
    assert 64 % part == 0
    options = replace(programs.options, batch_size=part)
    smaller = replace(programs, options=options)
    assert memory.measure_uses(smaller)[0].num_bytes <= there


def test_without_the_devices_account_half_is_advised(programs, uses):
    line = advice(programs, uses, None)
    assert "training.microbatch=32 keeps the batch of 64" in line
    assert "About" not in line


def test_a_device_that_holds_no_image_is_told_of_remat_alone(programs, uses):
    line = advice(programs, uses, 1)
    assert "Not one image fits" in line
    assert "microbatch" not in line
    assert "backbone.remat=true" in line


def test_other_errors_are_not_explained(programs, monkeypatch):
    other = jax.errors.JaxRuntimeError("INTERNAL: something")
    with pytest.raises(jax.errors.JaxRuntimeError, match="something"):
        explained(programs, 1, monkeypatch, other)
    with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
        explained(programs, 2**40, monkeypatch)  # the step fits: it was not the step
