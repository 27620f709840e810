"""Whole cases and calls: axes that are all distinct in one half, and forced to coincide in the other."""

import math
from collections.abc import Sequence
from typing import Literal

from hypothesis import strategies as st

from fmcheck.case import Case
from fmcheck.scenario import Call, Tokens
from fmcheck.strategies.axes import (
    Domain,
    batch_sizes,
    guidance_scales,
    prompt_lists,
    seeds,
    sizes,
    step_counts,
)
from fmcheck.subject import Subject

__all__ = ["calls", "cases"]

_COINCIDENCES = ("B = w", "B = h", "2B = w", "h = w", "B = 1", "h w = C")
# "free" alone is what a case shrinks to; half of the others ask for distinct axes.
_MODES = ("free", *("distinct",) * len(_COINCIDENCES), *_COINCIDENCES)


@st.composite
def cases(
    draw: st.DrawFn,
    subject: Subject,
    domain: Domain | None = None,
    *,
    dtypes: Sequence[str] | None = None,
    devices: Sequence[str] | None = None,
) -> Case:
    """Cases that the subject can be asked for, within the budget.

    Args:
        dtypes: of the network; by default those that the subject declares, the native one more often.
        devices: by default that of the native case.
    """
    filled = (domain or Domain()).of(subject)
    budget = filled.budget or 1
    mode = draw(st.sampled_from(_MODES))
    height, width = draw(sizes(subject, filled))
    if mode == "distinct" and subject.sizes is None:
        height, width = _told_apart(subject, height, width)
    # Neither the prompts nor the steps may take all that the size leaves.
    affordable = budget // (height * width)
    most = max(1, min(filled.max_batch, affordable, math.isqrt(4 * affordable)))
    channels, h, w = subject.spec.latent_size(height, width)
    batch = _forced_batch(mode, h, w) or draw(batch_sizes(most))
    if mode == "distinct":
        # Unless the budget leaves no choice: a model whose native size is its smallest.
        batch = next((other for other in _around(batch, most) if len({other, h, w, channels, h * w}) == 5), batch)
    elif mode in ("h = w", "h w = C"):
        height, width = _coinciding(mode, subject, filled, (height, width), budget // batch)
    batch = min(batch, most)
    steps = draw(step_counts(max(1, min(filled.max_steps, budget // (height * width * batch)))))
    native = subject.case.dtype
    return Case(
        prompts=draw(prompt_lists(subject, batch)),
        height=height,
        width=width,
        num_steps=steps,
        guidance_scale=draw(guidance_scales(subject.spec, filled.weights)),
        seed=draw(seeds()),
        dtype=draw(st.sampled_from((native, *(dtypes or subject.dtypes)))),
        device=draw(st.sampled_from(tuple(devices or (subject.case.device,)))),
    )


def _told_apart(subject: Subject, height: int, width: int) -> tuple[int, int]:
    """The size, or a smaller one, whose height, width, tokens and channels in the latent all differ."""
    multiple = subject.spec.multiple
    for size in ((height, width), (height, width - multiple), (height - multiple, width)):
        if min(size) > 0:
            channels, h, w = subject.spec.latent_size(*size)
            if len({channels, h, w, h * w}) == 4:
                return size
    return height, width


def _around(batch: int, most: int) -> list[int]:
    """Batch sizes from this one on, and after the largest from 1."""
    return [*range(batch, most + 1), *range(1, batch)]


def _forced_batch(mode: str, h: int, w: int) -> int | None:
    forced = {"B = w": w, "B = h": h, "2B = w": w // 2 if w % 2 == 0 else None, "B = 1": 1}
    return forced.get(mode)


def _coinciding(mode: str, subject: Subject, domain: Domain, size: tuple[int, int], pixels: int) -> tuple[int, int]:
    """The legal size nearest in height at which the axes coincide; the size itself where there is none."""
    (height, width), multiple, factor = size, subject.spec.multiple, subject.spec.downsampling
    if mode == "h = w":
        wanted = [(side, side) for side in (height, width, min(height, width))]
    else:
        channels = subject.spec.latent_channels
        pairs = [(rows, channels // rows) for rows in range(1, channels + 1) if channels % rows == 0]
        pairs.sort(key=lambda pair: abs(pair[0] * factor - height))
        wanted = [(rows * factor, columns * factor) for rows, columns in pairs]
    known = subject.sizes and [tuple(size) for size in subject.sizes]
    most = domain.max_side or multiple
    for other in wanted:
        fits = max(other) <= most and not (other[0] % multiple or other[1] % multiple)
        if (other in known if known else fits) and other[0] * other[1] <= pixels:
            return other
    return height, width


@st.composite
def calls(
    draw: st.DrawFn,
    subject: Subject,
    domain: Domain | None = None,
    *,
    case: st.SearchStrategy[Case] | None = None,
) -> Call:
    """A call: a case, sometimes with padded or masked tokens, disturbed global generators, or as a training loss."""
    kinds: list[Literal["generate", "loss"]] = ["generate"] * 7
    kinds += ["loss"] * (subject.loss is not None)
    found = draw(case if case is not None else cases(subject, domain))
    tokens: list[Tokens] = ["plain"] * 4
    # Others may be as long as the model allows, and more padding would be too much.
    paddable = set(found.prompts) <= {*subject.case.prompts, ""}
    tokens += ["padded"] * (subject.tokenize is not None and subject.pad is not None and paddable)
    tokens += ["masked"] * (subject.tokenize is not None and subject.masked is not None)
    kind = draw(st.sampled_from(kinds))
    return Call(
        case=found,
        kind=kind,
        tokens=draw(st.sampled_from(tokens)) if kind == "generate" else "plain",
        global_seed=draw(st.none() | st.integers(0, 2**32 - 1)),
    )
