"""Metrics beside the workdir: nothing is lost, and nothing of it ends a run."""

import fcntl
import json
import struct
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from processes import digits_flags
from tensorboard_events import read_events
from tensorboardX.proto.event_pb2 import (
    SessionLog,  # pyright: ignore[reportAttributeAccessIssue]  # made at import
)
from trained_runs import SHORT

from dig_jax import main as command_line
from dig_jax.config import load_config_file, with_values
from dig_jax.errors import EXIT_DONE, InputError
from dig_jax.experiment import check_same_run, create_experiment
from dig_jax.options import LoggingOptions
from dig_jax.options.keys import call_with_section
from dig_jax.reporting import other_writers
from dig_jax.reporting.metric_writer import MetricWriter, read_metrics
from dig_jax.reporting.other_writers import OtherWriters, check_writers
from dig_jax.run import load

DIGITS = str(Path(__file__).parents[2] / "configs" / "digits.py")
# All that is written: metrics, scores and a picture, after two steps and after four.
WATCHED = {
    "training.num_steps": 4,
    "training.log_every": 1,
    "training.checkpoint_every": 2,
    "training.evaluate_every": 4,
    "training.sample_every": 4,
    "training.evaluate_images": 20,
    "evaluation.metrics": ("frechet_pixels",),
    "evaluation.features": "none",
}
HALF = {"training.num_steps": 2}


def options(**values):
    return call_with_section("logging", LoggingOptions, values)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("", ()),
        ("wandb", ("wandb",)),
        ("tensorboard, wandb", ("tensorboard", "wandb")),
        (("wandb",), ("wandb",)),
    ],
)
def test_writers_are_named_as_text_or_as_several(written, read):
    assert options(writers=written, tensorboard_dir="tb").writers == read


def test_a_writer_that_there_is_not_is_refused_with_the_choices():
    with pytest.raises(InputError, match=r"'tensorboard' or 'wandb'.*got 'mlflow'"):
        options(writers="mlflow")


def test_tensorboard_needs_its_folder():
    with pytest.raises(InputError, match=r"config\.logging\.tensorboard_dir"):
        options(writers="tensorboard")


