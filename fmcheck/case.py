"""Case: what one run is asked to do, as plain data that a text file can hold."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch

from fmcheck.errors import DeclarationError, only_keys
from fmcheck.values import is_count, is_finite_number, is_seed

__all__ = ["Case"]

# Different lengths and different words on purpose: equal prompts in every row hide swapped and mixed rows.
_PROMPTS = (
    "a large red circle on a blue background, top left",
    "a small green square",
    "a yellow triangle on a white background, bottom right",
    "a small purple cross on a black background",
)
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


@dataclass(frozen=True, kw_only=True)
class Case:
    """One request to a pipeline.

    Attributes:
        prompts: one text a row; its length is the batch size `B`.
        height, width: of the image, in pixels.
        num_steps: `K`, the number of steps of the sampler.
        guidance_scale: the scale in the subject's own convention (`w` or `s`).
        seed: of the generator that is handed to `generate`.
        dtype: of the velocity network's weights, by name: `float32`, `bfloat16`, `float16` or `float64`.
        device: a torch device string such as `cpu` or `cuda:0`.

    Raises:
        DeclarationError: an empty prompt list, a size or step count below 1, a scale that is not finite,
            an unknown dtype or device string.
    """

    prompts: tuple[str, ...] = _PROMPTS[:3]
    height: int = 256
    width: int = 256
    num_steps: int = 4
    guidance_scale: float = 2.5
    seed: int = 0
    dtype: str = "float32"
    device: str = "cpu"

    def __post_init__(self) -> None:
        # A plain string is a sequence too, of one-letter prompts.
        self._need("prompts", isinstance(self.prompts, list | tuple), "a list or tuple of strings")
        object.__setattr__(self, "prompts", tuple(self.prompts))
        self._need("prompts", len(self.prompts) > 0, "at least one prompt")
        self._need("prompts", all(isinstance(p, str) for p in self.prompts), "strings")
        for name in ("height", "width", "num_steps"):
            self._need(name, is_count(getattr(self, name)), "a positive integer")
        self._need("seed", is_seed(self.seed, 63), "an integer in [0, 2**63)")
        self._need("guidance_scale", is_finite_number(self.guidance_scale), "a finite number")
        self._need("dtype", isinstance(self.dtype, str) and self.dtype in _DTYPES, f"one of {', '.join(_DTYPES)}")
        self._check_device()

    def _check_device(self) -> None:
        self._need("device", isinstance(self.device, str), "a torch device such as cpu or cuda:0")
        try:
            torch.device(self.device)
        except (RuntimeError, ValueError) as error:
            reason = next(iter(str(error).splitlines()), "")
            raise DeclarationError(
                f"Case.device: expected a torch device such as cpu or cuda:0; found {self.device!r} ({reason})"
            ) from error

    def _need(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise DeclarationError(f"Case.{name}: expected {expected}; found {getattr(self, name)!r}")

    @property
    def batch(self) -> int:
        """`B`, the number of prompts."""
        return len(self.prompts)

    @property
    def torch_dtype(self) -> torch.dtype:
        return _DTYPES[self.dtype]

    def but(self, **changes: Any) -> "Case":
        """The same case with some fields changed."""
        return replace(self, **changes)

    def with_batch(self, batch: int) -> "Case":
        """The same case with `batch` prompts, cycled from its own."""
        return replace(self, prompts=tuple(self.prompts[i % len(self.prompts)] for i in range(batch)))

    def as_table(self) -> dict[str, Any]:
        """Plain data for TOML or JSON; `Case.from_table` is its inverse."""
        return {**asdict(self), "prompts": list(self.prompts)}

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "Case":
        """A case from plain data; unknown keys are errors with the nearest known name."""
        only_keys(table, "case", (field.name for field in fields(cls)))
        return cls(**table)

    def __str__(self) -> str:
        return (
            f"batch {self.batch}  {self.height}x{self.width}  steps {self.num_steps}  "
            f"guidance {self.guidance_scale:g}  seed {self.seed}  {self.dtype}  {self.device}"
        )
