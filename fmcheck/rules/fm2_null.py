"""FM2, continued: what the unconditional branch may know."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from fmcheck.plan import Plan, Run, Wish
from fmcheck.record.grouping import Evaluation
from fmcheck.record.reading import Reading
from fmcheck.rules.evidence import bitwise, given, require, require_finite, within
from fmcheck.rules.fm8_rows import half_of_digits
from fmcheck.rules.registry import Check, rule


def _two_orders(plan: Plan) -> dict[str, Wish]:
    if plan.subject.spec.initial_state == "text_latent":
        return {"base": plan.base}
    return {"base": plan.base, "rotated": plan.rotated}


@rule("FM209", "prompted-null", wishes=_two_orders)
def prompted_null(runs: Mapping[str, Run]) -> Iterator[Check]:
    """The unconditional velocity does not depend on the prompts.

    How it goes wrong: the halves of one of several text inputs (a pooled vector, a mask, the lengths) are concatenated
    in the other order, the prompt's mask is used for the empty prompt too, or both branches are given the prompt.
    Guidance then pushes away from a part of what was asked for, and pictures only follow their prompts less.

    Checked: the unconditional velocity of the first evaluation, where every row has the noise of its seed, against the
    same with the prompts in another order: the same lengths, the same states, other prompts in every row. Half of the
    digits may be lost, since a network may pad or sort by prompt. Not informative for flows that start at the text,
    whose states depend on the prompts, and where the conditional velocity does not either.

    Fix: build the unconditional inputs from the empty (or negative) prompt alone, all of them, in the declared order.
    Source: classifier-free guidance, arXiv 2207.12598, section 3.2.
    """
    base = runs["base"]
    require("rotated" in runs, "the flow starts at the text, so that the unconditional branch sees it in its state")
    here, there = _first(base), _first(runs["rotated"])
    uncond = given(here.v_uncond, "no unconditional velocity is evaluated")
    other = given(there.v_uncond, "no unconditional velocity is evaluated with the prompts in another order")
    states = [given(found.x_uncond, "the unconditional states are not seen") for found in (here, there)]
    require(bitwise(*states), "the first state depends on the order of the prompts (see FM802)")
    require(uncond.shape == other.shape, "the velocities of the two runs have different shapes")
    require_finite(uncond, other, here.v_cond, there.v_cond)
    used, allowed = float((uncond - other).abs().max()), half_of_digits(base, uncond)
    told = float((here.v_cond - there.v_cond).abs().max())
    require(max(told, used) > allowed, "neither branch depends on the prompts at the first evaluation")
    share = f" ({used / told:.0%} of what the conditional one does)" if told > allowed else ""
    yield within(
        used,
        allowed,
        f"the unconditional velocity changes by {used:.3g} with the prompts{share}",
        where=f"runs base and {runs['rotated'].name}, first evaluation",
        diagnosis="both branches are given something of the prompt: a text, a pooled vector, a mask or a length"
        if told > allowed
        else "the branches are exchanged: the conditional velocity does not depend on the prompts",
    )


def _first(run: Run) -> Evaluation:
    # Guidance that is scaled back to the conditional norm enters both velocities of a reading, and with it the prompt.
    spec = replace(run.subject.spec, guidance_rescale=0.0, guidance_norm="none")
    evaluations = Reading(run.trace, spec).evaluations
    require(bool(evaluations), f"no evaluation of run {run.name!r} can be read")
    return evaluations[0]
