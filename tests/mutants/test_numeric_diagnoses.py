"""Every numeric mutant is caught with the right cause: the diagnosis says what was done to the loop."""

import pytest

from fmcheck.mutants import all_mutants, get_mutant
from fmcheck.rules import get_rule
from fmcheck.run import Session
from fmcheck.subject import Subject

# Rules of the arithmetic, whose mutants must all stand below.
NUMERIC = ("FM208", "FM311", "FM503", "FM504", "FM505", "FM506", "FM507", "FM508", "FM909")
CAUSES = {
    "weight_one_too_large": "(1 + s) c - s u although it is an s for u + s (c - u)",
    "coefficients_swapped": "the halves are swapped",
    "weight_halved": "the weight is halved",
    "weight_a_thousandth_off": "the weight is 1.001 times the declared one",
    "weight_spread_over_the_steps": "the weight is halved",
    "guided_in_the_middle_only": "a schedule or an interval of guidance",
    "bias_beside_the_velocities": "something else is added to the state",
    "log_snr_cast_to_the_networks_dtype": "rounded to bfloat16 before it is embedded",
    "log_snr_in_bfloat16": "rounded to bfloat16 before it is embedded",
    "time_looked_up_in_a_table": "looked up in a coarse table",
    "time_embedded_in_percent": "looked up in a coarse table",
    "heun_told_a_stale_time": "the second stage is told the time of the first",
    "heun_at_a_stale_state": "the second stage is evaluated at the state of the first",
    "heun_keeps_its_predictor": "Euler steps where heun is declared",
    "midpoint_moved_by_the_first_stage": "Euler steps where midpoint is declared",
    "midpoint_at_a_stale_state": "the second stage is evaluated at the state of the first",
    "error_that_stays": "no number of steps makes it vanish",
    "evaluated_a_quarter_into_the_step": "evaluated 0.25 of the step after its left edge",
    "evaluated_at_the_middle_of_the_path": "evaluated at t = 0.5 in every step",
    "evaluated_at_the_time_before": "evaluated at the time of the step before",
    "evaluated_at_mirrored_times": "evaluated at 1 - t",
    "midpoints_in_bfloat16": "the evaluation times are rounded to bfloat16",
    "steps_between_midpoints": "from one evaluation time to the next, not from edge to edge",
    "steps_a_thousandth_too_long": "every step is 1.001 times as long as declared",
    "two_step_method_undeclared": "a two-step method (Adams-Bashforth)",
    "channels_moved_on_by_one": "the velocity is moved on by one along the channels",
    "state_scaled_after_the_loop": "changed after the loop: 1.001 times the declared one",
    "start_added_again_at_the_end": "+0.01 times the initial one",
    "last_step_backwards": "the last step is made backwards",
    "state_damped": "damped beside the velocity: -0.01 x",
    "shift_applied_twice": "the grid is shifted once more, by 3",
    "shift_in_the_other_direction": "the shift is applied in the other direction: 1 / 3",
    "clamped_where_steps_are_many": "never integrated goes from 0.00% to 4.74%",
    "grid_ends_early": "0.10% of the path is never integrated, and no number of steps repairs it",
    "grid_begins_late": "2.00% of the path is never integrated, and no number of steps repairs it",
    "steps_counted_with_the_end": "every step is divided by K + 1 in place of K",
    "first_step_forgotten": "is left out (step 0 of 4)",
    "last_step_repeated_after_the_loop": "is made twice (step 3 of 4)",
    "edges_of_one_more_step": "the grid is that of one step more, and its last step is left out",
    "state_in_bfloat16_between_steps": "small steps are lost in the state",
    "small_increments_skipped": "small steps are lost in the state",
    "state_cut_off_to_twelve_bits": "small steps are lost in the state",
    "compensation_with_the_wrong_sign": "rounded to a short dtype, or noise of that size",
    "grid_in_float64": "promoted by a float64 tensor",
    "guidance_scale_in_float64": "promoted by a float64 tensor",
    "combined_in_float16": "the velocities are combined in float16",
    "difference_scaled_in_float16": "the velocities are combined in float16",
    "training_runs_from_data_to_text": "training runs from data to source",
    "target_is_noise_minus_data": "the sign of the target is that of the other convention",
    "target_predicts_the_data": "the target is the data end",
    "target_predicts_the_source": "the target is the source end",
    "target_a_hundredth_short": "0.99 of the way from source to data",
    "target_with_another_sigma_min": "training leaves 0.01 of the source at the data end",
    "sampler_runs_backwards": "the sampler ends at +2 x0 -1 x1",
}
# One of every kind; CI runs the others too.
TELLING = {
    "weight_one_too_large",
    "log_snr_in_bfloat16",
    "heun_told_a_stale_time",
    "error_that_stays",
    "evaluated_at_the_time_before",
    "steps_a_thousandth_too_long",
    "two_step_method_undeclared",
    "shift_applied_twice",
    "grid_begins_late",
    "edges_of_one_more_step",
    "compensation_with_the_wrong_sign",
    "combined_in_float16",
    "target_with_another_sigma_min",
}


def test_every_numeric_mutant_has_its_cause() -> None:
    assert {entry.name for entry in all_mutants() if entry.caught_by in NUMERIC} == set(CAUSES)
    assert len(CAUSES) >= 40


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in TELLING else pytest.mark.slow) for name in CAUSES]
)
def test_the_cause_is_named(name: str, tiny: Subject) -> None:
    entry = get_mutant(name)
    outcome = Session(entry.change(tiny)).judge(get_rule(entry.caught_by))
    causes = [str(finding.diagnosis) for finding in outcome.findings]
    assert any(CAUSES[name] in cause for cause in causes), causes or outcome.reason
