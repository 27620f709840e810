"""FM2: classifier-free guidance: halves, null indicator, shared state, the formula, not ignored, not applied twice."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from fmcheck.plan import Plan, Run, Wish
from fmcheck.record.reading import Move
from fmcheck.record.trace import Call
from fmcheck.rules.evidence import (
    apart,
    bitwise,
    by_step,
    ends_alike,
    exact,
    idle_guidance,
    require,
    require_finite_move,
    within,
)
from fmcheck.rules.fm2_explain import explain_weight
from fmcheck.rules.registry import Check, rule
from fmcheck.tolerance import fit_bound, fit_errors


@rule(
    "FM201",
    "wrong-null-half",
    conventions=("guidance_layout", "null_means_unconditional"),
    needs=("velocity", "velocity.null"),
)
def wrong_null_half(run: Run) -> Iterator[Check]:
    """The null indicator marks exactly the unconditional rows: `null[unconditional half] = True`, all others False.

    How it goes wrong: the halves are concatenated in one order and the indicator filled in the other; the indicator
    is built for B rows and broadcast; it stays set when guidance is off. The network then answers the wrong
    question in every row, and the picture is guided away from its own prompt.

    Checked: every velocity call of every run against the spec's `guidance_layout` and `null_means_unconditional`;
    over the two calls of a `separate` layout, that as many rows are unconditional as conditional. It cannot see what
    the network does with the indicator (FM204 does).

    Fix: fill the half that the spec names, once, from the same variable that orders the states. Another order is
    declared with `guidance_layout`. Source: classifier-free guidance, arXiv 2207.12598, section 3.2.
    """
    spec = run.subject.spec
    guided, both, separate = run.reading.guided, run.reading.both_branches, spec.guidance_layout.startswith("separate")
    marked = unmarked = 0
    for call in run.trace.of("velocity"):
        null, rows = _null_of(call)
        if null is None:
            yield exact(not guided, f"{call.name}: guidance is on but no null indicator was passed", where=call.name)
            continue
        if null.dim() != 1 or len(null) != rows or rows > 2 * run.case.batch:
            continue  # FM103 and FM300 have it
        flags = null.bool().cpu() == spec.null_means_unconditional
        doubled = call.number in run.reading.doubled_calls
        if separate or (both and not doubled):
            # A branch, or a piece cut out of the doubled batch: only all of them together can be judged.
            marked, unmarked = marked + int(flags.sum()), unmarked + int((~flags).sum())
        else:
            yield _halves_marked(call, flags, doubled=doubled, spec_first=spec.guidance_layout)
    one_branch = run.case.batch * run.case.num_steps * spec.stages
    # Where the unconditional branch is not evaluated at all, FM204 says so.
    if (marked or unmarked) and (separate or marked or unmarked > one_branch):
        expected = unmarked if both else 0
        yield exact(
            marked == expected,
            f"{marked} rows were marked unconditional and {unmarked} conditional; expected {expected} unconditional",
        )


def _null_of(call: Call) -> tuple[Tensor | None, int]:
    null, x = call.inputs.get("null"), call.inputs.get("x")
    rows = len(x) if isinstance(x, Tensor) and x.dim() else 0
    return (null if isinstance(null, Tensor) else None), rows


def _halves_marked(call: Call, flags: Tensor, *, doubled: bool, spec_first: str) -> Check:
    expected = torch.zeros_like(flags)
    if doubled:
        half = slice(None, len(flags) // 2) if spec_first == "uncond_first" else slice(len(flags) // 2, None)
        expected[half] = True

    def cause() -> str | None:
        if torch.equal(flags, ~expected):
            return "the indicator is inverted: it marks the conditional half"
        if not bool(flags.any()):
            return "the indicator is never set, so both halves are conditional"
        return "every row is marked unconditional" if bool(flags.all()) else None

    if torch.equal(flags, expected):
        return exact(True, "", where=call.name)
    message = f"unconditional rows are {_rows(flags)}, expected {_rows(expected)} (layout {spec_first})"
    return exact(False, message, where=call.name, diagnosis=cause)


def _rows(flags: Tensor) -> str:
    marked = flags.nonzero().flatten().tolist()
    return f"{marked} of {len(flags)}" if marked else f"none of {len(flags)}"


@rule("FM202", "halves-differ")
def halves_differ(run: Run) -> Iterator[Check]:
    """Both branches of an evaluation see one state and one time: `x_cond == x_uncond` bit for bit.

    How it goes wrong: only one half is updated after the first step, noise is drawn for 2B rows, the unconditional
    half starts from another latent. `v_cond - v_uncond` then measures the distance of two states, and guidance
    amplifies it.

    Checked: every evaluation with two branches. Times of the rows are FM308.

    Fix: keep a state of B rows and build `torch.cat([x, x])` anew in every step. Source: arXiv 2207.12598,
    algorithm 2, where both scores are taken at one `z_t`.
    """
    for k, evaluation in enumerate(run.reading.evaluations):
        if evaluation.x_uncond is not None:
            same = bitwise(evaluation.x_cond, evaluation.x_uncond)
            message = "" if same else apart(evaluation.x_cond, evaluation.x_uncond)
            yield exact(same, f"the two branches are given different states: {message}", where=f"evaluation {k}")


@rule("FM203", "wrong-guidance", conventions=("guidance_formula", "guidance_layout", "guidance_from"))
def wrong_guidance(run: Run) -> Iterator[Check]:
    """The velocity that moves the state is the declared combination: `v = (1 + w) v_cond - w v_uncond`.

    How it goes wrong: halves swapped on the way back, `u + w (c - u)` with a scale meant for the other convention,
    the difference added to the wrong branch, guidance applied twice, a default scale used in place of the caller's.

    Checked: the change of the state in every move is solved for its coefficients in the two recorded velocities,
    which gives the weight that the loop really used, whatever its code looks like. A change that is no combination
    of the two is FM501. Not informative where both velocities are parallel (a zero-initialised output layer).

    Fix: combine as the spec's `guidance_formula` says, or declare the other formula. Source: arXiv 2207.12598, eq. 6.
    """
    reading = run.reading
    require(reading.guided, f"guidance is off at scale {run.case.guidance_scale:g}")
    for move in reading.moves:
        if move.uncond is None:
            continue  # FM204 has it
        require_finite_move(move)
        if weight_is_readable(run, move):
            yield weight_check(run, move)


def weight_is_readable(run: Run, move: Move) -> bool:
    observed = move.coefficients
    if not observed.determined or observed.dt == 0 or move.alike:
        return False
    # Where not even ignored guidance could be told from the right one, nothing is.
    allowed = fit_errors(move).weight(observed.dt, move.weight)
    return allowed < (abs(move.weight) or 1.0) and bool((move.leftover <= fit_bound(move)).all())


def weight_check(run: Run, move: Move) -> Check:
    allowed = fit_errors(move).weight(move.coefficients.dt, move.weight)
    w, observed = move.weight, move.coefficients.weight
    return within(
        abs(observed - w),
        allowed,
        f"the loop behaves as u + {1 + observed:.6g} (c - u), expected u + {1 + w:.6g} (c - u) "
        f"for guidance scale {run.case.guidance_scale:g}",
        where=by_step(run, move.step),
        diagnosis=lambda: explain_weight(run.reading, observed),
    )


def scales(plan: Plan) -> dict[str, Wish]:
    return {"base": plan.base, "unguided": plan.unguided, "other": plan.other_scale}


def _all_and_scales(plan: Plan) -> dict[str, Wish]:
    return {**{f"plain {wish.name}": wish for wish in plan.plain}, **scales(plan)}


@rule(
    "FM204",
    "guidance-ignored",
    conventions=("guidance_layout", "guidance_from", "guidance_interval"),
    wishes=_all_and_scales,
)
def guidance_ignored(runs: Mapping[str, Run]) -> Iterator[Check]:
    """Guidance has an effect when it is on: the unconditional branch is evaluated, differs, and moves the result.

    How it goes wrong: the scale never reaches the loop, the null indicator never reaches the network, both halves
    are conditional, the rescaled prediction is computed and thrown away. Pictures look plausible and a little dull.

    Checked: that every guided run evaluates v_uncond in all its steps, that it differs from v_cond in the native case,
    and that three guidance scales give three results. Not informative when every velocity is zero (an untrained
    zero-initialised output layer).

    Fix: pass the scale and the indicator all the way down. Source: arXiv 2207.12598, section 3.2.
    """
    base = runs["base"]
    told = base.subject.spec.guidance_layout == "embedded"
    require(told or base.reading.guided, "guidance is off in the native case; give the subject a guided one")
    evaluations = base.reading.evaluations
    require(any(bool(e.v_cond.any()) for e in evaluations), "every velocity is zero (zero-initialised output layer?)")
    idle = idle_guidance(base)
    require(not idle, idle)
    for name, run in runs.items():
        if name.startswith("plain ") and run.reading.unreadable is None and run.reading.guided:
            yield _both_evaluated(run)
    uncond = [e for e in evaluations if e.v_uncond is not None]
    if uncond:
        differ = any(e.v_uncond is not None and not torch.equal(e.v_cond, e.v_uncond) for e in uncond)
        yield exact(
            differ,
            "conditional and unconditional velocities are equal in every step, so guidance cannot act",
            where="run base",
            diagnosis=_why_equal(base),
        )
    yield from _scales_matter(base, runs)


def _why_equal(run: Run) -> str:
    if run.subject.points["velocity"].arguments.get("null") is None:
        return "both branches get the same condition: the null one does not reach the network"
    return "the null indicator does not reach the network, or marks nothing"


def _scales_matter(base: Run, runs: Mapping[str, Run]) -> Iterator[Check]:
    for name in ("unguided", "other"):
        if runs[name].case.guidance_scale == base.case.guidance_scale:
            continue
        yield exact(
            not ends_alike(base, runs[name]),
            f"guidance scales {base.case.guidance_scale:g} and {runs[name].case.guidance_scale:g} give the same images",
            where=f"runs base and {runs[name].name}",
            diagnosis="the scale does not reach the loop",
        )


def _both_evaluated(run: Run) -> Check:
    evaluations = run.reading.evaluations
    alone = [k for k, e in enumerate(evaluations) if e.v_uncond is None and run.reading.weight_at(e.time)]
    return exact(
        not alone,
        f"guidance scale {run.case.guidance_scale:g} asked for, but no unconditional velocity was evaluated in "
        f"{len(alone)} of {len(evaluations)} evaluations (first in evaluation {alone[0] if alone else 0})",
        where=f"run {run.name}",
        diagnosis="guidance acts in an interval of the steps; if that is meant, declare FlowSpec.guidance_interval"
        if len(alone) < len(evaluations)
        else None,
    )


@rule("FM205", "guidance-not-off", conventions=("guidance_formula", "guidance_from"))
def guidance_not_off(run: Run) -> Iterator[Check]:
    """At the neutral scale guidance has no effect: the state moves along v_cond alone (`w = 0`, or `s = 1`).

    How it goes wrong: `scale or default` turns 0 into the default, the neutral scale of the other formula is used,
    an offset is added to the scale.

    Checked: the weight recovered from every move of the runs at the neutral scale. Where the unconditional branch is
    not evaluated at all there is nothing that could act, which is right too.

    Fix: test for `None`, not for truth; take the neutral scale from the formula. Source: arXiv 2207.12598, eq. 6.
    """
    reading = run.reading
    require(not reading.guided, f"guidance is on at scale {run.case.guidance_scale:g}")
    for move in reading.moves:
        where = by_step(run, move.step)
        if move.uncond is None:
            yield exact(True, "", where=where)
            continue
        require_finite_move(move)
        observed = move.coefficients
        if not observed.determined or observed.dt == 0 or move.alike:
            continue
        allowed = fit_errors(move).weight(observed.dt, 0.0)
        # Nearly parallel velocities cannot tell a weight of 1 from none; what is no combination of them is FM501.
        if not allowed < 1 or not bool((move.leftover <= fit_bound(move)).all()):
            continue
        yield within(
            abs(observed.weight),
            allowed,
            f"at the neutral scale {run.case.guidance_scale:g} the loop behaves as "
            f"u + {1 + observed.weight:.6g} (c - u)",
            where=where,
        )
