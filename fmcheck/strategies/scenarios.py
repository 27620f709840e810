"""Scenarios: one call, or a few on one model object; and rules that make runs of their own around the last one."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import strategies as st

from fmcheck.scenario import Call, Scenario
from fmcheck.strategies.axes import Domain, guidance_scales, prompt_lists, seeds, step_counts
from fmcheck.strategies.cases import calls, cases
from fmcheck.subject import Subject

__all__ = ["scenarios"]

_MOST_CALLS, _MOST_ASKED = 3, 4
# Rules that are asked make some ten runs, so their case costs less.
_ASKING = 4


@st.composite
def scenarios(
    draw: st.DrawFn,
    subject: Subject,
    domain: Domain | None = None,
    *,
    asks: Sequence[str] = (),
    devices: Sequence[str] | None = None,
) -> Scenario:
    """Scenarios whose calls together keep the budget.

    A second and third call of one object are often the one before with one thing changed: that is where a cache that
    is keyed by too little shows.

    Args:
        asks: codes of rules that may be asked for around the last call.
        devices: by default that of the native case.
    """
    filled = (domain or Domain()).of(subject)
    # No more calls than the budget has cells for.
    count = min(draw(st.sampled_from((1,) * 5 + (2,) * 2 + (_MOST_CALLS,))), _affordable(filled, subject))
    asked = _asked(draw, asks) if count == 1 else ()
    share = replace(filled, budget=max(1, (filled.budget or 1) // (_ASKING if asked else count)))
    fresh = cases(subject, share, devices=devices)
    made = [draw(calls(subject, share, case=fresh))]
    while len(made) < count:
        changed = draw(st.booleans())
        made.append(_changed(draw, made[-1], subject, share) if changed else draw(calls(subject, share, case=fresh)))
    if asked:
        made = [replace(call, kind="generate", tokens="plain", global_seed=None) for call in made]
    return Scenario(tuple(made), asked)


def _asked(draw: st.DrawFn, asks: Sequence[str]) -> tuple[str, ...]:
    if not asks or not draw(st.booleans()):
        return ()
    return tuple(draw(st.lists(st.sampled_from(asks), min_size=1, max_size=_MOST_ASKED, unique=True)))


def _changed(draw: st.DrawFn, call: Call, subject: Subject, domain: Domain) -> Call:
    """The call before with one thing changed, or with nothing changed."""
    case, budget = call.case, domain.of(subject).budget or 1
    what = draw(st.sampled_from(["nothing", "turned", "size", "batch", "steps", "scale", "seed", "prompts"]))
    if what == "turned" and (subject.sizes is None or (case.width, case.height) in subject.sizes):
        return call.but(height=case.width, width=case.height)
    if what == "size":
        other = draw(cases(subject, domain))
        pixels = other.height * other.width
        steps = min(case.num_steps, max(1, budget // pixels))
        rows = max(1, budget // (pixels * steps))
        return call.but(height=other.height, width=other.width, num_steps=steps, prompts=case.prompts[:rows])
    if what == "batch":
        most = max(1, min(domain.max_batch, budget // (call.cost // case.batch)))
        return call.but(prompts=draw(prompt_lists(subject, draw(st.integers(1, most)))), tokens="plain")
    if what == "steps":
        most = max(1, min(domain.max_steps, budget // (call.cost // case.num_steps)))
        return call.but(num_steps=draw(step_counts(most)))
    if what == "scale":
        return call.but(guidance_scale=draw(guidance_scales(subject.spec, domain.weights)))
    if what == "seed":
        return call.but(seed=draw(seeds()))
    if what == "prompts":
        return call.but(prompts=draw(prompt_lists(subject, case.batch)), tokens="plain")
    return call


def _affordable(domain: Domain, subject: Subject) -> int:
    return max(1, (domain.budget or 1) // subject.spec.multiple**2)
