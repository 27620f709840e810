"""Odd mutants: the standard plan misses each of them, and a scenario of one or two calls shows it to its rule."""

import pytest

from fmcheck.case import Case
from fmcheck.mutants import all_mutants, get_mutant
from fmcheck.rules import all_rules
from fmcheck.run import check
from fmcheck.scenario import Call, Scenario
from fmcheck.subject import Subject
from fmcheck.trial import Bench

ODD = all_mutants(odd=True)

_SENTENCE = "a large red circle on a blue background, top left"
_LONGER = "a small green cross on a white background, bottom right center"


def _call(batch: int = 1, h: int = 2, w: int = 2, steps: int = 1, scale: float = 0.0, **rest) -> Call:
    """One call with small numbers; sizes are in cells of 32 pixels, `prompts` are repeated for the batch."""
    of_call = {name: rest.pop(name) for name in ("kind", "tokens") if name in rest}
    case = Case(height=32 * h, width=32 * w, num_steps=steps, guidance_scale=scale, **rest)
    return Call(case=case if "prompts" in rest else case.with_batch(batch), **of_call)


def _one(*numbers, asks: tuple[str, ...] = (), **rest) -> Scenario:
    return Scenario((_call(*numbers, **rest),), asks)


# A minimal scenario that shows each: batch, cells high, cells wide, steps, guidance weight.
WITNESSES = {
    # Shapes
    "cells_updated_in_pairs": _one(1, 1, 3, 2),
    "sides_clamped_to_four_to_one": _one(1, 5, 1),
    "all_axes_of_one_squeezed": _one(2, 2, 1, scale=1.0),
    "tiles_without_the_remainder": _one(1, 1, 17),
    "channels_found_by_their_number": _one(1, 4, 8, 2),
    "weights_given_axes_until_they_fit": _one(1, 2, 1, 2, scale=1.0),
    "fallback_warns_if_both_sides_differ": _one(1, 8, 1),
    "position_table_grows_with_the_side": _one(1, 1, 17),
    # Scales
    "scale_held_in_float16": _one(scale=2.3),
    "scale_of_one_taken_for_off": _one(scale=1.0),
    "negative_share_of_cond_refused": _one(scale=-2.0),
    "share_of_zero_taken_for_unset": _one(scale=-1.0),
    "scale_capped_at_thirty": _one(scale=100.0),
    "state_clamped_to_a_hundred": _one(steps=2, scale=1000.0),
    "tanh_by_exponentials": _one(scale=1000.0),
    "state_takes_the_velocitys_dtype": _one(2, dtype="bfloat16"),
    # Steps
    "grid_summed_up_to_one": _one(steps=6),
    "quantiles_from_a_table": _one(steps=7),
    "steps_run_in_blocks_of_ten": _one(steps=11),
    # Training
    "training_start_for_width_by_height": _one(2, 2, 3, kind="loss"),
    "loss_divided_by_the_spread_of_the_batch": _one(kind="loss"),
    # Texts
    "special_tokens_masked": _one(prompts=("",)),
    "empty_prompts_marked_unconditional": _one(prompts=("",)),
    "empty_prompts_start_at_noise": _one(prompts=("",)),
    "word_written_into_empty_prompts": _one(prompts=("", "a")),
    "long_prompts_become_rows": _one(prompts=(_LONGER,)),
    "masked_tokens_blanked_in_place": _one(prompts=("", "a"), tokens="masked"),
    # Histories
    "positions_cached_by_both_sides": Scenario((_call(1, 1, 2), _call(1, 2, 1))),
    "resizing_cached_by_area": Scenario((_call(1, 1, 4), _call(1, 2, 2))),
    "cell_width_cached_by_rows": Scenario((_call(1, 1, 1), _call(1, 1, 2))),
    "guidance_decided_by_the_first_call": Scenario((_call(), _call(scale=1.0))),
    "text_length_set_by_the_first_call": Scenario((_call(prompts=("",)), _call(prompts=("a",)))),
    # Randomness
    "seed_kept_in_32_bits": _one(seed=2**31),
    "fallback_starts_at_the_mean": _one(2, asks=("FM705",)),
    "resized_pictures_dithered_by_the_process_seed": _one(asks=("FM706",)),
}


def test_there_are_many_odd_mutants():
    assert len(ODD) >= 20


def test_every_odd_mutant_has_a_witness_and_every_witness_a_mutant():
    assert sorted(WITNESSES) == sorted(entry.name for entry in ODD)


def test_few_need_a_rule_that_is_asked_for():
    assert sum(bool(scenario.asks) for scenario in WITNESSES.values()) <= 8


def test_odd_mutants_name_known_rules_and_describe_themselves_in_a_sentence():
    known = {rule.code for rule in all_rules()}
    assert not [entry.name for entry in ODD if entry.caught_by not in known or not entry.summary.endswith(".")]


def test_odd_mutants_are_listed_only_when_asked_for():
    usual, both = all_mutants(), all_mutants(odd=None)
    assert not [entry.name for entry in usual if entry.odd]
    assert len(both) == len(usual) + len(ODD)
    assert get_mutant(ODD[0].name) is ODD[0]


@pytest.mark.parametrize("entry", ODD, ids=lambda m: f"{m.caught_by}-{m.name}")
def test_the_witness_shows_the_mutant_to_its_rule(entry, tiny: Subject):
    verdict = Bench(entry.change(tiny)).judge(WITNESSES[entry.name])
    assert not verdict.refused
    assert entry.caught_by in verdict.failing(), [str(finding) for finding in verdict.findings]


@pytest.mark.parametrize("name", WITNESSES)
def test_the_clean_model_passes_the_witness(name: str, tiny: Subject):
    verdict = Bench(tiny).judge(WITNESSES[name])
    assert not verdict.refused
    assert verdict.failing() == []
    assert get_mutant(name).caught_by in verdict.judged


# Rules about whole loops ask for so many steps, or for losses at so small a size, that they meet these on their way,
# and the trained decoder meets the overflow at the scale that FM207 asks for.
SEEN_BY_OTHERS = {
    "steps_run_in_blocks_of_ten": {"FM503", "FM504", "FM505", "FM208"},
    "weights_given_axes_until_they_fit": {"FM909"},
    "tanh_by_exponentials": {"FM109"},
}


@pytest.mark.slow
@pytest.mark.parametrize("entry", ODD, ids=lambda m: m.name)
def test_the_standard_plan_misses_the_mutant(entry, tiny: Subject):
    report = check(entry.change(tiny))
    found = {finding.code for finding in report.findings if finding.severity == "error"}
    assert found <= SEEN_BY_OTHERS.get(entry.name, set())
    assert bool(found) == (entry.name in SEEN_BY_OTHERS)
