"""Settings of torch that decide which kernels run, and versions: what a replay needs to give the same bits."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from fmcheck.report.context import versions

__all__ = ["MOST_THREADS", "PRECISIONS", "VERSIONS", "Settings", "found_versions"]

PRECISIONS = ("highest", "high", "medium")
VERSIONS = ("fmcheck", "torch", "python", "platform", "device", "cpu_kernels")
MOST_THREADS = 4096


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Process-wide settings of torch.

    Attributes:
        threads: of one operation on the CPU: another number adds up in another order.
        deterministic_algorithms: 0 off, 1 warns, 2 raises, as `torch.set_deterministic_debug_mode` counts.
        float32_matmul_precision: `highest`, `high` (TF32) or `medium` (bfloat16); decides TF32 in CUDA's products too.
        cudnn_tf32: TF32 in convolutions.
    """

    threads: int
    deterministic_algorithms: int
    cudnn_deterministic: bool
    cudnn_benchmark: bool
    float32_matmul_precision: str
    cudnn_tf32: bool

    @classmethod
    def now(cls) -> "Settings":
        """Those of this process."""
        return cls(
            threads=torch.get_num_threads(),
            deterministic_algorithms=torch.get_deterministic_debug_mode(),
            cudnn_deterministic=torch.backends.cudnn.deterministic,
            cudnn_benchmark=torch.backends.cudnn.benchmark,
            float32_matmul_precision=torch.get_float32_matmul_precision(),
            cudnn_tf32=torch.backends.cudnn.allow_tf32,
        )

    def as_table(self) -> dict[str, Any]:
        """Plain data for TOML."""
        return asdict(self)

    def apply(self) -> None:
        """Make them those of this process."""
        if torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)
        torch.set_deterministic_debug_mode(self.deterministic_algorithms)
        torch.backends.cudnn.deterministic = self.cudnn_deterministic
        torch.backends.cudnn.benchmark = self.cudnn_benchmark
        torch.set_float32_matmul_precision(self.float32_matmul_precision)
        torch.backends.cudnn.allow_tf32 = self.cudnn_tf32

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Those of this process while the context lasts; then the former ones again, whatever happened."""
        before = Settings.now()
        try:
            self.apply()
            yield
        finally:
            before.apply()


def found_versions(device: str) -> dict[str, str]:
    """Versions and machine, by the names in :data:`VERSIONS`."""
    found = {**versions(device), "cpu_kernels": torch.backends.cpu.get_cpu_capability()}
    return {name: found[name] for name in VERSIONS}
