"""What happened in one run, as plain records that rules read."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from traceback import FrameSummary
from typing import Any

import torch
from torch import Tensor

from fmcheck.case import Case
from fmcheck.record.model_state import ModelState
from fmcheck.tensors import Mismatch

__all__ = ["Call", "Draw", "Trace"]


@dataclass(eq=False)
class Call:
    """One call of an observation point.

    Attributes:
        role: `velocity`, `decode`, …; `number` counts the calls of that role from 0.
        inputs: the values passed for the arguments of the role; tensors are copies, taken before the call.
        shapes: shapes of all tensors that were passed, in lists and mappings too, whether the role names them or not.
        lengths: tokens that count in the longest row of every mask of tokens that the network was passed.
        output: copy of the tensor that the loop received; None when the call raised or returned no tensor.
        live: in a training loss, that tensor itself with its graph, so that a gradient by it can be taken.
        mismatches: what the typed wrapper found wrong with its tensors.
        devices: device type of every tensor that crossed the boundary, by tensor name.
        mutated: names of the input tensors that the call changed in place.
        training: whether the observed module was in train mode.
        dropout: whether a module that behaves differently in train mode was in it.
        grad: whether gradients were being recorded.
        error: the exception that left the call, without its traceback.
    """

    role: str
    number: int
    inputs: dict[str, Any] = field(default_factory=dict)
    shapes: tuple[torch.Size, ...] = ()
    lengths: tuple[int, ...] = ()
    output: Tensor | None = None
    live: Tensor | None = field(default=None, repr=False)
    mismatches: list[Mismatch] = field(default_factory=list)
    devices: dict[str, str] = field(default_factory=dict)
    mutated: list[str] = field(default_factory=list)
    training: bool = False
    dropout: bool = False
    grad: bool = False
    error: BaseException | None = None

    @property
    def name(self) -> str:
        return f"{self.role}[{self.number}]"


@dataclass(frozen=True)
class Draw:
    """Something drew from a source of randomness: `caller`, `torch`, `python`, `numpy` or a device.

    `where` is the observed call it happened in, or the gap after which one it happened.
    """

    source: str
    where: str
    last_call: str | None

    @property
    def role(self) -> str | None:
        """Role of the innermost observed call that it happened in; None between calls."""
        _, inside, call = self.where.rpartition("inside ")
        return call.partition("[")[0] if inside else None


@dataclass
class Trace:
    """The ordered events of one `generate()` or one training loss, and what it left behind.

    Attributes:
        calls: outermost calls of all observation points, in order.
        images: copy of the pictures that a training loss was handed.
        result: copy of the images (or the loss) that came out; None when the run raised.
        returned: what `generate` (or the loss) returned, itself and with its graph.
        error: the exception that ended the run, without its traceback.
        raised_in: the lines that it passed, the innermost last.
        draws: draws from the caller's generator and from the global ones, in order.
        warnings: texts of the Python warnings raised during the run.
        born: parameters and buffers registered on any module while the run lasted.
        found: the model as it was before the run.
        modules: how many modules were found in the model; without any nothing can be said about its state.
        model_changes: parameters, buffers, modes and hooks that differ from before, in words.
        input_changes: input tensors that differ from before.
        process_changes: process-wide settings that differ from before.
        rng_changes: global generators whose state differs from before.
    """

    case: Case
    kind: str = "generate"
    calls: list[Call] = field(default_factory=list)
    images: Tensor | None = None
    result: Tensor | None = None
    returned: Any = None
    error: Exception | None = None
    raised_in: Sequence[FrameSummary] = ()
    draws: list[Draw] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    born: list[str] = field(default_factory=list)
    found: ModelState | None = None
    modules: int = 0
    model_changes: list[str] = field(default_factory=list)
    input_changes: list[str] = field(default_factory=list)
    process_changes: list[str] = field(default_factory=list)
    rng_changes: list[str] = field(default_factory=list)
    disturbed: bool = False
    seconds: float = 0.0

    def of(self, role: str) -> list[Call]:
        """The calls of one role, in order."""
        return [call for call in self.calls if call.role == role]
