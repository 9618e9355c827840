"""Checkpoints come back bit for bit, or not at all."""

import asyncio
import json
import logging
import os
import shutil
import subprocess
import sys
import textwrap
from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import logging as absl_logging

from dig_jax.errors import CheckpointCorruptError, CheckpointSaveError, InputError
from dig_jax.storage import checkpoint_record
from dig_jax.storage.checkpoints import Checkpoints
from dig_jax.storage.state import TrainState

META = {"samples_seen": 640, "config": {"width": 8, "patch_sizes": [2, 4]}}


@pytest.fixture
def warnings_logged(caplog):
    """Absl's logger does not reach pytest's handler by itself."""
    logger = absl_logging.get_absl_logger()
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def make_state(step, width=24, dtype=jnp.float32):
    """A state whose every array depends on the step.

    Large enough that not every array is stored inside Orbax's metadata (1024 bytes).
    """
    keys = jax.random.split(jax.random.key(step), 3)
    params = {
        "embed": {"kernel": jax.random.normal(keys[0], (3, width), dtype)},
        "block_0": {"kernel": jax.random.normal(keys[1], (width, width), dtype)},
    }
    opt = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
    opt_state = (opt.init(params), {"key": keys[2]})
    ema = jax.tree.map(lambda p: 0.5 * p, params)
    return TrainState(jnp.int32(step), params, ema, opt_state, jnp.int32(0))


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def bits(x):
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    return np.asarray(x).tobytes()


def assert_bitwise_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert x.shape == y.shape
        assert bits(x) == bits(y)


def save_steps(directory, *steps, keep=3):
    with Checkpoints(directory, keep=keep) as c:
        for step in steps:
            c.save(make_state(step), META)


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """A directory with the steps 10 and 20, to be copied."""
    directory = tmp_path_factory.mktemp("two_steps") / "checkpoints"
    save_steps(directory, 10, 20)
    return directory


@pytest.fixture
def copy(two_steps, tmp_path):
    return shutil.copytree(two_steps, tmp_path / "checkpoints")


def files_of(step_folder):
    """All but the commit file, which is all about being there."""
    found = (p for p in sorted(step_folder.rglob("*")) if p.is_file())
    return [p for p in found if p.name != "commit_success.txt"]


def tree_of(directory):
    return {
        str(p.relative_to(directory)): p.read_bytes() if p.is_file() else None
        for p in directory.rglob("*")
    }


def test_state_and_meta_come_back_bit_for_bit(tmp_path):
    state = make_state(7)
    with Checkpoints(tmp_path) as c:
        c.save(state, META)
        c.wait()
        restored, meta = c.restore(abstract(state))
    assert_bitwise_equal(restored, state)
    assert {key: meta[key] for key in META} == META
    assert meta["step"] == 7
    assert meta["versions"]["jax"] == jax.__version__


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_comes_back_bit_for_bit(tmp_path, dtype):
    state = make_state(1, dtype=dtype)
    with Checkpoints(tmp_path) as c:
        c.save(state, META)
        c.wait()
        assert_bitwise_equal(c.restore(abstract(state))[0], state)


def test_a_donated_state_was_saved_as_it_was(tmp_path):
    update = jax.jit(
        lambda s: jax.tree.map(lambda x: -3 * x, s._replace(opt_state=())),
        donate_argnums=0,
    )
    like = make_state(0, width=512)._replace(opt_state=())
    with Checkpoints(tmp_path, keep=9) as c:
        for step in range(1, 6):
            state = make_state(step, width=512)._replace(opt_state=())
            c.save(state, META)
            jax.block_until_ready(update(state))
        c.wait()
        for step in range(1, 6):
            ema, _, _ = c.restore_ema(abstract(like.ema), step)
            assert_bitwise_equal(ema, make_state(step, width=512).ema)
        state, _ = c.restore(abstract(like))
        assert_bitwise_equal(state.params, make_state(5, width=512).params)


def test_only_the_newest_steps_are_kept(tmp_path):
    save_steps(tmp_path, 1, 2, 3, 4, keep=2)
    assert Checkpoints(tmp_path, read_only=True).steps() == [3, 4]


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


def test_a_step_is_saved_once(tmp_path):
    with Checkpoints(tmp_path) as c:
        c.save(make_state(5), {"first": True})
        c.save(make_state(5), {"first": False})
    with Checkpoints(tmp_path) as c:
        c.save(make_state(5), {"first": False})
        assert c.steps() == [5]
        assert c.read_meta()["first"]


def test_stray_folders_are_no_checkpoints_and_a_reader_leaves_them(copy):
    shutil.copytree(copy / "20", copy / "30")
    (copy / "30" / "commit_success.txt").unlink()
    for name in ("40", "20.tmp", "x.orbax-checkpoint-tmp-1", "junk", "007"):
        (copy / name).mkdir()
    (copy / "50").write_text("a file")
    before = tree_of(copy)
    with Checkpoints(copy, read_only=True) as c:
        assert c.steps() == [10, 20]
        assert c.latest_step() == 20
        assert_bitwise_equal(c.restore(abstract(make_state(0)))[0], make_state(20))
        c.restore_ema(abstract(make_state(0).ema))
    assert tree_of(copy) == before


