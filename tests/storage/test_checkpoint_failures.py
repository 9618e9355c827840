"""What cannot be saved is told, and loses nothing."""

import shutil
from collections import namedtuple

import pytest
from checkpoint_states import META, abstract, assert_bitwise_equal, make_state, tree_of

from dig_jax.errors import CheckpointSaveError, InputError
from dig_jax.storage.checkpoints import Checkpoints


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


def test_a_reader_cannot_save(copy):
    with pytest.raises(InputError, match="read-only"):
        Checkpoints(copy, read_only=True).save(make_state(30), META)
