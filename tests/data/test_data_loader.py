"""Which records a step gets, whoever reads them."""

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from dig_jax.data import create_dataset
from dig_jax.data.loader import load_batches, read_images, read_once, record_ids
from dig_jax.data.synthetic import SyntheticSource
from dig_jax.errors import InputError


def make_source(length=50, **options):
    return create_dataset("synthetic", image_size=4, length=length, **options)


def take(source, num_steps, **options):
    batches = load_batches(source, **{"batch_size": 12, "seed": 7} | options)
    taken = list(itertools.islice(batches, num_steps))
    batches.close()
    return taken


def take_ids(source, num_steps, **options):
    return [batch["id"].tolist() for batch in take(source, num_steps, **options)]


@pytest.mark.parametrize("batch_size", [1, 12, 50, 75, 128])
def test_every_record_comes_once_in_every_epoch(batch_size):
    epochs = 3
    steps = -(-epochs * 50 // batch_size)
    ids = np.concatenate(take_ids(make_source(), steps, batch_size=batch_size))
    for epoch in range(epochs):
        part = ids[epoch * 50 : (epoch + 1) * 50]
        np.testing.assert_array_equal(np.sort(part), np.arange(50))


def test_epochs_differ_in_their_order():
    first = record_ids(0, 50, num_records=50, seed=0)
    second = record_ids(50, 50, num_records=50, seed=0)
    assert first.tolist() != second.tolist()


def test_seeds_differ_in_their_order():
    orders = {tuple(record_ids(0, 50, num_records=50, seed=s)) for s in range(20)}
    assert len(orders) == 20


def test_seed_and_epoch_are_not_interchangeable():
    next_epoch = record_ids(50, 50, num_records=50, seed=0)
    next_seed = record_ids(0, 50, num_records=50, seed=1)
    assert next_epoch.tolist() != next_seed.tolist()


def test_every_order_of_three_records_is_equally_likely():
    orders = record_ids(0, 3 * 6000, num_records=3, seed=0).reshape(-1, 3)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    # Each count is binomial(6000, 1/6), of standard deviation 29: five of them.
    np.testing.assert_allclose(counts, [1000] * 6, atol=145)


def test_batches_hold_the_records_of_their_ids():
    source = make_source()
    for batch in take(source, 6):
        assert batch["image"].dtype == np.uint8
        assert batch["label"].dtype == np.int32
        assert batch["id"].dtype == np.int64
        for row, index in enumerate(batch["id"].tolist()):
            np.testing.assert_array_equal(batch["image"][row], source[index]["image"])
            assert batch["label"][row] == source[index]["label"]


@pytest.mark.parametrize("start_step", [1, 4, 9, 1_000_003])
def test_resumed_order_equals_the_uninterrupted_one(start_step):
    source = make_source()
    resumed = take_ids(source, 3, start_step=start_step)
    rows = record_ids(start_step * 12, 36, num_records=50, seed=7)
    assert np.concatenate(resumed).tolist() == rows.tolist()
    if start_step < 10:
        assert resumed == take_ids(source, start_step + 3)[start_step:]


@pytest.mark.parametrize("num_threads", [0, 1, 16])
def test_order_does_not_depend_on_threads(num_threads):
    source = make_source()
    ids = take_ids(source, 10, num_threads=num_threads)
    assert ids == take_ids(source, 10, num_threads=4)


def test_order_does_not_depend_on_worker_processes():
    source = make_source()
    ids = take_ids(source, 7, start_step=3, num_workers=2)
    assert ids == take_ids(source, 7, start_step=3)


def test_a_killed_worker_process_is_started_again(caplog):
    batches = load_batches(make_source(), batch_size=12, seed=7, num_workers=2)
    ids = [next(batches)["id"].tolist()]
    multiprocessing.active_children()[-1].kill()
    ids += [batch["id"].tolist() for batch in itertools.islice(batches, 11)]
    batches.close()
    assert ids == take_ids(make_source(), 12)
    (message,) = [r.getMessage() for r in caplog.records if "died" in r.getMessage()]
    assert "died of signal 9; all of them are started again at batch" in message
    assert multiprocessing.active_children() == []


class KillsItsReader(SyntheticSource):
    """No process lives to read the record of one index."""

    deadly = -1

    def __getitem__(self, index):
        if index == self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def test_worker_processes_that_keep_dying_end_the_reading():
    source = KillsItsReader(
        split="train", image_shape=(4, 4, 3), num_classes=2, length=50, seed=0
    )
    source.deadly = int(record_ids(0, 36, num_records=50, seed=7)[-1])
    batches = load_batches(source, batch_size=12, seed=7, num_workers=1)
    message = r"3 times in a row .* of signal 9, .*batch \d .* data\.num_workers"
    with pytest.raises(InputError, match=message):
        list(batches)


@pytest.mark.parametrize("process_count", [2, 4])
def test_hosts_share_the_rows_of_the_same_global_batch(process_count):
    source = make_source()
    hosts = [
        take_ids(source, 6, process_index=host, process_count=process_count)
        for host in range(process_count)
    ]
    joined = [[*itertools.chain(*parts)] for parts in zip(*hosts, strict=True)]
    assert joined == take_ids(source, 6)


def test_closed_batches_leave_no_thread_behind():
    batches = load_batches(make_source(), batch_size=4, seed=0)
    next(batches)
    ours = [t for t in threading.enumerate() if t.name.startswith("grain-prefetch")]
    assert ours
    batches.close()
    for thread in ours:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in ours)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_unclosed_batches_do_not_keep_the_interpreter(tmp_path, num_workers):
    script = tmp_path / "main.py"
    script.write_text(
        "from dig_jax.data import create_dataset\n"
        "from dig_jax.data.loader import load_batches\n"
        "if __name__ == '__main__':\n"
        "    source = create_dataset('synthetic', image_size=4)\n"
        "    batches = load_batches(\n"
        f"        source, batch_size=8, seed=0, num_workers={num_workers}\n"
        "    )\n"
        "    next(batches)\n"
    )
    subprocess.run([sys.executable, script], check=True, timeout=120)


