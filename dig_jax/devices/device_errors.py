"""What JAX says of a device that it cannot use, in a line that says what is needed."""

import re
import sys

_NO_BACKEND = re.compile(
    r"Unable to initialize backend '?(\w+)|Backend '(\w+)' failed to initialize"
    r"|Unknown backend:? '?(\w+)"
)
_TOO_OLD = re.compile(
    r"Outdated \w+ installation found|Unable to load \w+\. Is it installed"
    r"|driver version is insufficient|cudaErrorInsufficientDriver"
    r"|DNN library initialization failed|CUDNN_STATUS_\w*(?:NOT_INITIALIZED|VERSION)\w*"
    r"|CUDA_ERROR_(?:UNSUPPORTED_PTX_VERSION|SYSTEM_DRIVER_MISMATCH|NO_DEVICE"
    r"|COMPAT_NOT_SUPPORTED_ON_DEVICE)"
)
_NEEDED = (
    "An NVIDIA GPU needs a driver of 525 or newer for jax[cuda12], 580 for jax[cuda13] "
    "(nvidia-smi says which there is), and the cuDNN that comes with them (pip install "
    "--upgrade 'jax[cuda12]'; no older one in LD_LIBRARY_PATH). JAX_PLATFORMS=cpu does "
    "without."
)


def device_error(error: BaseException) -> str | None:
    """A line for an error of JAX about a missing, old or full device; None for others.

    An error's causes are looked at, too.
    """
    chain: BaseException | None = error
    while chain is not None:
        if type(chain) is RuntimeError or _is_jax_error(chain):
            line = _line(" ".join(str(chain).split()))
            if line is not None:
                return line
        chain = chain.__cause__ or chain.__context__
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device had too little memory for something."""
    return _is_jax_error(error) and "RESOURCE_EXHAUSTED" in str(error)[:200]


def _is_jax_error(error: BaseException) -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(error, jax.errors.JaxRuntimeError)


def _line(text: str) -> str | None:
    old = _TOO_OLD.search(text)
    missing = _NO_BACKEND.search(text)
    if old is not None:
        return f"JAX cannot use the GPU: {_around(text, old.start())}. {_NEEDED}"
    if missing is not None:
        name = next(filter(None, missing.groups()))
        needed = (
            _NEEDED if name in ("cuda", "gpu") else "JAX_PLATFORMS=cpu does without."
        )
        return f"JAX finds no device of platform {name!r}: {text[:200]}. {needed}"
    if "RESOURCE_EXHAUSTED" in text[:200]:
        return (
            f"A device has too little memory: {text[:200]}. In training, a smaller "
            "training.microbatch needs less, in sampling a smaller sample.batch_size; "
            "other programs on the device may hold some."
        )
    return None


def _around(text: str, start: int) -> str:
    """What the error says from there on, shortened."""
    return text[start : start + 200].rstrip(". ")
