"""Checkpoints come back bit for bit, or not at all."""

import asyncio
import json
import logging
import os
import shutil
import textwrap

import jax
import jax.numpy as jnp
import pytest
from absl import logging as absl_logging
from checkpoint_states import (
    META,
    abstract,
    assert_bitwise_equal,
    make_state,
    run_python,
    save_steps,
    tree_of,
)

from dig_jax.errors import InputError
from dig_jax.storage import checkpoint_record
from dig_jax.storage.checkpoints import Checkpoints


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


def test_what_a_signal_left_pushes_out_no_step_that_was_due(tmp_path):
    with Checkpoints(tmp_path, keep=2, is_due=lambda step: step % 5 == 0) as c:
        for step in (5, 8, 9, 10, 12):
            c.save(make_state(step), META)
        c.wait()
        assert c.steps() == [5, 10, 12]
        c.save(make_state(15), META)
        c.wait()
        assert c.steps() == [10, 15]


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
