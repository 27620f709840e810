"""Settings of the process around a run, by name: the same call must give the same numbers under each of them.

Every one is taken off again when the run ends, whatever happened in it.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from fmcheck.errors import InternalError

__all__ = ["AMBIENTS", "ambient"]


@contextmanager
def _products(precision: str, *, tf32: bool) -> Iterator[None]:
    """Products of float32 matrices and convolutions: `highest` in float32, `medium` as short as the device can."""
    # What the setting below also sets, and does not bring back.
    products: list[Any] = [torch.backends.cuda.matmul, getattr(torch.backends.mkldnn, "matmul", None)]
    backends = [backend for backend in products if hasattr(backend, "fp32_precision")]
    formats = [backend.fp32_precision for backend in backends]
    before, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision(precision)
        torch.backends.cudnn.allow_tf32 = tf32
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = convolutions
        for backend, found in zip(backends, formats, strict=True):
            backend.fp32_precision = found


@contextmanager
def _deterministic(device: str) -> Iterator[None]:
    """Deterministic kernels, where there are such; a warning where there are none."""
    workspace = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    mode, benchmark = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark
    try:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.set_deterministic_debug_mode("warn")
        torch.backends.cudnn.benchmark = False
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)
        torch.backends.cudnn.benchmark = benchmark
        if workspace is None:
            os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@contextmanager
def _compiling(device: str) -> Iterator[None]:
    """Whatever torch.compile meets is compiled, here and at once: no other processes, and no limit that ends it."""
    # Importing the compiler takes a second, and most sessions never compile.
    import torch._dynamo.config
    import torch._inductor.config

    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
    with (
        torch._dynamo.config.patch({limit: 64, "suppress_errors": False}),
        torch._inductor.config.patch(compile_threads=1),
    ):
        yield


# By name, from the device type.
AMBIENTS: Mapping[str, Callable[[str], AbstractContextManager[object]]] = {
    "no_grad": lambda device: torch.no_grad(),
    "inference_mode": lambda device: torch.inference_mode(),
    "autocast-bfloat16": lambda device: torch.autocast(device, dtype=torch.bfloat16),
    "full-products": lambda device: _products("highest", tf32=False),
    "reduced-products": lambda device: _products("medium", tf32=True),
    "deterministic": _deterministic,
    "compiling": _compiling,
    "sdpa-math": lambda device: sdpa_kernel(SDPBackend.MATH),
    "sdpa-flash": lambda device: sdpa_kernel(SDPBackend.FLASH_ATTENTION),
    "sdpa-efficient": lambda device: sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION),
    "sdpa-cudnn": lambda device: sdpa_kernel(SDPBackend.CUDNN_ATTENTION),
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
