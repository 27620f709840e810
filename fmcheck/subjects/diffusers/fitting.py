"""What one step of a pipeline did with its network's outputs: which rows, which formula, which sign."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fmcheck.subjects.diffusers.observing import NetworkCall, Step, stacked

__all__ = ["Branches", "Formula", "branches", "combined", "embedded_scale", "formula", "state_name", "time_name"]


@dataclass(frozen=True)
class Branches:
    """The two guidance branches of the first step: layout by FlowSpec's names, and their outputs `[B, ...]`."""

    layout: str
    cond: Tensor
    uncond: Tensor | None


@dataclass(frozen=True)
class Formula:
    """How the scheduler's input comes of the network's outputs, in FlowSpec's words.

    `sign` is 1 when the network predicts noise minus data (the scheduler's direction), -1 for data minus noise.
    """

    name: str
    norm: str
    sign: int
    rescale: float = 0.0


def state_name(call: NetworkCall, sample: Tensor) -> str | None:
    """The argument that holds the scheduler's state, once or more often, possibly as a list of rows."""
    for name, value in call.inputs.items():
        rows = stacked(value)
        if rows is None or not rows.is_floating_point() or rows.dim() < 2 or rows.shape[0] % len(sample):
            continue
        if rows.dim() == sample.dim() + 1 and rows.shape[2] == 1:
            rows = rows.squeeze(2)
        if rows.shape[1:] == sample.shape[1:] and torch.allclose(rows[: len(sample)].float(), sample.float()):
            return name
    return None


def time_name(steps: list[Step], state: str) -> str | None:
    """The argument with one number a row (or one for all) that changes from step to step."""
    calls = [step.calls[0] for step in steps if step.calls]
    for name, first in calls[0].inputs.items():
        values = [call.inputs.get(name) for call in calls]
        if name == state or not isinstance(first, Tensor | float | int) or isinstance(first, bool):
            continue
        numbers = [torch.as_tensor(value).reshape(-1).double() for value in values if value is not None]
        alike = all(n.numel() > 0 and bool((n == n[0]).all()) for n in numbers)
        if alike and len({float(n[0]) for n in numbers}) > 1 and numbers[0].numel() <= len(calls[0].output):
            return name
    return None


def embedded_scale(call: NetworkCall, scale: float) -> str | None:
    """The argument whose every entry is the guidance scale (or a thousand times it)."""
    for name, value in call.inputs.items():
        if not isinstance(value, Tensor) or not value.numel() or not value.is_floating_point():
            continue
        if any(bool(torch.isclose(value, value.new_tensor(factor * scale)).all()) for factor in (1.0, 1000.0)):
            return name
    return None


def branches(step: Step, other: Step, batch: int) -> Branches | None:
    """Which rows are conditional: those whose output changed with the prompts (`other` has other prompts).

    None when the calls are not one or two branches of `batch` rows.
    """
    outputs, others = [call.output for call in step.calls], [call.output for call in other.calls]
    layouts = ("separate", "separate_uncond_first")
    if len(outputs) == 1 and len(outputs[0]) == 2 * batch:
        outputs, others = list(outputs[0].chunk(2)), list(others[0].chunk(2))
        layouts = ("cond_first", "uncond_first")
    if not outputs or any(len(output) != batch for output in outputs) or len(outputs) > 2:
        return None
    if len(outputs) == 1:
        return Branches("single", outputs[0], None)
    changes = [float((a - b).abs().max()) for a, b in zip(outputs, others, strict=True)]
    first = changes[0] > changes[1]
    cond, uncond = outputs if first else reversed(outputs)
    return Branches(layouts[0] if first else layouts[1], cond, uncond)


def combined(cond: Tensor, uncond: Tensor, scale: float, name: str, norm: str) -> Tensor:
    """The guided output under one formula of FlowSpec, in float64."""
    c, u = cond.double(), uncond.double()
    raw: Tensor = u + scale * (c - u) if name == "uncond_plus" else c + scale * (c - u)
    axes: Any = {"none": None, "row": tuple(range(1, c.dim())), "last_axis": -1}[norm]
    if axes is None:
        return raw
    sizes = [torch.linalg.vector_norm(x, dim=axes, keepdim=True) for x in (c, raw)]
    rescaled: Tensor = raw * (sizes[0] / sizes[1])
    return rescaled


def formula(step: Step, found: Branches, scale: float) -> Formula | None:
    """The formula that comes nearest to what the scheduler was handed; None when none is near."""
    handed = step.model_output.double().reshape(found.cond.shape)
    near = _close(found.cond.dtype)
    candidates = list(_candidates(found, scale))
    best, expected = min(candidates, key=lambda candidate: _error(candidate[1], handed))
    if _error(expected, handed) <= near:
        return best
    for candidate, raw in candidates:
        share = _rescale_share(handed, raw, candidate.sign * found.cond.double(), near)
        if candidate.norm == "none" and share is not None:
            return replace(candidate, rescale=share)
    return None


def _close(dtype: torch.dtype) -> float:
    """Relative error of a sum of three terms, with room: a wrong formula is off by tenths."""
    return max(1e-4, 16 * torch.finfo(dtype).eps)


def _error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def _rescale_share(handed: Tensor, raw: Tensor, cond: Tensor, near: float) -> float | None:
    """`phi` of arXiv 2305.08891, where rows are `raw (phi std(cond) / std(raw) + 1 - phi)`; None where they are not."""
    axes = tuple(range(1, raw.dim()))
    ratio = cond.std(axes, keepdim=True) / raw.std(axes, keepdim=True)
    factor = (handed * raw).sum(axes, keepdim=True) / (raw * raw).sum(axes, keepdim=True)
    share = float(((factor - 1) / (ratio - 1)).mean())
    holds = 0 < share <= 1 + near and _error(raw * (share * ratio + 1 - share), handed) <= near
    return min(round(share, 4), 1.0) if holds else None


def _candidates(found: Branches, scale: float) -> Iterator[tuple[Formula, Tensor]]:
    for sign in (1, -1):
        if found.uncond is None:
            yield Formula("uncond_plus", "none", sign), sign * found.cond.double()
            continue
        for name in ("uncond_plus", "cond_plus"):
            for norm in ("none", "last_axis", "row"):
                yield Formula(name, norm, sign), sign * combined(found.cond, found.uncond, scale, name, norm)
