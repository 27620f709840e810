"""Fingerprints of the key tensors of a run: equal bits show at once, and on another device how far apart they are."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fmcheck.wish import Run

__all__ = ["PROJECTIONS", "TIME", "Compared", "Print", "compared", "print_of", "prints_of"]

# One a bit of the random byte that every element gets.
PROJECTIONS = 8
# The name of the time argument's fingerprint: it may be 0, and is to be measured against the range of times.
TIME = "first time"
# Elements at a time, so that a large picture is never in memory eight times.
_CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Print:
    """The fingerprint of one tensor.

    Attributes:
        run: name of the run it is from.
        name: which tensor: `initial state`, `first velocity`, …
        dtype, shape: as torch says.
        digest: SHA-256 of its elements in order, as they lie in memory.
        not_finite: how many elements are NaN or infinite; they count as 0 in what follows.
        rms: root of the mean square.
        projections: sums with random signs over `sqrt(n)`. The mean square of the differences of two tensors'
            projections estimates the mean square of the tensors' difference, without having both.
    """

    run: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    digest: str
    not_finite: int
    rms: float
    projections: tuple[float, ...]

    def as_table(self) -> dict[str, Any]:
        """Plain data for TOML."""
        return {**asdict(self), "shape": list(self.shape), "projections": list(self.projections)}

    def distance(self, other: "Print") -> float:
        """Estimate of the root of the mean square of the difference, from the projections."""
        return math.sqrt(math.fsum((a - b) ** 2 for a, b in _pairs(self, other)) / PROJECTIONS)


def _pairs(one: Print, other: Print) -> Iterable[tuple[float, float]]:
    return zip(one.projections, other.projections, strict=True)


def print_of(run: str, name: str, tensor: Tensor) -> Print | None:
    """The fingerprint of a tensor; None for one without elements to read (meta, sparse, quantised)."""
    if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
        return None
    flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
    # Through uint8, since numpy knows no bfloat16.
    digest = hashlib.sha256(flat.view(torch.uint8).numpy().data).hexdigest()
    numbers = (torch.view_as_real(flat).reshape(-1) if flat.is_complex() else flat).to(torch.float64).numpy()
    finite = np.isfinite(numbers)
    numbers = np.where(finite, numbers, 0.0)
    # Scaled, so that squares of large numbers stay finite.
    largest = float(np.abs(numbers).max(initial=0.0)) or 1.0
    numbers = numbers / largest
    count = max(numbers.size, 1)
    return Print(
        run=run,
        name=name,
        dtype=str(tensor.dtype).removeprefix("torch."),
        shape=tuple(tensor.shape),
        digest=digest,
        not_finite=int(finite.size - finite.sum()),
        rms=largest * math.sqrt(float(np.square(numbers).sum()) / count),
        projections=tuple(largest * float(sum_) / math.sqrt(count) for sum_ in _projected(numbers)),
    )


def _projected(numbers: Any) -> Any:
    """`[PROJECTIONS]` sums with signs. From a hash, since torch's and numpy's generators may change with a version."""
    sums = np.zeros(PROJECTIONS)
    for place in range(0, numbers.size, _CHUNK):
        part = numbers[place : place + _CHUNK]
        random = hashlib.shake_128(f"fmcheck {place}".encode()).digest(part.size)
        bits = np.unpackbits(np.frombuffer(random, np.uint8)).reshape(part.size, PROJECTIONS)
        sums += part @ (1.0 - 2.0 * bits)
    return sums


def prints_of(run: Run) -> tuple[Print, ...]:
    """The fingerprints of the key tensors that exist in a run."""
    made = (print_of(run.name, name, tensor) for name, tensor in _key_tensors(run))
    return tuple(found for found in made if found is not None)


def _key_tensors(run: Run) -> Iterator[tuple[str, Tensor]]:
    velocities, decodes = run.trace.of("velocity"), run.trace.of("decode")
    found: dict[str, Any] = {}
    if velocities:
        found["initial state"] = velocities[0].inputs.get("x")
        found[TIME] = velocities[0].inputs.get("time")
        found["first velocity"] = velocities[0].output
        found["last velocity"] = velocities[-1].output if len(velocities) > 1 else None
    if decodes:
        found["input of decode"] = decodes[-1].inputs.get("x")
    found["result"] = run.trace.result
    return ((name, value) for name, value in found.items() if isinstance(value, Tensor))


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One tensor of a replay against the recorded one: `used` is the estimated rms of the difference."""

    print: Print
    kind: Literal["identical", "within", "different"]
    used: float = 0.0
    allowed: float = 0.0
    reason: str = ""

    @property
    def ratio(self) -> float:
        """Used over allowed."""
        return self.used / self.allowed if self.allowed else (0.0 if self.used == 0 else math.inf)

    def __str__(self) -> str:
        said = self.reason or f"differs by {self.used:.3g} rms, allowed {self.allowed:.3g}"
        return f"{self.print.name} of run {self.print.run}: {said}"


def compared(
    recorded: Iterable[Print], found: Iterable[Print], allowed: Callable[[Print], float] = lambda _: 0.0
) -> list[Compared]:
    """Recorded fingerprints against those of a replay.

    Args:
        allowed: rms of the difference from a recorded tensor that another device may make; 0 where only equal bits do.
    """
    by_name = {(p.run, p.name): p for p in found}
    return [_compared(p, by_name.get((p.run, p.name)), allowed(p)) for p in recorded]


def _compared(old: Print, new: Print | None, allowed: float) -> Compared:
    if new is None:
        return Compared(print=old, kind="different", reason="there is none in the replay")
    if replace(new, digest=old.digest, rms=old.rms, projections=old.projections) != old:
        return Compared(print=old, kind="different", reason=f"{_form(new)} in the replay, {_form(old)} recorded")
    if new.digest == old.digest:
        return Compared(print=old, kind="identical")
    used = old.distance(new)
    return Compared(print=old, kind="within" if used <= allowed else "different", used=used, allowed=allowed)


def _form(print_: Print) -> str:
    beyond = f" with {print_.not_finite} elements that are not finite" if print_.not_finite else ""
    return f"{print_.dtype}{list(print_.shape)}{beyond}"
