"""Who is there is known to all, and who is not has a name."""

import socket
import threading

import pytest

from dig_jax.devices.roll_call import roll_call, split_address
from dig_jax.errors import InputError, PeerError


@pytest.fixture
def address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def call_all(address, numbers, timeout):
    """What each of some processes meets: None, or the error."""
    met = {}

    def call(process_id, num_processes):
        try:
            met[process_id] = roll_call(address, num_processes, process_id, timeout)
        except (PeerError, InputError) as error:
            met[process_id] = error

    threads = [threading.Thread(target=call, args=pair) for pair in numbers.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return met


def test_all_go_on_when_all_are_there(address):
    found = call_all(address, dict.fromkeys(range(5), 5), timeout=60.0)
    assert found == dict.fromkeys(range(5))


def test_the_port_is_free_afterwards(address):
    call_all(address, {0: 2, 1: 2}, timeout=60.0)
    socket.create_server(split_address(address)).close()


@pytest.mark.parametrize(
    ("present", "missing"), [((0, 2), "1, 3"), ((0,), "1, 2, 3"), ((1, 3), "0")]
)
def test_missing_processes_are_named_to_all(address, present, missing):
    found = call_all(address, dict.fromkeys(present, 4), timeout=0.5)
    assert len(found) == len(present)
    for error in found.values():
        assert isinstance(error, PeerError)
        assert str(error).startswith(
            f"Process {missing} of 4 did not come to {address}"
        )


def test_another_number_of_processes_is_told_to_both(address):
    found = call_all(address, {0: 3, 1: 2}, timeout=60.0)
    for error in found.values():
        assert isinstance(error, InputError)
        assert "same --num_processes, got 2 and 3" in str(error)


def test_strangers_are_passed_over(address):
    """Some that connect say nothing, or something else, or nothing of sense."""

    def disturb():
        for text in (b"", b"GET / HTTP/1.1\r\n", b"dig_jax x y\n", b"dig_jax 9 3\n"):
            with socket.create_connection(split_address(address)) as stranger:
                stranger.sendall(text)

    found = {}
    first = threading.Thread(
        target=lambda: found.update(call_all(address, {0: 3}, timeout=60.0))
    )
    first.start()
    while True:
        try:
            disturb()
            break
        except ConnectionRefusedError:
            pass
    assert call_all(address, {1: 3, 2: 3}, timeout=60.0) == {1: None, 2: None}
    first.join()
    assert found == {0: None}


def test_a_taken_port_is_refused(address):
    with (
        socket.create_server(split_address(address)),
        pytest.raises(InputError, match=r"cannot listen .* Choose a port that is free"),
    ):
        roll_call(address, 2, 0, timeout=1.0)


@pytest.mark.parametrize("wrong", ["host", "host:", ":1", "host:x", "h:0", "h:65536"])
def test_an_address_has_a_host_and_a_port(wrong):
    with pytest.raises(InputError, match="must be HOST:PORT"):
        split_address(wrong)


def test_an_address_may_be_of_ipv6():
    assert split_address("[::1]:80") == ("::1", 80)
