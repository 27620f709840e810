"""FM1, continued: device, finiteness and width of every tensor that crosses an observation point."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fmcheck.plan import Run
from fmcheck.record.trace import Call, Trace
from fmcheck.rules.evidence import exact, require
from fmcheck.rules.registry import Check, Severity, rule
from fmcheck.subject import ENTRIES
from fmcheck.tensors import all_finite, describe


@dataclass
class _Crossing:
    """One tensor at one boundary; `call` is None for the result."""

    call: Call | None
    name: str
    tensor: Tensor

    @property
    def label(self) -> str:
        return "the result" if self.call is None else f"{self.call.name}.{self.name}"

    @property
    def mismatched_dtype(self) -> bool:
        """Whether the typed wrapper has reported its dtype already."""
        return self.call is not None and any(
            m.aspect == "dtype" and m.tensor == f"{self.call.role}.{self.name}" for m in self.call.mismatches
        )


def _crossings(trace: Trace) -> list[_Crossing]:
    """Every tensor in the order in which it was seen. What the tester handed to the entry is not the model's doing."""
    inner = [call for call in trace.calls if call.role not in ENTRIES]
    found = [
        _Crossing(call, name, value)
        for call in inner
        for name, value in (*call.inputs.items(), ("output", call.output))
        if isinstance(value, Tensor)
    ]
    # An entry starts before all other calls and returns after them.
    entries = [call for call in trace.calls if call.role in ENTRIES]
    found += [_Crossing(call, "output", call.output) for call in entries if call.output is not None]
    return found + ([] if trace.result is None else [_Crossing(None, "", trace.result)])


@rule("FM108", "wrong-device", kinds=ENTRIES, judges_crashes=True)
def wrong_device(run: Run) -> Iterator[Check]:
    """Every tensor that crosses an observation point is on the device type of the case.

    How it goes wrong: a time, an indicator or noise is made without `device=x.device`. Some kernels then raise, others
    copy in every step, and a branch that nobody ran on an accelerator stays broken until somebody does.

    Checked: inputs and outputs of the `text`, `velocity`, `encode`, `sample` and `decode` points, also of runs that
    raised. Tensors that the public entry takes and returns may be anywhere. On the CPU only a tensor that went to an
    accelerator or to the meta device can be noticed, so run the gate on the device you serve on too.

    Fix: create tensors on the device of the tensor they meet. Source: generator and state on different devices,
    zai-org/CogVideo issue 465.
    """
    wanted = torch.device(run.case.device).type
    for call in run.trace.calls:
        for tensor, device in call.devices.items() if call.role not in ENTRIES else ():
            yield exact(
                device == wanted,
                f"{tensor} is on {device}, expected {wanted}",
                where=call.name,
                diagnosis="made without a device, so on the default one" if device == "cpu" else None,
            )


@rule("FM109", "non-finite", kinds=ENTRIES, judges_crashes=True)
def non_finite(run: Run) -> Iterator[Check]:
    """Every recorded tensor and the result are finite: no NaN and no infinity anywhere.

    How it goes wrong: the log-SNR of an end of the path is infinite, a half-precision decoder overflows, a row that is
    all padding divides by zero. Clamping and conversion to bytes then turn NaN into black or white pixels.

    Checked: inputs, outputs and the result in the order in which they were seen; the first that is not finite is the
    origin and is reported, those after it are not. In attention masks minus infinity is right and only NaN counts.

    Fix: look at the origin that the finding names. Source: half-precision autoencoder overflow, vladmandic/sdnext
    issue 2193.
    """
    finite: set[int] = set()
    for seen in _crossings(run.trace):
        # One copy may have crossed several boundaries.
        if id(seen.tensor) in finite or all_finite(seen.tensor):
            finite.add(id(seen.tensor))
            yield exact(True, "")
            continue
        bad = _not_finite(seen)
        yield exact(
            not bool(bad.any()),
            f"{seen.label} holds {int(bad.sum())} values of {bad.numel()} that are NaN or infinite; "
            "every tensor before it is finite",
            where=_rows_of(bad),
            diagnosis=_origin(seen),
        )
        if bool(bad.any()):
            break


def _not_finite(seen: _Crossing) -> Tensor:
    is_mask = "mask" in seen.name
    tensor = seen.tensor.float() if seen.tensor.element_size() == 1 else seen.tensor
    return tensor.isnan() if is_mask else ~torch.isfinite(tensor)


def _rows_of(bad: Tensor) -> str:
    if not bad.dim() or not bool(bad.any()):
        return ""
    rows = bad.reshape(len(bad), -1).any(dim=1).nonzero().flatten().tolist()
    if len(rows) == len(bad):
        return f"all {len(bad)} rows"
    return f"rows {', '.join(map(str, rows[:4]))}{', …' if len(rows) > 4 else ''} of {len(bad)}"


def _origin(seen: _Crossing) -> str | None:
    if seen.call is None:
        return "made after the last observed call"
    if seen.name == "output":
        overflow = " (float16 overflows above 65504)" if seen.tensor.dtype == torch.float16 else ""
        return f"made inside {seen.call.role}{overflow}"
    if seen.name == "time":
        return "the end of the path was mapped to an infinite time argument"
    return f"made on the way to {seen.call.role}"


@rule("FM110", "unasked-float64", kinds=ENTRIES, judges_crashes=True)
def unasked_float64(run: Run) -> Iterator[Check]:
    """No float64 tensor crosses an observation point, unless the case asks for float64.

    How it goes wrong: a grid from NumPy or from Python's `math` promotes the state it is multiplied with, a time
    embedding computes in float64. It is slow on every accelerator and an error on those without float64 (MPS).

    Checked: floating inputs and outputs of every observation point and the result; the first float64 tensor is
    reported, what follows from it is not. A state that is float64 from the first evaluation on is a warning. A dtype
    that the declared annotation refuses is that tensor's own finding (FM102 for the time). Float64 inside a component
    is not seen.

    Fix: cast the grid once, where it is made: `torch.tensor(grid, dtype=torch.float32)`. Source: float64 in time
    embeddings, huggingface/diffusers issue 1056.
    """
    require(run.case.torch_dtype != torch.float64, "the case asks for float64")
    for seen in _crossings(run.trace):
        if not seen.tensor.is_floating_point() or seen.mismatched_dtype:
            continue
        if seen.tensor.dtype != torch.float64:
            yield exact(True, "")
            continue
        message = f"{seen.label} is {describe(seen.tensor)}, and the case asks for {run.case.dtype}"
        severity: Severity = "warning" if _on_purpose(run, seen) else "error"
        yield exact(False, message, diagnosis=_promotion(seen), severity=severity)
        break


def _on_purpose(run: Run, seen: _Crossing) -> bool:
    """Whether it is a state that the loop holds in float64 from its first evaluation on: slow, and no slip."""
    first = next(iter(run.trace.of("velocity")), None)
    return first is not None and seen.call is first and seen.name == "x"


def _promotion(seen: _Crossing) -> str | None:
    if seen.call is None or seen.name == "output":
        return f"made inside {seen.call.role if seen.call else 'what follows the last observed call'}"
    later_state = seen.call.role != "velocity" or seen.call.number > 0
    return "a float64 step size or grid promoted the state" if later_state else "made before the first evaluation"
