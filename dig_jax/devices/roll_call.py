"""The processes of a run meet by name before jax starts, so that a missing one has one.

jax itself ends a process that waited in vain with a stack of C++, and does not say whom
it waited for. Here process 0 listens at the coordinator's address, the others tell it
their number, and all hear at once who is there. The port is jax's from then on.
"""

import contextlib
import re
import socket
import time
from collections.abc import Iterable

from dig_jax.errors import InputError, PeerError

GREETING = "dig_jax"
MAX_LINE = 256
LOOPBACK = ("localhost", "127.0.0.1", "::1")
RETRY_SECONDS = 0.1
# Of one connection that says nothing, and beyond the time that process 0 waits.
PATIENCE_SECONDS = 5.0


def split_address(address: str) -> tuple[str, int]:
    """Host and port of HOST:PORT; an IPv6 host may stand in brackets.

    Raises:
        InputError: It has another form.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(
            f"--coordinator_address must be HOST:PORT, a port from 1 to 65535, got "
            f"{address!r}."
        )
    return host.strip("[]"), int(port)


def is_loopback(host: str) -> bool:
    """Whether nothing outside this machine can reach it."""
    return host in LOOPBACK


def roll_call(
    address: str, num_processes: int, process_id: int, timeout: float
) -> None:
    """Wait until all processes are there.

    Args:
        address: HOST:PORT of process 0; a loopback address is listened at alone.
        num_processes: How many there are.
        process_id: Which of them this is.
        timeout: Seconds to wait.

    Raises:
        PeerError: Some did not come: which.
        InputError: The port is taken, or another process was told another number of
            processes.
    """
    if num_processes == 1:
        return
    deadline = time.monotonic() + timeout
    if process_id == 0:
        answer = _call(address, num_processes, deadline)
    else:
        answer = _answer(address, num_processes, process_id, deadline)
    kind, _, rest = answer.partition(" ")
    if kind == "missing":
        raise PeerError(
            f"Process {rest} of {num_processes} did not come to {address} within "
            f"{timeout:g} s. Start all of them, or give them longer: "
            f"--initialization_timeout=SECONDS."
        )
    if kind == "differ":
        raise InputError(
            f"All processes need the same --num_processes, got {rest} at {address}."
        )


def _call(address: str, num_processes: int, deadline: float) -> str:
    """Process 0's part: the answer, which the others have been given."""
    present: dict[int, socket.socket] = {}
    numbers = {num_processes}
    with contextlib.ExitStack() as opened:
        server = opened.enter_context(_listen(address))
        while len(present) < num_processes - 1 and len(numbers) == 1:
            server.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                break
            opened.enter_context(connection)
            connection.settimeout(PATIENCE_SECONDS)
            said = re.fullmatch(rf"{GREETING} (\d+) (\d+)", _read_line(connection))
            if said is None:
                continue  # a stranger
            number, count = int(said[1]), int(said[2])
            numbers.add(count)
            if 0 < number < num_processes:
                present[number] = connection  # or in place of one that was killed
        missing = set(range(1, num_processes)) - present.keys()
        if len(numbers) > 1:
            answer = f"differ {' and '.join(map(str, sorted(numbers)))}"
        elif missing:
            answer = f"missing {', '.join(map(str, sorted(missing)))}"
        else:
            answer = "go"
        _tell(present.values(), answer)
        return answer


def _listen(address: str) -> socket.socket:
    host, port = split_address(address)
    try:
        if is_loopback(host):
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return socket.create_server((host, port), family=family)
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True
            )
        return socket.create_server(("", port))
    except OSError as error:
        raise InputError(
            f"Process 0 cannot listen at --coordinator_address={address}: "
            f"{error.strerror}. Choose a port that is free."
        ) from None


def _tell(connections: Iterable[socket.socket], answer: str) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):  # it went away; jax will say so
            connection.sendall(f"{answer}\n".encode())


def _answer(address: str, num_processes: int, process_id: int, deadline: float) -> str:
    """Another process's part: what process 0 answered, once it is there."""
    greeting = f"{GREETING} {process_id} {num_processes}\n".encode()
    while (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(OSError):
            host_and_port = split_address(address)
            with socket.create_connection(host_and_port, timeout=left) as connection:
                connection.sendall(greeting)
                connection.settimeout(left + PATIENCE_SECONDS)
                line = _read_line(connection)
                if line.split(" ")[0] in ("go", "missing", "differ"):
                    return line
        time.sleep(RETRY_SECONDS)
    return "missing 0"


def _read_line(connection: socket.socket) -> str:
    """A line of text; "" where none comes."""
    content = b""
    with contextlib.suppress(OSError):
        while not content.endswith(b"\n") and len(content) < MAX_LINE:
            part = connection.recv(MAX_LINE)
            if not part:
                return ""
            content += part
    return content.decode("ascii", "replace").strip()
