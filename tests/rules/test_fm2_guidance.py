"""FM2 on hand-written loops whose guidance is wrong in one place."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fmcheck.case import Case
from tests.rules.loops import (
    Pipeline,
    Style,
    but,
    caught,
    clean,
    failing,
    judge,
    loop_subject,
    outcomes,
    run_of,
    silent,
)

CODES = ["FM201", "FM202", "FM203", "FM204", "FM205", "FM206"]


class InvertedNull(Pipeline):
    def ask(self, x: Tensor, t: Tensor, null: Tensor) -> Tensor:
        return super().ask(x, t, ~null if bool(null.any()) else null)


class NullNever(Pipeline):
    def ask(self, x: Tensor, t: Tensor, null: Tensor) -> Tensor:
        return super().ask(x, t, torch.zeros_like(null))


class StaleHalf(Pipeline):
    """Only the conditional half is updated."""

    def integrate(self, x: Tensor, steps: int, scale: float) -> Tensor:
        self.kept = x
        return super().integrate(x, steps, scale)

    def branches(self, x: Tensor, t: Tensor, guided: bool) -> tuple[Tensor, Tensor | None]:
        null = torch.arange(2 * len(x)) >= len(x)
        return self.ask(torch.cat([x, self.kept]), t, null).chunk(2)


def weighted(change: Any) -> type[Pipeline]:
    """A pipeline that combines `(cond, uncond, scale)` in another way."""

    class Weighted(Pipeline):
        def combine(self, cond: Tensor, uncond: Tensor | None, scale: float) -> Tensor:
            return change(cond, uncond, scale)

    return Weighted


class ByStep(Pipeline):
    """Guidance that depends on the step: `weight(k, K)` times the scale."""

    def integrate(self, x: Tensor, steps: int, scale: float) -> Tensor:
        edges = self.edges(steps)
        for k in range(steps):
            x = self.step(x, edges[k], edges[k + 1], scale * self.weight(k, steps), k + 1 == steps)
        return x

    def weight(self, k: int, steps: int) -> float:
        return 1.0


class UnguidedFirst(ByStep):
    def weight(self, k: int, steps: int) -> float:
        return float(k > 0)


class UnguidedLast(ByStep):
    def weight(self, k: int, steps: int) -> float:
        return float(k < steps - 1)


class Schedule(ByStep):
    def weight(self, k: int, steps: int) -> float:
        return 1 - k / (2 * steps)


class DefaultScale(Pipeline):
    def combine(self, cond: Tensor, uncond: Tensor | None, scale: float) -> Tensor:
        return super().combine(cond, uncond, scale or 2.5)


class GuidedStart(ByStep):
    def integrate(self, x: Tensor, steps: int, scale: float) -> Tensor:
        return super().integrate((1 + scale) * x - scale * 0.9 * x, steps, scale)


class Deaf(Pipeline):
    """Conditional and unconditional velocities are equal."""

    def field(self, x: Tensor, t: Tensor, null: Tensor) -> Tensor:
        return super().field(x, t, 0 * null)


class Untrained(Pipeline):
    def field(self, x: Tensor, t: Tensor, null: Tensor) -> Tensor:
        return torch.zeros_like(x)


@pytest.mark.parametrize("layout", ["cond_first", "uncond_first", "separate", "separate_uncond_first"])
@pytest.mark.parametrize("parts", [0, 1, 2])
@pytest.mark.parametrize("both", [True, False])
def test_every_layout_and_micro_batch_passes(layout: str, parts: int, both: bool) -> None:
    style = Style(parts=parts, both=both, null=layout != "separate_uncond_first")
    for outcome in outcomes(CODES[0 if style.null else 1 :], spec=but(guidance_layout=layout), style=style).values():
        clean(outcome)


def test_an_inverted_indicator_is_named() -> None:
    found = failing(InvertedNull)
    caught(
        found["FM201"], "the indicator is inverted", "unconditional rows are [0, 1, 2] of 6, expected [3, 4, 5] of 6"
    )
    assert set(found) == {"FM201"}


def test_an_indicator_that_is_never_set_is_named() -> None:
    found = failing(NullNever)
    caught(found["FM201"], "the indicator is never set")
    caught(found["FM204"], "the null indicator does not reach the network")


def test_a_missing_indicator_argument_skips_only_its_own_rule() -> None:
    style = Style(null=False)
    assert judge("FM201", style=style).status == "skipped"
    clean(judge("FM203", style=style))


def test_halves_with_different_states_are_seen() -> None:
    caught(judge("FM202", StaleHalf), "two branches are given different states", "evaluation 1")


# v = (1 + w) c - w u at w = 2.5 is u + 3.5 (c - u); what each slip makes of it, by hand.
SLIPS = [
    (lambda c, u, w: c, 1.0, "guidance is ignored"),
    (lambda c, u, w: u, 0.0, "moves along v_uncond alone"),
    (lambda c, u, w: (1 + w) * u - w * c, -2.5, "the halves are swapped"),
    (lambda c, u, w: u + w * (c - u), 2.5, "used as u + w (c - u)"),
    (lambda c, u, w: c - w * (c - u), -1.5, "wrong sign"),
    (lambda c, u, w: (2 + w) * c - (1 + w) * u, 4.5, "(1 + s) c - s u"),
    (lambda c, u, w: (1 + w) * ((1 + w) * c - w * u) - w * u, 12.25, "guidance is applied twice"),
    (lambda c, u, w: (1 + 2 * w) * c - 2 * w * u, 6.0, "the weight is doubled"),
    (lambda c, u, w: (1 + 1.02 * w) * c - 1.02 * w * u, 3.55, "1.02 times the declared one"),
    (lambda c, u, w: (1 + min(w, 2)) * c - min(w, 2) * u, 3.0, "0.8 times the declared one"),
]


@pytest.mark.parametrize(("combine", "strength", "cause"), SLIPS, ids=[cause for *_, cause in SLIPS])
def test_a_wrong_combination_is_read_from_the_state(combine: Any, strength: float, cause: str) -> None:
    outcome = judge("FM203", weighted(combine))
    caught(outcome, cause, "expected u + 3.5 (c - u)")
    told = next(f.message for f in outcome.findings if f.run == "base")
    assert float(told.split("u + ")[1].split(" ")[0]) == pytest.approx(strength, abs=1e-4)


def test_a_ten_thousandth_of_the_weight_is_enough() -> None:
    caught(judge("FM203", weighted(lambda c, u, w: (1 + 1.0001 * w) * c - 1.0001 * w * u)), "1.0001 times")


@pytest.mark.parametrize(("loop", "step"), [(UnguidedFirst, 0), (UnguidedLast, 3)])
def test_an_unguided_step_is_found_and_called_an_interval(loop: type[Pipeline], step: int) -> None:
    outcome = judge("FM203", loop)
    caught(outcome, "guidance is ignored", "an interval of guidance", f"step {step} of 4")
    base = [f.where for f in outcome.findings if f.run == "base"]
    assert base == [f"run base, step {step} of 4"]


def test_a_schedule_says_that_it_cannot_be_declared() -> None:
    caught(judge("FM203", Schedule), "a schedule", "no field of FlowSpec declares")


def test_an_interval_without_the_unconditional_branch_is_counted() -> None:
    outcome = judge("FM204", UnguidedLast, style=Style(both=False))
    caught(outcome, "in 1 of 4 evaluations (first in evaluation 3)", "an interval of the steps")


def test_a_default_in_place_of_zero_is_caught_at_the_neutral_scale() -> None:
    caught(judge("FM205", DefaultScale), "at the neutral scale 0 the loop behaves as u + 3.5 (c - u)")
    clean(judge("FM203", DefaultScale))


def test_a_guided_initial_state_is_caught() -> None:
    caught(judge("FM206", GuidedStart), "initial state changes with the guidance scale")


def test_equal_branches_cannot_show_a_weight() -> None:
    assert judge("FM203", Deaf).status == "not informative"
    assert judge("FM205", Deaf).status == "not informative"
    caught(judge("FM204", Deaf), "velocities are equal in every step")


def test_an_untrained_network_says_nothing() -> None:
    for code in ("FM203", "FM205"):
        assert judge(code, Untrained).status == "not informative"
    silent(judge("FM204", Untrained), "every velocity is zero")


def test_a_native_case_without_guidance_says_so() -> None:
    silent(judge("FM204", case=Case(height=16, width=16, guidance_scale=0.0)), "guidance is off in the native case")


def test_guidance_only_above_one_is_declared() -> None:
    class Above(Pipeline):
        def velocity(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
            return super().velocity(x, t, scale) if scale > 1 else self.branches(x, t, False)[0]

    spec = but(guidance_formula="uncond_plus", guidance_from=1.0)
    assert not failing(Above, spec=spec, style=Style(both=False))
    run = run_of(loop_subject(Above, spec=spec, style=Style(both=False)), guidance_scale=0.5)
    assert run.reading.weight == 0