def test_a_package_that_is_missing_is_named_before_training(monkeypatch):
    monkeypatch.setattr(other_writers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install wandb"):
        check_writers(options(writers="wandb"))
    check_writers(options())


def test_a_configuration_without_the_section_is_one_with_its_defaults():
    written = load_config_file(DIGITS)
    without = written.copy_and_resolve_references()
    without.unlock()
    del without["logging"]
    assert create_experiment(without) == create_experiment(written)
    assert check_same_run(without, written, "runs/a") == []


class Failing:
    """A writer that fails where it is told to."""

    def __init__(self, where):
        self._where, self.asked = where, []

    def __getattr__(self, name):
        def method(*_):
            self.asked.append(name)
            if name == self._where:
                raise OSError("No space left\non device")

        return method


@pytest.mark.parametrize("where", ["write", "write_image", "flush", "close"])
def test_a_writer_that_fails_is_told_once_and_asked_no_more(tmp_path, where):
    said, failing, sound = [], Failing(where), Failing("")
    makers = {"wandb": lambda: (failing, "here"), "other": lambda: (sound, "there")}
    with MetricWriter(
        tmp_path, resume_step=None, others=OtherWriters(makers, said.append)
    ) as writer:
        for step in (1, 2):
            writer.write(step, {"loss": 0.5})
            writer.write_image("samples", step, np.zeros((4, 4, 3), np.uint8))
            writer.flush()
    told = [line for line in said if "No space left on device" in line]
    assert len(told) == 1
    assert told[0].startswith("wandb gets nothing more")
    assert failing.asked.count(where) == 1
    assert sound.asked == ["write", "write_image", "flush"] * 2 + ["close"]
    assert len(read_metrics(tmp_path)) == 2


def test_a_writer_that_cannot_be_opened_is_told_once(tmp_path):
    def fail():
        raise ConnectionError("no network")

    said = []
    writers = OtherWriters({"wandb": fail}, said.append)
    writers.write(1, {"loss": 0.5})
    writers.close()
    assert len(said) == 1
    assert "no network" in said[0]


@pytest.fixture(scope="module")
def resumed(trained_runs, tmp_path_factory, without_optimizations):
    """A run that stopped half way and went on, with both writers; what it said."""
    pytest.importorskip("wandb")
    folder = tmp_path_factory.mktemp("written")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.delenv("WANDB_DIR", raising=False)
        logging = {
            "logging.writers": "tensorboard,wandb",
            "logging.tensorboard_dir": folder / "tb",
        }
        for change in (HALF, {}):
            flags = digits_flags(trained_runs.data_dir, SHORT, WATCHED, logging, change)
            arguments = [*flags, f"--workdir={folder / 'run'}"]
            assert command_line.main(arguments) == EXIT_DONE
    return folder


def rows_of(workdir):
    """The rows of metrics.jsonl, without what was not finite."""
    return [
        {name: value for name, value in row.items() if value is not None}
        for row in read_metrics(workdir)
    ]


def test_tensorboard_elsewhere_has_every_number_and_picture(resumed):
    files = sorted((resumed / "tb" / "run").glob("events.*"))
    assert len(files) == 2
    events = [event for file in files for event in read_events(file)]
    written = [(e.step, v) for e in events for v in e.summary.value]
    expected = {
        (row["step"], name): value
        for row in rows_of(resumed / "run")
        for name, value in row.items()
        if name != "step"
    }
    scalars = {
        (step, v.tag): v.simple_value for step, v in written if not v.HasField("image")
    }
    assert scalars.keys() == expected.keys()
    np.testing.assert_allclose(  # of float32
        [scalars[key] for key in expected], list(expected.values()), rtol=1e-6
    )
    assert any(name.startswith("score/") for _, name in scalars)
    assert {(s, v.tag) for s, v in written if v.HasField("image")} == {
        (4, "samples"),
        (2, "samples"),
    }


def test_tensorboard_is_told_where_the_second_start_begins(resumed):
    starts = {
        event.step
        for file in (resumed / "tb" / "run").glob("events.*")
        for event in read_events(file)
        if event.session_log.status == SessionLog.START
    }
    assert starts == {1, 3}


def test_an_evaluations_scores_are_told_to_both(
    trained_runs, tmp_path, without_optimizations, monkeypatch
):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    run = load(trained_runs.workdir())
    logging = {
        "logging.writers": ("tensorboard", "wandb"),
        "logging.tensorboard_dir": str(tmp_path / "tb"),
    }
    run = load(trained_runs.workdir(), config=with_values(run.config, logging))
    out, said = tmp_path / "scored", {"features": "none", "allow_few_images": True}
    asked = {"metrics": ("frechet_pixels",), "sample": {"num_steps": 1}, "out": out}

    def told():
        files = list((tmp_path / "tb" / "scored").glob("events.*"))
        events = [event for file in files for event in read_events(file)]
        # No start: TensorBoard forgets from there on what other files told.
        assert not any(event.HasField("session_log") for event in events)
        return {
            (e.step, v.tag): v.simple_value for e in events for v in e.summary.value
        }

    records = run.evaluate(20, seeds=2, **asked, **said)
    scores = records[-1]["scores"]
    expected = {
        f"evaluation/{name}{end}": score[key]
        for name, score in scores.items()
        for end, key in (("", "value"), ("_std", "std"))
    }
    assert expected
    found = told()
    assert found.keys() == {(run.step, name) for name in expected}
    for (_, name), value in found.items():
        assert value == pytest.approx(expected[name], rel=1e-6)  # of float32
    (row,) = [
        {name: value for name, value in row.items() if not name.startswith("_")}
        for row in wandb_rows(out)[0]
    ]
    assert row == {"step": run.step, **expected}
    with (out / "trainer.lock").open("a") as lock:  # as while it is trained
        fcntl.flock(lock, fcntl.LOCK_EX)
        run.evaluate(20, seeds=[2], **asked, **said)
    assert told().keys() == found.keys()
    assert len(list((out / "wandb").glob("offline-run-*"))) == 1


def read_log(path):
    """Records of LevelDB's log format, in which W&B keeps a run: blocks of 32 KiB.

    Each part of a record has its checksum (4 bytes), length (2) and kind (1): whole,
    first, middle, last. Before all of them stand 7 bytes of W&B's own.
    """
    content, at, block, parts = path.read_bytes(), 7, 2**15, []
    while at + 7 <= len(content):
        if block - at % block < 7:  # what is too short for a part is left empty
            at += block - at % block
            continue
        _, length, kind = struct.unpack("<IHB", content[at : at + 7])
        if at + 7 + length > len(content):  # it is still being written
            return
        parts.append(content[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):
            yield b"".join(parts)
            parts = []


def wandb_rows(folder):
    """The rows that W&B keeps of a run that was offline, and the id of each file."""
    rows, ids = [], []
    for file in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for record in finished_records(file):
            if record.HasField("run"):
                ids.append(record.run.run_id)
            if record.HasField("history"):
                rows.append(
                    {
                        "/".join(item.nested_key) or item.key: json.loads(
                            item.value_json
                        )
                        for item in record.history.item
                    }
                )
    return rows, ids


def finished_records(file):
    """W&B's own process writes its last ones shortly after a run is finished."""
    from wandb.proto import wandb_internal_pb2

    deadline = time.monotonic() + 60
    while True:
        records = []
        for data in read_log(file):
            record = wandb_internal_pb2.Record()  # pyright: ignore[reportAttributeAccessIssue]
            record.ParseFromString(data)
            records.append(record)
        if any(record.HasField("exit") for record in records):
            return records
        assert time.monotonic() < deadline, f"{file} has no end"
        time.sleep(0.05)


def test_wandb_has_every_number_and_picture_of_one_run(resumed):
    rows, ids = wandb_rows(resumed / "run")
    assert set(ids) == {(resumed / "run" / "wandb_id").read_text().strip()}
    assert len(list((resumed / "run" / "wandb").glob("offline-run-*"))) == 2
    numbers = [
        {name: value for name, value in row.items() if not name.startswith("_")}
        for row in rows
        if "samples/path" not in row
    ]
    assert numbers == rows_of(resumed / "run")
    pictures = [row for row in rows if "samples/path" in row]
    assert [row["step"] for row in pictures] == [2, 4]
    (last,) = (resumed / "run" / "wandb").glob(
        f"offline-run-*/files/{pictures[-1]['samples/path']}"
    )
    shown, ours = (
        PIL.Image.open(last),
        PIL.Image.open(resumed / "run/samples/step_4.png"),
    )
    np.testing.assert_array_equal(shown.convert("RGB"), ours.convert("RGB"))