def test_an_error_in_the_source_reaches_the_reader(monkeypatch):
    def fail(self, index):
        raise OSError("damaged record")

    source = make_source()
    monkeypatch.setattr(type(source), "__getitem__", fail)
    with pytest.raises(OSError, match="damaged record"):
        take(source, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size .* got 0"),
        ({"batch_size": 10, "process_count": 4}, r"batch_size .*\(4\), got 10"),
        ({"process_index": 2, "process_count": 2}, "process_index=2"),
        ({"process_count": 0}, "process_count=0"),
        ({"start_step": -1}, "start_step .* got -1"),
        ({"num_threads": -1}, "num_threads .* got -1"),
        ({"num_workers": -2}, "num_workers .* got -2"),
        ({"seed": -3}, "seed .* got -3"),
    ],
)
def test_bad_arguments_are_refused_at_once(options, message):
    with pytest.raises(InputError, match=message):
        load_batches(make_source(), **{"batch_size": 12, "seed": 0} | options)


def test_an_empty_source_is_refused(monkeypatch):
    source = make_source()
    monkeypatch.setattr(source, "_length", 0)
    with pytest.raises(InputError, match="has no images"):
        load_batches(source, batch_size=1, seed=0)
    with pytest.raises(InputError, match="has no images"):
        read_images(source)


@pytest.mark.parametrize("num_threads", [0, 1, 4])
@pytest.mark.parametrize(
    ("batch_size", "sizes"), [(20, [20, 20, 10]), (25, [25, 25]), (64, [50])]
)
def test_every_record_is_read_once_in_order(batch_size, sizes, num_threads):
    source = make_source()
    batches = list(read_once(source, batch_size=batch_size, num_threads=num_threads))
    assert [len(batch["id"]) for batch in batches] == sizes
    joined = {key: np.concatenate([b[key] for b in batches]) for key in ("id", "label")}
    assert joined["id"].tolist() == list(range(50))
    assert joined["label"].tolist() == [source[index]["label"] for index in range(50)]
    for batch in batches:
        assert batch["damaged"] == 0
        assert batch["image"].dtype == np.uint8
        for row, index in enumerate(batch["id"].tolist()):
            np.testing.assert_array_equal(batch["image"][row], source[index]["image"])


def test_batches_read_once_are_read_before_they_are_asked_for():
    read, enough = [], threading.Event()

    class Watched(SyntheticSource):
        def __getitem__(self, index):
            read.append(index)
            if max(read) >= 20:
                enough.set()
            return super().__getitem__(index)

    source = Watched(
        split="train", image_shape=(4, 4, 3), num_classes=3, length=30, seed=0
    )
    batches = read_once(source, batch_size=5, num_threads=4)
    next(batches)
    assert enough.wait(timeout=60)  # the fifth batch, when one was asked for
    batches.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size .* got 0"),
        ({"num_threads": -1}, "num_threads .* got -1"),
        ({"max_damaged_share": 1.5}, "max_damaged_share .* got 1.5"),
    ],
)
def test_bad_arguments_of_reading_once_are_refused_at_once(options, message):
    with pytest.raises(InputError, match=message):
        read_once(make_source(), **options)


def test_read_all_is_the_source_in_order():
    source = make_source(length=7)
    images, labels = read_images(source)
    assert images.dtype == np.uint8
    assert labels.dtype == np.int32
    for index in range(7):
        np.testing.assert_array_equal(images[index], source[index]["image"])
        assert labels[index] == source[index]["label"]
