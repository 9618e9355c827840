"""A damaged checkpoint is never restored, and is told by step and leaf."""

import os
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_states import (
    META,
    abstract,
    assert_bitwise_equal,
    files_of,
    make_state,
    run_python,
)

from dig_jax.errors import CheckpointCorruptError
from dig_jax.storage.checkpoints import Checkpoints


def flip_random_bit(rng, folder):
    """In a file drawn by chance: small files hold the metadata, and count as much."""
    path = rng.choice(files_of(folder))
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    path.write_bytes(bytes(data))
    return path


def test_no_flipped_bit_is_restored(two_steps, tmp_path, warnings_logged):
    rng = np.random.default_rng(0)
    like, whole = abstract(make_state(0)), {10: make_state(10), 20: make_state(20)}
    fell_back = 0
    for trial in range(int(os.environ.get("DIG_JAX_BIT_FLIPS", 20))):
        directory = shutil.copytree(two_steps, tmp_path / str(trial))
        flip_random_bit(rng, directory / "20")
        warnings_logged.clear()
        state, meta = Checkpoints(directory, read_only=True).restore(like)
        assert_bitwise_equal(state, whole[meta["step"]])
        if meta["step"] == 10:
            fell_back += 1
            assert "step 20" in warnings_logged.text
    assert fell_back > 0


@pytest.mark.parametrize("damage", ["empty", "half", "gone"])
def test_truncated_and_missing_files_fall_back(two_steps, tmp_path, damage):
    """Or do no harm: Orbax also leaves files that nothing refers to."""
    like, fell_back = abstract(make_state(0)), set()
    for i, file in enumerate(files_of(two_steps / "20")):
        directory = shutil.copytree(two_steps, tmp_path / str(i))
        path = directory / file.relative_to(two_steps)
        data = path.read_bytes()
        path.unlink()
        if damage != "gone":
            path.write_bytes(data[: len(data) // 2] if damage == "half" else b"")
        state, meta = Checkpoints(directory, read_only=True).restore(like)
        assert_bitwise_equal(state, make_state(meta["step"]))
        if meta["step"] == 10:
            fell_back.add(file.relative_to(two_steps / "20").parts[0])
    assert fell_back >= {"train", "ema", "meta"}


def replace_arrays(directory, step, other):
    """Gives a step the sound arrays of another step, which Orbax cannot notice."""
    shutil.rmtree(directory / str(step) / "train")
    shutil.copytree(directory / str(other) / "train", directory / str(step) / "train")


def test_other_bits_are_reported_with_step_and_leaf(copy, warnings_logged):
    replace_arrays(copy, 20, 10)
    _, meta = Checkpoints(copy, read_only=True).restore(abstract(make_state(0)))
    assert meta["step"] == 10
    assert "step 20" in warnings_logged.text
    assert "params/embed/kernel" in warnings_logged.text


def test_without_a_sound_step_each_reason_is_listed(copy):
    replace_arrays(copy, 20, 10)
    (copy / "10" / "meta" / "metadata").write_text("{")
    with pytest.raises(CheckpointCorruptError, match=r"(?s)step 20: .*step 10: .*meta"):
        Checkpoints(copy, read_only=True).restore(abstract(make_state(0)))
    with pytest.raises(CheckpointCorruptError, match="step 10"):
        Checkpoints(copy, read_only=True).read_meta(10)


def test_a_run_that_fell_back_saves_the_damaged_step_anew(copy):
    replace_arrays(copy, 20, 10)
    with Checkpoints(copy) as c:
        c.restore(abstract(make_state(0)))
        c.save(make_state(20), META)
        c.wait()
        assert_bitwise_equal(c.restore(abstract(make_state(0)))[0], make_state(20))


def test_chunks_larger_than_their_array_are_not_unpacked(copy, tmp_path):
    """A file of zeros may be small, and its chunk fill the memory."""
    large = tmp_path / "large"
    with Checkpoints(large) as c:
        c.save(jax.tree.map(jnp.zeros_like, make_state(20, width=400)), META)
        c.wait()
    shutil.rmtree(copy / "20" / "ema")
    shutil.copytree(next(large.glob("*/ema")), copy / "20" / "ema")
    with (
        Checkpoints(copy, read_only=True) as c,
        pytest.raises(CheckpointCorruptError, match=r"its chunks \[400, 400\]"),
    ):
        c.restore_ema(abstract(make_state(0).ema), 20)


def test_damage_prints_one_warning_and_no_traceback(copy):
    manifest = copy / "20" / "ema" / "manifest.ocdbt"
    manifest.write_bytes(manifest.read_bytes()[:50])
    done = run_python(f"""
        import jax
        from dig_jax.storage.checkpoints import Checkpoints

        kernels = {{"embed": (3, 24), "block_0": (24, 24)}}
        like = {{n: {{"kernel": jax.ShapeDtypeStruct(s, "float32")}}
                for n, s in kernels.items()}}
        assert Checkpoints({str(copy)!r}, read_only=True).restore_ema(like)[1] == 10
    """)
    assert "step 20" in done.stderr
    assert len(done.stderr.splitlines()) == 1
