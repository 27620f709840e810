"""The size of the state on its way from source to data."""

import math
from dataclasses import dataclass

from torch import Tensor

from fmcheck.errors import NotInformative
from fmcheck.plan import Run
from fmcheck.plots.times import Numbers
from fmcheck.tensors import rms_rows

__all__ = ["StateSizes", "state_sizes"]

# Half a range that one row in some 16,000 leaves: four standard deviations.
_DEVIATIONS = 4.0


@dataclass(frozen=True, kw_only=True)
class StateSizes:
    """Root mean square of the state at the start of every step and behind the last.

    Attributes:
        steps: the step in front of which the state was seen; K is behind the last one.
        rows: `[position][row]`.
        whole: over all rows.
        start: range in which the first state is expected, or None where the declaration does not say it.
        start_says: what that range is.
        unseen: why the state behind the last step cannot be seen; empty when it can.
    """

    steps: Numbers
    rows: tuple[Numbers, ...]
    whole: Numbers
    start: tuple[float, float] | None
    start_says: str
    unseen: str = ""


def state_sizes(run: Run) -> StateSizes:
    """
    Raises:
        NotInformative: the calls cannot be read as evaluations.
    """
    rows = tuple(rms_rows(state) for state in run.reading.states)
    start, says = _expected_start(run)
    return StateSizes(
        steps=tuple(float(k) for k in range(len(rows))),
        rows=rows,
        whole=tuple(math.sqrt(sum(r * r for r in row) / len(row)) for row in rows),
        start=start,
        start_says=says,
        unseen="" if run.reading.final is not None else "the state behind the last step enters no observed function",
    )


def _expected_start(run: Run) -> tuple[tuple[float, float] | None, str]:
    """The range of the first state's root mean square by rows, and what it rests on."""
    spec, initial = run.subject.spec, run.reading.initial
    if spec.initial_state == "noise":
        count = initial[0].numel()
        # Of n numbers of deviation s the root mean square has deviation s / sqrt(2 n), nearly.
        around = _DEVIATIONS / math.sqrt(2 * count)
        says = f"noise of deviation {spec.noise_scale:g}: four deviations around it"
        return (spec.noise_scale * (1 - around), spec.noise_scale * (1 + around)), says
    texts = [call.output for call in run.trace.of("text") if call.output is not None]
    same = [text for text in texts if len(text) == len(initial) and text.numel() == initial.numel()]
    if not same:
        return None, "no range: the text latent is not observed, or has another size than the state"
    found = rms_rows(same[-1])
    return (min(found), max(found)), "the text latents of the rows"


def require_rows(states: list[Tensor]) -> None:
    """
    Raises:
        NotInformative: the state changes its shape on the way.
    """
    shapes = {tuple(state.shape) for state in states}
    if len(shapes) > 1:
        raise NotInformative(f"the state has several shapes on its way: {sorted(shapes)} (see FM104)")
