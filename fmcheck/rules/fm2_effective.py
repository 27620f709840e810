"""FM2 on constant velocities: the guidance formula that the whole loop comes down to."""

from collections.abc import Iterator, Mapping
from functools import partial

from fmcheck.oracles import constant_runs
from fmcheck.plan import Run
from fmcheck.rules.effective import Effective
from fmcheck.rules.evidence import measured, require, within
from fmcheck.rules.fm2_explain import explain_weight
from fmcheck.rules.registry import Check, rule


@rule("FM208", "wrong-effective-guidance", conventions=("guidance_formula", "guidance_layout"), wishes=constant_runs)
def wrong_effective_guidance(runs: Mapping[str, Run]) -> Iterator[Check]:
    """Over the whole loop the velocities enter by the declared formula: `end - start = T ((1 + w) c - w u)`.

    How it goes wrong: as in FM203, and in ways that no single step shows: a part of the guidance that is added after
    the loop, a scale that depends on the number of steps, an interval of steps without guidance, a branch that is
    evaluated and not used, a term that belongs to neither velocity.

    Checked: the recorder answers with two constant velocities, one a branch, at four numbers of steps and three scales;
    the way from the initial to the final state is solved for their coefficients, which every solver and grid makes
    exact. Their ratio is the weight (compared here), their sum the covered path (FM505). Not informative where no
    call says which rows are unconditional and the declared layout does not either.

    Fix: combine as the spec's `guidance_formula` says, or declare the other formula. Source: arXiv 2207.12598, eq. 6;
    the flow of a constant field.
    """
    require(
        all(run.subject.spec.guided_throughout for run in runs.values()), "guidance acts in an interval (see FM203)"
    )
    steps = min(run.case.num_steps for run in runs.values())
    for run in runs.values():
        effective, w = Effective(run), run.reading.weight
        found, scale = effective.coefficients, run.case.guidance_scale
        require(abs(found.dt) > effective.path_error, "the state does not move, so no weight can be read (see FM505)")
        if run.case.num_steps == steps:
            yield measured(f"guidance {scale:g} behaves as {found.dt:.6f} u + {found.cond:.6f} (c - u)")
        yield within(
            effective.leftover,
            effective.rounding,
            f"a part of the way of the state, {effective.leftover:.3g} long, is made of neither velocity",
            where=f"run {run.name}",
            diagnosis="something else is added to the state, or parts of it are guided in another way",
        )
        if effective.leftover > effective.rounding:
            continue
        yield within(
            abs(found.weight - w),
            effective.weight_error,
            f"over {run.case.num_steps} steps the loop behaves as {found.dt:.6g} u + {found.cond:.6g} (c - u), "
            f"expected {found.dt:.6g} u + {found.dt * (1 + w):.6g} (c - u) for guidance scale {scale:g}",
            where=f"run {run.name}",
            diagnosis=partial(explain_weight, run.reading, found.weight),
        )
