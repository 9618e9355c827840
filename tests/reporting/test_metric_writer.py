import json
import os
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from tensorboard_events import read_events
from tensorboardX.proto.event_pb2 import (
    SessionLog,  # pyright: ignore[reportAttributeAccessIssue]  # made at import
)

from dig_jax.files.json_lines import to_line
from dig_jax.reporting.metric_writer import MetricWriter, read_metrics


def write_steps(workdir: Path, steps: range, *, resume_step: int | None) -> None:
    with MetricWriter(workdir, resume_step=resume_step) as writer:
        for step in steps:
            writer.write(step, {"loss": 1.0 / (step + 1), "grad_norm": 2.0})


def test_what_is_written_reads_back_in_order(tmp_path):
    with MetricWriter(tmp_path, resume_step=None) as writer:
        writer.write(1, {"loss": 0.1, "grad_norm": jnp.float32(0.5)})
        writer.write(2, {"loss": np.float32(0.25)})
    assert read_metrics(tmp_path) == [
        {"step": 1, "loss": 0.1, "grad_norm": 0.5},
        {"step": 2, "loss": 0.25},
    ]


def test_a_line_is_in_the_file_as_soon_as_it_is_written(tmp_path):
    with MetricWriter(tmp_path, resume_step=None) as writer:
        writer.write(1, {"loss": 0.5})
        assert read_metrics(tmp_path) == [{"step": 1, "loss": 0.5}]


def test_values_that_are_not_finite_are_null_in_strict_json(tmp_path):
    def refuse(literal: str) -> None:
        raise AssertionError(f"{literal} is not JSON")

    with MetricWriter(tmp_path, resume_step=None) as writer:
        writer.write(3, {"a": float("nan"), "b": float("inf"), "c": -np.inf, "d": 1.0})
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    expected = {"step": 3, "a": None, "b": None, "c": None, "d": 1.0}
    found = json.loads(line, parse_constant=refuse)
    assert found == expected | {"crc32": found["crc32"]}


def test_a_resumed_run_has_each_step_once(tmp_path):
    write_steps(tmp_path, range(1, 8), resume_step=None)
    write_steps(tmp_path, range(5, 11), resume_step=4)
    write_steps(tmp_path / "whole", range(1, 11), resume_step=None)
    assert read_metrics(tmp_path) == read_metrics(tmp_path / "whole")


@pytest.mark.parametrize("cut", range(1, 40))
def test_half_a_line_is_left_out_and_dropped_on_resume(tmp_path, cut):
    path = tmp_path / "metrics.jsonl"
    first = json.dumps({"step": 1, "loss": 0.5}) + "\n"
    second = json.dumps({"step": 2, "loss": 0.25, "b": 1}) + "\n"
    path.write_text(first + second[:cut])
    # Only the end of the line, or that and nothing else, may be missing.
    whole = cut >= len(second) - 1
    assert [m["step"] for m in read_metrics(tmp_path)] == ([1, 2] if whole else [1])
    write_steps(tmp_path, range(3, 4), resume_step=2)
    lines = path.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == (
        [1, 2, 3] if whole else [1, 3]
    )


def test_bytes_that_are_no_text_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 0.5}\n\x00\x00\xff\xfe\x00')
    write_steps(tmp_path, range(2, 3), resume_step=1)
    assert [m["step"] for m in read_metrics(tmp_path)] == [1, 2]


def test_lines_up_to_the_checkpoint_stay_as_they_were(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = to_line({"step": 1, "loss": 0.1})
    path.write_text(first + to_line({"step": 2, "loss": 0.1}))
    MetricWriter(tmp_path, resume_step=1).close()
    assert path.read_text() == first
    assert not [name for name in os.listdir(tmp_path) if "partial" in name]


def test_a_run_from_the_start_keeps_no_line(tmp_path):
    write_steps(tmp_path, range(0, 5), resume_step=None)
    write_steps(tmp_path, range(0, 2), resume_step=None)
    assert [m["step"] for m in read_metrics(tmp_path)] == [0, 1]


def test_a_folder_without_metrics_has_none(tmp_path):
    assert read_metrics(tmp_path) == []


def test_events_lie_in_the_workdir_with_scalars_and_images(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.uint8)
    with MetricWriter(tmp_path, resume_step=None) as writer:
        writer.write(4, {"loss": 0.5, "bad": float("nan")})
        writer.write_image("samples", 4, image)
    (path,) = tmp_path.glob("events.*")
    values = [(e.step, v) for e in read_events(path) for v in e.summary.value]
    scalars = [(step, v.tag, v.simple_value) for step, v in values[:-1]]
    assert scalars == [(4, "loss", 0.5)]
    step, shown = values[-1]
    assert (step, shown.image.height, shown.image.width) == (4, 6, 5)


def test_a_text_is_shown_as_it_is(tmp_path):
    with MetricWriter(tmp_path, resume_step=None) as writer:
        writer.write_text("configuration", 3, '{\n  "seed": 0\n}')
    (path,) = tmp_path.glob("events.*")
    ((step, shown),) = [(e.step, v) for e in read_events(path) for v in e.summary.value]
    assert step == 3
    assert shown.metadata.plugin_data.plugin_name == "text"
    # Markdown shows lines that are indented by four as they are.
    assert shown.tensor.string_val == [b'    {\n      "seed": 0\n    }\n']


def test_tensorboard_is_told_to_forget_the_steps_done_again(tmp_path):
    write_steps(tmp_path, range(1, 8), resume_step=None)
    write_steps(tmp_path, range(5, 9), resume_step=4)
    (path,) = tmp_path.glob("events.*.from_step_5")
    starts = [
        event.step
        for event in read_events(path)
        if event.session_log.status == SessionLog.START
    ]
    assert starts == [5]


@pytest.mark.parametrize("how", ["deleted", "moved", "replaced"])
def test_a_workdir_that_vanishes_is_noticed_at_the_next_line(tmp_path, how):
    workdir = tmp_path / "run"
    with MetricWriter(workdir, resume_step=None) as writer:
        writer.write(1, {"loss": 0.5})
        workdir.rename(tmp_path / "elsewhere")
        if how == "deleted":
            shutil.rmtree(tmp_path / "elsewhere")
        if how == "replaced":
            workdir.mkdir()
            (workdir / "metrics.jsonl").touch()
        with pytest.raises(OSError, match=r"deleted or moved.*metrics\.jsonl"):
            writer.write(2, {"loss": 0.5})
