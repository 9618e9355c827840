"""Several processes that train one run: how they start, and how they end together.

They share nothing but jax's collectives. When one of them dies, the others cannot go
on, and jax would have them wait for minutes or die of SIGABRT: here they end at once,
with an exit code that says why, so that whoever started them starts them again.
"""

import ctypes
import os
import re
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from absl import flags

from dig_jax.devices.roll_call import is_loopback, roll_call, split_address
from dig_jax.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_NON_FINITE,
    EXIT_PEER_FAILURE,
    InputError,
    PeerError,
)

# How long a silent process counts as alive where collectives do not notice its end.
HEARTBEAT_SECONDS = 20
# All processes come to these ends, process 0 after its last pictures.
ENDS_OF_ALL = (EXIT_DONE, EXIT_INTERRUPTED, EXIT_NON_FINITE)
SECONDS_FOR_ALL_TO_END, SECONDS_FOR_SOME = 300, 5
# How messages begin that come from below jax.
STATUS = re.compile(r"[A-Z]+(_[A-Z]+)*: ")
# What jax says when it does not reach another process, and how its parts say it: the
# coordination service, gRPC below it, gloo's and NCCL's collectives.
LOST_STATUS = ("ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE")
LOST_SIGNS = (
    "coordinationservice",
    "coordination service",
    "heartbeat",
    "gloo/rendezvous",
    "gloo/transport",
    "connection closed by peer",
    "connection reset by peer",
    "socket closed",
    "remote process exited",
    "ncclremoteerror",
    "ncclsystemerror",
    "unhandled system error",
    "nccl communicator",
)
# Processes whose programs differ: starting them again would not help.
OWN_SIGNS = ("enforce fail",)
# Where a process that fails by itself leaves its exit code for the others.
FAILED_KEY = "dig_jax_failed"


@dataclass(frozen=True)
class Processes:
    """The processes of a run, as the command line names them.

    Attributes:
        timeout: Seconds to wait for all of them at the start.
        coordinator_address: HOST:PORT of process 0; "" where jax is to find it, and
            the other two, by itself (Cloud TPU, SLURM, Kubernetes, MPI).
        num_processes: How many.
        process_id: Which of them this is.
    """

    timeout: int
    coordinator_address: str = ""
    num_processes: int = 0
    process_id: int = 0


def processes_of(options: flags.FlagValues) -> Processes | None:
    """The processes that the flags name; None for this one alone.

    Raises:
        InputError: Flags that contradict one another, or a mode for one process.
    """
    names = ("coordinator_address", "num_processes", "process_id")
    values = {name: options[name].value for name in names}
    given = [f"--{name}={value}" for name, value in values.items() if value is not None]
    timeout = options.initialization_timeout
    if not given:
        if options.distributed != "auto":
            return None
        processes = Processes(timeout)
    elif len(given) < len(names) or options.distributed is not None:
        raise InputError(
            f"Several processes need --coordinator_address=HOST:PORT, --num_processes=N"
            f" and --process_id=I, or --distributed=auto alone, got {', '.join(given)}"
            + (f", --distributed={options.distributed}" * bool(options.distributed))
            + "."
        )
    else:
        split_address(options.coordinator_address)
        if options.process_id >= options.num_processes:
            raise InputError(
                f"--process_id must lie in 0 to {options.num_processes - 1} with "
                f"--num_processes={options.num_processes}, got {options.process_id}."
            )
        processes = Processes(
            timeout,
            options.coordinator_address,
            options.num_processes,
            options.process_id,
        )
    if options.mode != "train":
        raise InputError(
            f"--mode=train alone runs in several processes; --mode={options.mode} "
            f"drives all devices of this machine from one: leave out --distributed, "
            f"--coordinator_address, --num_processes and --process_id."
        )
    return processes


def start_processes(processes: Processes) -> None:
    """Join the other processes; nothing may have used a device yet.

    Raises:
        PeerError: Some did not come: which, where that can be known.
        InputError: They were started with other numbers, or jax finds no cluster.
    """
    import jax

    local_device_ids = None
    if not processes.coordinator_address:
        processes, local_device_ids = _ask_cluster(processes.timeout)
    address = processes.coordinator_address
    roll_call(
        address, processes.num_processes, processes.process_id, float(processes.timeout)
    )
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would take SIGTERM for itself before training listens to it.
    jax.config.update("jax_enable_preemption_service", False)
    _end_well_when_jax_aborts()
    jax.distributed.initialize(
        coordinator_address=address,
        num_processes=processes.num_processes,
        process_id=processes.process_id,
        local_device_ids=local_device_ids,
        # Whoever reaches the coordinator is believed: keep it to this machine.
        coordinator_bind_address=(
            address if is_loopback(split_address(address)[0]) else None
        ),
        initialization_timeout=processes.timeout,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=SECONDS_FOR_ALL_TO_END,
    )


