"""FM7, continued: every public argument of `generate()` is alive."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fmcheck.plan import Plan, Run, Wish
from fmcheck.rules.evidence import (
    ends_alike,
    ever_moves,
    exact,
    idle_guidance,
    require,
    require_finite,
    unconditional_only,
)
from fmcheck.rules.registry import Check, rule
from fmcheck.spec import FlowSpec
from fmcheck.tensors import zeros_and_ones


@dataclass(frozen=True)
class Other:
    """Another legal value for an argument.

    Attributes:
        change: in words, old against new.
        meaning_known: whether the argument must matter (prompts, size, steps, scale, seed); an unknown number or flag
            may rightly leave the pictures as they are.
    """

    value: Any
    change: str
    meaning_known: bool = True


def _base(plan: Plan) -> Mapping[str, Wish]:
    return {"base": plan.base}


def _another_value_each(plan: Plan, runs: Mapping[str, Run]) -> Mapping[str, Wish]:
    others = {} if runs["base"].failure else alternatives(runs["base"])
    return {_run_of(name): plan.argument(name, other.value, other.change) for name, other in others.items() if other}


def _run_of(name: str) -> str:
    # An argument may be called "base" too.
    return f"argument {name}"


@rule(
    "FM708",
    "dead-argument",
    needs=("velocity", "entry"),
    wishes=_base,
    follow_up=_another_value_each,
    judges_crashes=True,
)
def dead_argument(runs: Mapping[str, Run]) -> Iterator[Check]:
    """Every public argument acts: another legal value gives another result or an exception.

    How it goes wrong: a parameter that a refactoring left in the signature, a mask that never reaches the encoder, a
    `num_steps` that the scheduler overrides, a flag whose failure a bare `except` swallows.

    Checked: each argument that the subject passes to its `entry` is given another value, alone: sizes one multiple
    larger, one step more, another scale and seed, prompts rotated, the last word masked out, flags flipped. Numbers
    and flags whose meaning the case does not tell are warnings, since a progress bar changes no picture. Texts,
    callables and None are not tested, which a verbose report lists, nor are prompts where only the unconditional
    branch shows, nor the scale where nothing is there to guide; arguments that the subject does not pass are not seen.
    Not informative when every velocity is zero (an untrained zero-initialised output layer).

    Fix: use it, or remove it from the signature. Source: rescaled prediction computed and thrown away,
    p1atdev/LECO issue 15.
    """
    base = runs["base"]
    require_finite(base.result)
    others = alternatives(base)
    require(ever_moves(base), "every velocity is zero (zero-initialised output layer?)")
    for name, other in others.items():
        if other is None:
            yield exact(True, f"argument {name!r} was not tested", severity="note")
            continue
        run = runs[_run_of(name)]
        alive = run.trace.error is not None or not _same(base, run)
        yield exact(
            alive,
            f"argument {name!r} is dead: {other.change} gives the same pictures, bit for bit",
            where=f"run {run.name}",
            severity="error" if other.meaning_known else "warning",
        )


def _same(base: Run, run: Run) -> bool:
    if run.trace.result is None or type(run.trace.returned) is not type(base.trace.returned):
        return False
    return ends_alike(base, run)


def alternatives(base: Run) -> dict[str, Other | None]:
    """Another value for each argument that the public entry was passed; None where no legal one can be made.

    Raises:
        NotInformative: the entry was not called.
    """
    entries = base.trace.of("generate")
    require(bool(entries), "the public entry was not called")
    found: dict[str, Other | None] = {}
    for name, value in entries[0].inputs.items():
        # One value is passed to every call of the entry; tensors may differ from call to call.
        testable = name.isidentifier() and (len(entries) == 1 or not isinstance(value, Tensor))
        testable = testable and not _rightly_idle(value, base)
        found[name] = _another(name, value, base) if testable else None
    return found


def _rightly_idle(value: Any, base: Run) -> bool:
    """Whether the value cannot matter in this case: prompts of which nothing shows, a scale with nothing to scale."""
    if isinstance(value, Tensor | list | tuple):
        return unconditional_only(base)
    scale = isinstance(value, int | float) and not isinstance(value, bool) and value == base.case.guidance_scale
    return scale and bool(idle_guidance(base))


def _another(name: str, value: Any, base: Run) -> Other | None:
    if isinstance(value, bool):
        return Other(not value, f"{value} against {not value}", meaning_known=False)
    if isinstance(value, int):
        return _another_integer(name, value, base)
    if isinstance(value, float) and value == base.case.guidance_scale:
        other = _another_scale(value, base.subject.spec)
        return Other(other, f"{value:g} against {other:g}")
    if isinstance(value, float):
        # -1 is where the line meets itself.
        other = value * 1.5 + 0.5 if value != -1 else 1.0
        return Other(other, f"{value:g} against {other:g}", meaning_known=False)
    if isinstance(value, torch.Generator):
        seed = base.case.seed + 1
        generator = torch.Generator(device=value.device).manual_seed(seed)
        return Other(generator, f"a generator seeded {base.case.seed} against one seeded {seed}")
    if isinstance(value, Tensor):
        return _another_tensor(name, value, base)
    return _rotated(value) if isinstance(value, list | tuple) else None


def _another_scale(value: float, spec: FlowSpec) -> float:
    """A scale of another weight: below where guidance starts all are one. -1 is where the line meets itself."""
    starts = spec.neutral_scale if spec.guidance_from is None else spec.guidance_from
    tried = [scale for scale in (value * 1.5 + 0.5, value + 2, value + 4, starts + 2) if scale != value]
    return next((s for s in tried if spec.guidance_weight(s) != spec.guidance_weight(value)), tried[0])


def _another_integer(name: str, value: int, base: Run) -> Other:
    case = base.case
    if value in (case.height, case.width):
        other = value + base.subject.spec.multiple
        return Other(other, f"{value} against {other} pixels")
    known = (value == case.num_steps and "step" in name) or (value == case.seed and "seed" in name)
    other = value + 1
    if value == case.guidance_scale and not known:
        known, other = True, math.ceil(_another_scale(value, base.subject.spec))
    return Other(other, f"{value} against {other}", meaning_known=known)


def _another_tensor(name: str, value: Tensor, base: Run) -> Other | None:
    if _is_mask(name, value):
        other, how = _shortened(value), "the last word of every row masked out"
    elif value.is_floating_point():
        other, how = 0.75 * value, "the tensor scaled by 0.75"
    else:
        other, how = _rolled(value, base.case.batch), "the rows rotated"
    return None if torch.equal(other, value) else Other(other, f"{how}, against as it was,")


def _is_mask(name: str, value: Tensor) -> bool:
    return value.dim() == 2 and zeros_and_ones(value) and ("mask" in name or not value.is_floating_point())


def _shortened(mask: Tensor) -> Tensor:
    """The mask `[N, L]` without the last valid token of every row that has another one."""
    valid = mask.bool()
    last = mask.shape[1] - 1 - valid.flip(1).int().argmax(dim=1)
    rows = (valid.sum(dim=1) > 1).nonzero().flatten()
    other = mask.clone()
    other[rows, last[rows]] = 0
    return other


def _rolled(tokens: Tensor, batch: int) -> Tensor:
    """Rows rotated within each guidance half, so that conditional rows stay conditional; one row: its tokens are."""
    if tokens.dim() == 0:
        return tokens + 1
    if batch == 1:
        return tokens.roll(1, dims=-1)
    return torch.cat([half.roll(1, dims=0) for half in torch.split(tokens, batch)])


def _rotated(values: list[Any] | tuple[Any, ...]) -> Other | None:
    """Texts in rotated order."""
    texts = all(isinstance(value, str) for value in values) and len(set(values)) > 1
    other = [*values[1:], *values[:1]]
    return Other(type(values)(other), "the texts rotated, against as they were,") if texts else None