def test_a_writer_replaces_an_unfinished_step_and_leaves_what_is_not_its_own(copy):
    (copy / "20" / "commit_success.txt").unlink()
    (copy / "9").mkdir()
    for name in ("junk", "20.tmp", "2024"):
        (copy / name / "photos").mkdir(parents=True)
    with Checkpoints(copy) as c:
        assert c.steps() == [10]
        c.save(make_state(20), META)
        c.wait()
        assert c.steps() == [10, 20]
        assert_bitwise_equal(c.restore(abstract(make_state(0)))[0], make_state(20))
    assert sorted(os.listdir(copy)) == ["10", "20", "20.tmp", "2024", "junk"]


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


def test_another_shape_dtype_or_leaf_is_refused_by_name(copy):
    c = Checkpoints(copy, read_only=True)
    like = abstract(make_state(0))
    narrow = like._replace(params={**like.params, "block_0": like.params["embed"]})
    shapes = r"block_0/kernel is float32\[24,24\] .* float32\[3,24\]"
    with pytest.raises(InputError, match=shapes):
        c.restore(narrow)
    half = abstract(make_state(0, dtype=jnp.bfloat16))
    with pytest.raises(InputError, match=r"float32\[3,24\] .* bfloat16\[3,24\]"):
        c.restore_ema({**like.ema, "embed": half.ema["embed"]})
    with pytest.raises(InputError, match=r"embed/kernel .* missing in this model"):
        c.restore_ema({"block_0": like.ema["block_0"]})
    with pytest.raises(InputError, match="new is missing in the checkpoint"):
        c.restore_ema({**like.ema, "new": like.ema["embed"]["kernel"]})


def test_an_unknown_schema_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_record, "SCHEMA", 2)
    save_steps(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"schema 2; .* reads schema 1"):
        Checkpoints(tmp_path, read_only=True).restore(abstract(make_state(0)))


def test_ema_needs_no_other_file(copy):
    for step in ("10", "20"):
        shutil.rmtree(copy / step / "train")
    c = Checkpoints(copy, read_only=True)
    like = abstract(make_state(0).ema)
    for step in (10, 20):
        ema, at, meta = c.restore_ema(like, step)
        assert_bitwise_equal(ema, make_state(step).ema)
        assert (at, meta["samples_seen"]) == (step, 640)
    assert c.restore_ema(like)[1] == 20


def test_meta_needs_no_arrays(copy):
    for item in ("train", "ema"):
        shutil.rmtree(copy / "20" / item)
    c = Checkpoints(copy, read_only=True)
    assert c.read_meta()["step"] == 20
    assert c.read_meta(10)["leaves"]["ema"]["embed/kernel"]["array"] == "float32[3,24]"


def test_a_step_that_is_not_there_is_refused_with_the_choices(copy):
    with pytest.raises(InputError, match=r"No checkpoint of step 15 .*: 10, 20\."):
        Checkpoints(copy, read_only=True).restore_ema({}, 15)


def test_without_a_finished_step_the_message_says_what_to_run(tmp_path):
    (tmp_path / "9").mkdir()
    c = Checkpoints(tmp_path, read_only=True)
    for read in (
        c.restore_ema,
        lambda _: c.restore(make_state(0)),
        lambda _: c.read_meta(),
    ):
        with pytest.raises(InputError, match=r"No finished checkpoint .* --mode=train"):
            read({})
    with pytest.raises(InputError, match="No directory"):
        Checkpoints(tmp_path / "missing", read_only=True)
    assert os.listdir(tmp_path) == ["9"]


def test_a_reader_cannot_save(copy):
    with pytest.raises(InputError, match="read-only"):
        Checkpoints(copy, read_only=True).save(make_state(30), META)


def test_a_reader_beside_a_writer_always_reads_a_finished_step(tmp_path):
    like = abstract(make_state(0).ema)
    with Checkpoints(tmp_path, keep=2) as writer:
        writer.save(make_state(1), META)
        writer.wait()
        for step in range(2, 12):
            writer.save(make_state(step), META)
            ema, at, _ = Checkpoints(tmp_path, read_only=True).restore_ema(like)
            assert at in (step - 1, step)
            assert_bitwise_equal(ema, make_state(at).ema)
        writer.wait()
        assert writer.steps() == [10, 11]