def _ask_cluster(timeout: int) -> tuple[Processes, Sequence[int] | None]:
    """The processes as jax finds them in the environment, and this one's devices.

    jax would do the same, but not say whom it waits for.

    Raises:
        InputError: It finds none.
    """
    from jax._src.clusters import ClusterEnv

    address, num_processes, process_id, local_device_ids = (
        ClusterEnv.auto_detect_unset_distributed_params(
            os.environ.get("JAX_COORDINATOR_ADDRESS"), None, None, None, None, timeout
        )
    )
    if address is None or num_processes is None or process_id is None:
        raise InputError(
            "--distributed=auto finds no cluster here (Cloud TPU, SLURM, Open MPI or "
            "Kubernetes). Name the processes: --coordinator_address=HOST:PORT "
            "--num_processes=N --process_id=I."
        )
    return Processes(timeout, address, num_processes, process_id), local_device_ids


def is_distributed() -> bool:
    """Whether this is one of several processes, or of one that was started as such."""
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized()


def peer_error(error: BaseException | None) -> PeerError | None:
    """What an error says of another process's end; None if it is one of our own.

    jax has one class for everything that goes wrong below it, and raises some of it as
    ValueError, so the message decides: an error is another process's where the
    collectives or the coordination service lost it, and our own (memory, a kernel, a
    callback) otherwise.
    """
    if not is_distributed():
        return error if isinstance(error, PeerError) else None
    while error is not None:
        if isinstance(error, PeerError):
            return error
        text = " ".join(str(error).split())
        if isinstance(error, RuntimeError | ValueError) and says_lost(text):
            return PeerError(f"Another process of the run has ended ({text[:300]}).")
        error = error.__cause__ or error.__context__
    return None


def says_lost(text: str) -> bool:
    """Whether a message is jax's, of another process that is not there."""
    lower = text.lower()
    if not STATUS.match(text) or any(sign in lower for sign in OWN_SIGNS):
        return False
    return text.startswith(LOST_STATUS) or any(sign in lower for sign in LOST_SIGNS)


def failed_peer() -> tuple[int, int] | None:
    """A process that failed by itself and could say so, and its exit code."""
    import jax
    from jax._src import distributed

    client = distributed.global_state.client
    if client is None:
        return None
    try:
        found = client.key_value_dir_get(FAILED_KEY)
    except jax.errors.JaxRuntimeError:  # process 0, where it is kept, is gone
        return None
    for name, code in found:
        return int(name.rpartition("/")[2]), int(code)
    return None


def end_processes(code: int) -> int:
    """Leave the other processes; returns the exit code, unless they do not come along.

    Where all end alike they wait for one another. Where this one alone ends it must not
    wait, and it ends here: Python's own exit would wait for jax's.
    """
    if not is_distributed():
        return code
    import jax
    from jax._src import distributed

    global _own_failure
    seconds = SECONDS_FOR_ALL_TO_END if code in ENDS_OF_ALL else SECONDS_FOR_SOME
    if code not in ENDS_OF_ALL:
        _own_failure = code
    if code != EXIT_PEER_FAILURE:
        try:
            # jax's own barrier at the shutdown kills the process when it is too late.
            client = distributed.global_state.client
            assert client is not None
            if code not in ENDS_OF_ALL:
                client.key_value_set(f"{FAILED_KEY}/{jax.process_index()}", str(code))
            client.wait_at_barrier("dig_jax_end", 1000 * seconds)
            jax.distributed.shutdown()
            return code
        except jax.errors.JaxRuntimeError:
            pass
    exit_now(code)


def exit_now(code: int) -> NoReturn:
    """End this process, whatever its other threads are doing."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


_abort_hook = None  # ctypes calls it as long as it lives
_own_failure: int | None = (
    None  # the exit code of a process that has said its own error
)


def _end_well_when_jax_aborts() -> None:
    """Turn the SIGABRT by which jax ends a process without its peers into an exit code.

    jax aborts from a thread of its own as soon as the coordinator is gone, and offers
    no working hook (a `missed_heartbeat_callback` in Python ends in std::bad_cast). A
    handler set by Python runs between two instructions of the main thread, too late.
    """
    global _abort_hook

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def hook(_: int) -> None:
        if _own_failure is not None:
            os._exit(_own_failure)
        text = (
            "peer failure: jax gave up, most likely because another process of the run "
            "has ended or never came; it says more above.\n"
        )
        os.write(2, text.encode())
        os._exit(EXIT_PEER_FAILURE)

    _abort_hook = hook
    ctypes.CDLL(None).signal(signal.SIGABRT, hook)
