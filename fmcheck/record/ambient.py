"""Settings of the process around a run, by name: the same call must give the same numbers under each of them.

Every one is taken off again when the run ends, whatever happened in it.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from fmcheck.errors import InternalError

__all__ = ["AMBIENTS", "ambient"]


@contextmanager
def _tf32(device: str) -> Iterator[None]:
    """Products of float32 matrices and convolutions in TensorFloat-32 (or what the CPU has in its place)."""
    precision, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = convolutions


@contextmanager
def _deterministic(device: str) -> Iterator[None]:
    """Deterministic kernels; one that has no such kind raises."""
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    mode, benchmark = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    try:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.set_deterministic_debug_mode("error")
        torch.backends.cudnn.benchmark = False
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.backends.cudnn.benchmark = benchmark
        if workspace is None:
            os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


# By name, from the device type.
AMBIENTS: Mapping[str, Callable[[str], AbstractContextManager[object]]] = {
    "no_grad": lambda device: torch.no_grad(),
    "inference_mode": lambda device: torch.inference_mode(),
    "autocast-bfloat16": lambda device: torch.autocast(device, dtype=torch.bfloat16),
    "tf32": _tf32,
    "deterministic": _deterministic,
    "sdpa-math": lambda device: sdpa_kernel(SDPBackend.MATH),
    "sdpa-flash": lambda device: sdpa_kernel(SDPBackend.FLASH_ATTENTION),
    "sdpa-efficient": lambda device: sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION),
}


@contextmanager
def ambient(names: Iterable[str], device: str) -> Iterator[None]:
    """The settings with these names, one inside the other.

    Raises:
        InternalError: no setting has that name.
    """
    with ExitStack() as stack:
        for name in names:
            if name not in AMBIENTS:
                raise InternalError(f"no ambient setting {name!r}; there are {', '.join(AMBIENTS)}")
            stack.enter_context(AMBIENTS[name](torch.device(device).type))
        yield