def test_a_full_disk_is_refused_before_the_save(copy, monkeypatch):
    usage = namedtuple("usage", "total used free")(1, 1, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    before = tree_of(copy)
    with Checkpoints(copy) as c:
        with pytest.raises(
            InputError, match=r"not enough disk: needs .* MB in .* free"
        ):
            c.save(make_state(30), META)
        assert c.steps() == [10, 20]
    assert tree_of(copy) == before


def fail_in_the_background(monkeypatch):
    """The commit file cannot be written: the last act of a save."""

    async def finalize(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(
        "orbax.checkpoint.path.atomicity.CommitFileTemporaryPath.finalize", finalize
    )


@pytest.mark.parametrize("surfaces_in", ["wait", "save", "close"])
def test_a_failed_save_surfaces_at_the_next_call(copy, monkeypatch, surfaces_in):
    c = Checkpoints(copy)
    fail_in_the_background(monkeypatch)
    c.save(make_state(30), META)
    message = r"step 30 could not be saved .*No space left.*MB.* 10, 20\."
    with pytest.raises(CheckpointSaveError, match=message):
        {
            "wait": c.wait,
            "save": lambda: c.save(make_state(40), META),
            "close": c.close,
        }[surfaces_in]()
    monkeypatch.undo()
    if surfaces_in != "close":
        c.save(make_state(30), META)
        c.close()
        reader = Checkpoints(copy, read_only=True)
        assert_bitwise_equal(reader.restore(abstract(make_state(0)))[0], make_state(30))


def test_a_removed_directory_is_an_error(tmp_path):
    c = Checkpoints(tmp_path / "c")
    c.save(make_state(1), META)
    c.wait()
    shutil.rmtree(tmp_path / "c")
    (tmp_path / "c").write_text("in the way")
    with pytest.raises(CheckpointSaveError, match="step 2 could not be saved"):
        c.save(make_state(2), META)
    c.close()


def test_a_failed_save_does_not_hide_the_first_error(copy, monkeypatch):
    def run():
        with Checkpoints(copy) as c:
            fail_in_the_background(monkeypatch)
            c.save(make_state(30), META)
            raise KeyError("the first")

    with pytest.raises(KeyError, match="the first"):
        run()


def test_reserved_keys_of_meta_are_refused(tmp_path):
    with Checkpoints(tmp_path) as c, pytest.raises(InputError, match="versions"):
        c.save(make_state(1), {"versions": {}})


def run_python(code, **env):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env={**os.environ, "JAX_PLATFORMS": "cpu", **env},
        capture_output=True,
        text=True,
        check=True,
    )


def test_a_checkpoint_of_eight_devices_is_the_same_on_fewer(tmp_path):
    """Saved on 8 devices and checked on 8, 4 and 1."""
    code = """
        import sys
        import jax, jax.numpy as jnp
        from jax.sharding import NamedSharding, PartitionSpec as P
        from dig_jax.storage.checkpoints import Checkpoints
        from dig_jax.storage.state import TrainState

        def sharded(devices, spec):
            return NamedSharding(jax.make_mesh((devices,), ("data",)), spec)

        def state(put):
            w = jnp.arange(64 * 6.0).reshape(64, 6) / 7
            tree = {"w": put(w, P("data")), "b": put(w[0], P())}
            key = put(jax.random.key(3), P())
            step, bad_steps = put(jnp.int32(1), P()), put(jnp.int32(0), P())
            return TrainState(step, tree, tree, {"k": key}, bad_steps)

        directory = sys.argv[1]
        whole = state(lambda x, spec: jax.device_put(x, sharded(8, spec)))
        with Checkpoints(directory) as c:
            c.save(whole, {})
        for devices in (8, 4, 1):
            abstract = state(lambda x, spec: jax.ShapeDtypeStruct(
                x.shape, x.dtype, sharding=sharded(devices, spec)))
            restored, _ = Checkpoints(directory, read_only=True).restore(abstract)
            assert len(restored.params["w"].sharding.device_set) == devices
            for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(whole)):
                assert (jax.device_get(a) == jax.device_get(b)).all()
    """
    code = textwrap.dedent(code).replace("sys.argv[1]", repr(str(tmp_path)))
    run_python(code, XLA_FLAGS="--xla_force_host_platform_device_count=8")


def test_saving_and_restoring_print_nothing(tmp_path):
    code = f"""
        from absl import app
        import jax, jax.numpy as jnp
        from dig_jax.storage.checkpoints import Checkpoints
        from dig_jax.storage.state import TrainState

        def main(_):
            params, zero = {{"w": jnp.ones(3)}}, jnp.int32(0)
            state = TrainState(zero, params, params, (), zero)
            with Checkpoints({str(tmp_path)!r}) as c:
                c.save(state, {{}})
            reader = Checkpoints({str(tmp_path)!r}, read_only=True)
            reader.restore(jax.eval_shape(lambda: state))

        app.run(main)
    """
    done = run_python(code)
    assert done.stdout == ""
    assert done.stderr == ""


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


def test_the_record_is_plain_json_with_a_checksum(copy):
    saved = json.loads((copy / "20" / "meta" / "metadata").read_text())
    assert saved["record"]["schema"] == checkpoint_record.SCHEMA
    assert logging.getLogger().level == logging.WARNING  # the root logger is left alone


def test_event_loops_and_logs_are_others_own_while_no_checkpoint_is_open(tmp_path):
    before = asyncio.new_event_loop
    filters = list(absl_logging.get_absl_logger().filters)
    with Checkpoints(tmp_path / "a") as first:
        with Checkpoints(tmp_path / "b"):
            loop = asyncio.new_event_loop()  # not Orbax's: what it always was
            assert type(loop) is type(before())
            loop.close()
        assert asyncio.new_event_loop is not before
        first.wait()
    assert asyncio.new_event_loop is before
    assert absl_logging.get_absl_logger().filters == filters
