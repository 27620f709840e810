"""FM2, continued: what a guidance scale may not touch, and scales that nobody has as a default."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from fmcheck.plan import Plan, Run, Wish
from fmcheck.rules.evidence import apart, bitwise, by_step, exact, require
from fmcheck.rules.fm2_guidance import scales, weight_check, weight_is_readable
from fmcheck.rules.registry import Check, rule


@rule("FM206", "guided-initial-state", wishes=scales)
def guided_initial_state(runs: Mapping[str, Run]) -> Iterator[Check]:
    """Guidance acts on the velocity only: the initial state is the same, bit for bit, at every guidance scale.

    How it goes wrong: `x = (1 + w) z_cond - w z_uncond` before the loop, on top of or instead of the guided velocity.
    The start leaves the distribution that the flow was trained from.

    Checked: the state of the first evaluation at three guidance scales, same seed and prompts.

    Fix: start from the conditional latent alone. Source: CrossFlow, arXiv 2412.15213, section on the CFG indicator.
    """
    base = runs["base"]
    for name in ("unguided", "other"):
        other = runs[name]
        start, here = base.reading.initial, other.reading.initial
        yield exact(
            bitwise(start, here),
            f"the initial state changes with the guidance scale ({base.case.guidance_scale:g} against "
            f"{other.case.guidance_scale:g}): {apart(start, here)}",
            where=f"runs base and {other.name}",
            diagnosis="guidance is mixed into the initial state",
        )


def _extremes(plan: Plan) -> dict[str, Wish]:
    # Numbers that nobody has as a default or as a limit.
    weights = {"negative": -0.5625, "fraction": 0.1875, "large": 19.4375}
    return {name: plan.extreme_scale(f"{name}-guidance", weight) for name, weight in weights.items()}


@rule(
    "FM207",
    "limited-guidance",
    conventions=("guidance_formula", "guidance_from", "guidance_interval"),
    wishes=_extremes,
    judges_crashes=True,
)
def limited_guidance(runs: Mapping[str, Run]) -> Iterator[Check]:
    """The formula holds for every scale, or the scale is refused: `v = (1 + w) v_cond - w v_uncond` is affine in `w`.

    How it goes wrong: a cap that nobody asked for, `if scale > 0` (or `> 1`) that switches a negative weight off and
    with it the negative prompt's opposite, a scale that is clamped to [0, 1] or cast to an integer on the way.

    Checked: the weight that the loop really used, solved from the change of the state as in FM203, at a negative
    weight, at one below 1 and at one above 19. A pipeline that raises is right too; one that makes no unconditional
    velocity at a negative weight is a warning. Scales that the spec calls off (`guidance_from`) are not asked for.

    Fix: use the scale as it is, or raise; where small scales mean "off", declare `guidance_from`. Source: arXiv
    2207.12598, eq. 6; property A of the collected defects.
    """
    guided = [run for run in runs.values() if run.failure is None and run.reading.guided]
    require(bool(guided), "every one of these scales raises, or is off by the spec")
    for run in guided:
        for move in run.reading.full_moves:
            if move.uncond is None and move.weight == 0:
                continue  # outside of the declared interval
            if move.uncond is None:
                yield exact(
                    False,
                    f"guidance scale {run.case.guidance_scale:g} asked for, but no unconditional velocity evaluated",
                    where=f"run {run.name}, {by_step(run, move.step)}",
                    # Many code bases switch guidance off below the neutral scale, and only forget to say so.
                    severity="warning" if run.reading.weight < 0 else "error",
                    diagnosis="the scale is taken for one that means off; declare guidance_from if it does",
                )
            elif weight_is_readable(run, move):
                yield replace(weight_check(run, move), where=f"run {run.name}, {by_step(run, move.step)}")
