"""FM841, FM842, FM844, FM845 on shares made by hand, and on the tiny model's ranks made one after the other."""

import pytest
import torch

from fmcheck.mutants import get_mutant, get_variation
from fmcheck.ranks.share import PROMPTS, Share
from fmcheck.subject import Subject
from fmcheck.subjects.tiny import subject as tiny
from tests.rules.rank_runs import (
    BLOCKS,
    IN_TURN,
    PICTURES,
    STATES,
    alone,
    causes,
    made_here,
    part,
    rounded,
    run_of,
    together,
    verdict,
)

BY_RANK = tiny.but(rank_seeding="per_rank")
PARTS = (IN_TURN, BLOCKS, (range(7), ()), ((0, 1), (2, 3), (4, 5), (6,)), ((6, 0, 3), (5, 1, 4, 2)))


class TestPrompts:
    """FM841: every prompt exactly once."""

    @pytest.mark.parametrize("parts", PARTS)
    def test_any_way_to_divide_them_is_right(self, parts) -> None:
        outcome = verdict("FM841", {"alone": alone(), "ranks": together(parts)})
        assert outcome.status == "passed"
        # For each of two runs that it ended, seven prompts, and a comparison of the numbers on each of its ranks.
        assert outcome.checks == 2 * (1 + PROMPTS) + 1 + len(parts)

    @pytest.mark.parametrize(
        ("parts", "wrong", "cause"),
        [
            (((0, 2, 4, 6), (1, 3, 5, 0)), 1, "padded by repetition"),
            (((0, 1, 2), (3, 4, 5), (6, 0, 1)), 2, "padded by repetition"),
            (((0, 1, 2), (3, 4, 5)), 1, "the remainder of the division by 2 ranks is dropped"),
            (((0,), (1,), (2,), (3,)), 3, "the remainder of the division by 4 ranks is dropped"),
            ((range(7), range(7)), 7, "every rank makes all prompts"),
            (((0, 2, 4, 6), ()), 3, "the other ranks return nothing"),
            (((0, 1), (3, 4, 5, 6)), 1, "None"),
            (((0, 1, 2), (3, 4, 5, 6, 2)), 1, "padded by repetition"),
        ],
    )
    def test_missing_and_repeated_ones(self, parts, wrong: int, cause: str) -> None:
        outcome = verdict("FM841", {"alone": alone(), "ranks": together(parts)})
        assert outcome.status == "failed"
        assert len(outcome.findings) == wrong
        assert all(cause in text for text in causes(outcome))

    def test_the_ranks_of_a_repeated_prompt_are_named(self) -> None:
        (finding,) = verdict("FM841", {"ranks": together(((0, 1, 2, 3), (3, 4, 5, 6)))}).findings
        assert finding.message == "prompt 3 of 7 is made 2 times, by ranks [0, 1], expected once"

    def test_an_index_that_no_prompt_has(self) -> None:
        outcome = verdict("FM841", {"ranks": together(((0, 2, 4, 6), (1, 3, 5, 7)))})
        assert outcome.findings[0].message == "rank 1 returns index 7, and there are 7 prompts from 0"

    def test_fewer_pictures_than_indices(self) -> None:
        runs = {"ranks": run_of(part(0, IN_TURN[0]), part(1, IN_TURN[1], images=PICTURES[:2]))}
        (finding,) = verdict("FM841", runs).findings
        assert finding.message == "rank 1 returns 2 pictures and 3 indices"

    def test_the_first_rank_that_failed_is_the_cause(self) -> None:
        late = Share(rank=0, error="RuntimeError: connection closed by peer", ended=2.0)
        first = Share(rank=1, error="IndexError: list index out of range", ended=1.0)
        (finding,) = verdict("FM841", {"alone": alone(), "ranks": run_of(late, first)}).findings
        assert "on 2 ranks: rank 1 of 2: IndexError: list index out of range" in finding.message


class TestNoise:
    """FM842: no two samples of one prompt start at the same state."""

    def test_distinct_states(self) -> None:
        outcome = verdict("FM842", {"alone": alone(), "ranks": together()})
        assert (outcome.status, outcome.checks) == ("passed", 3)

    @pytest.mark.parametrize("rows", [[0, 1, 2, 0, 1, 2], [0, 0, 1, 1, 2, 2]])
    def test_the_second_rank_repeats_the_first(self, rows: list[int]) -> None:
        first = STATES[[*rows, 3, 3]]
        runs = {"alone": alone(), "ranks": together(starts=(first, first[:6]))}
        (finding,) = verdict("FM842", runs).findings
        assert finding.message == "samples of one prompt on ranks 0 and 1 have the same initial states"
        assert "every rank seeds its generator alike" in str(finding.diagnosis)

    def test_roundings_do_not_make_noise_another(self) -> None:
        first = STATES[[0, 0, 1, 1, 2, 2, 3, 3]]
        for digits, count in ((1e-6, 1), (1e-2, 0)):
            runs = {"alone": alone(), "ranks": together(starts=(first, rounded(first[:6], digits)))}
            assert len(verdict("FM842", runs).findings) == count, digits

    def test_one_rank_repeats_itself(self) -> None:
        ranks = together(starts=(STATES[[0, 0, 1, 1, 0, 0, 2, 2]], STATES[[3, 3, 4, 4, 5, 5]]))
        (finding,) = verdict("FM842", {"alone": alone(), "ranks": ranks}).findings
        assert "on rank 0 have the same initial states" in finding.message

    def test_seeds_that_overlap_share_other_places(self) -> None:
        ranks = together(starts=(STATES[[0, 0, 1, 1, 2, 2, 3, 3]], STATES[[1, 1, 2, 2, 3, 3]]))
        (cause,) = causes(verdict("FM842", {"alone": alone(), "ranks": ranks}))
        assert "the seeds of the ranks overlap" in cause

    def test_draws_from_a_global_generator_are_the_cause(self) -> None:
        starts = (STATES[[0, 0, 1, 1, 2, 2, 3, 3]], STATES[[0, 0, 1, 1, 2, 2]])
        runs = {"alone": alone(), "ranks": together(starts=starts, sources=(("torch",), ("caller", "torch")))}
        (cause,) = causes(verdict("FM842", runs))
        assert "noise is drawn from the process's own generator (torch)" in cause

    def test_one_row_a_sample_where_nothing_is_guided(self) -> None:
        single = {"alone": alone(starts=STATES), "ranks": together(starts=(STATES[[0, 2, 4, 6]], STATES[[1, 3, 5]]))}
        assert verdict("FM842", single).status == "passed"
        shared = {**single, "ranks": together(starts=(STATES[[0, 2, 4, 6]], STATES[[1, 3, 4]]))}
        assert len(verdict("FM842", shared).findings) == 1

    @pytest.mark.parametrize("starts", [(None, None), (STATES[:4], STATES[:2])])
    def test_pictures_where_states_cannot_be_counted(self, starts) -> None:
        runs = {"alone": alone(), "ranks": together(starts=starts)}
        assert verdict("FM842", runs).status == "passed"
        runs["ranks"] = together(starts=starts, images=(PICTURES[:4], PICTURES[:3]))
        (finding,) = verdict("FM842", runs).findings
        assert finding.message == "samples of one prompt on ranks 0 and 1 are the same picture"

    def test_a_design_without_noise_is_not_judged(self) -> None:
        same = alone(starts=STATES[:1].expand(2 * PROMPTS, -1, -1, -1))
        outcome = verdict("FM842", {"alone": same, "ranks": together()})
        assert outcome.status == "not informative"
        assert outcome.reason == "in one process, too, samples of one prompt have the same states"

    def test_a_prompt_made_twice_has_its_noise_twice(self) -> None:
        outcome = verdict("FM842", {"alone": alone(), "ranks": together((range(7), range(7)))})
        assert outcome.reason == "samples are made twice, their noise included (see FM841)"


class TestPictures:
    """FM844: the same pictures on any number of ranks."""

    @pytest.mark.parametrize("parts", PARTS)
    def test_the_order_of_the_parts_does_not_matter(self, parts) -> None:
        outcome = verdict("FM844", {"alone": alone(), "ranks": together(parts)})
        assert (outcome.status, outcome.checks) == ("passed", PROMPTS)

    def test_bits_count_where_the_calls_have_the_same_shapes(self) -> None:
        images = (rounded(PICTURES[[0, 2, 4, 6]], 1e-7), PICTURES[[1, 3, 5]])
        outcome = verdict("FM844", {"alone": alone(), "ranks": together(images=images)})
        assert len(outcome.findings) == 4
        assert all("allowed 0 (bitwise)" in finding.message for finding in outcome.findings)
        assert "something is computed over the part" in causes(outcome).pop()

    def test_half_of_the_digits_where_they_have_not(self) -> None:
        shapes = (("velocity[8,4,2,2]",), ("velocity[6,4,2,2]",))
        for digits, status in ((1e-5, "passed"), (1e-2, "failed")):
            images = (rounded(PICTURES[[0, 2, 4, 6]], digits), PICTURES[[1, 3, 5]])
            outcome = verdict("FM844", {"alone": alone(), "ranks": together(images=images, shapes=shapes)})
            assert outcome.status == status, digits
        # sqrt(eps) of float32 is 3.45e-4, of the largest value of the picture.
        largest = [float(PICTURES[index].abs().max()) for index in (0, 2, 4, 6)]
        allowed = [finding.allowed for finding in outcome.findings]
        assert allowed == pytest.approx([3.4526698e-4 * value for value in largest])

    def test_pictures_gathered_in_another_order(self) -> None:
        gathered = PICTURES[[0, 2, 4, 6, 1, 3, 5]]
        ranks = run_of(part(0, range(7), images=gathered), part(1, ()))
        outcome = verdict("FM844", {"alone": alone(), "ranks": ranks})
        assert [finding.where for finding in outcome.findings] == [f"rank 0, prompt {i}" for i in range(1, 7)]
        assert causes(outcome) == {
            "it is another prompt's picture: they are gathered in another order than the prompts were dealt out"
        }

    def test_pictures_of_other_seeds(self) -> None:
        other = torch.rand(PICTURES.shape, generator=torch.Generator().manual_seed(9))
        runs = {"alone": alone(), "ranks": together(images=(PICTURES[[0, 2, 4, 6]], other[[1, 3, 5]]))}
        outcome = verdict("FM844", runs)
        assert [finding.where for finding in outcome.findings] == [f"rank 1, prompt {index}" for index in (1, 3, 5)]
        assert "declare rank_seeding='per_rank'" in causes(outcome).pop()

    def test_noise_declared_by_rank_is_not_compared(self) -> None:
        runs = {"alone": alone(BY_RANK), "ranks": together(subject=BY_RANK)}
        assert "declared to depend on the rank" in verdict("FM844", runs).reason

    def test_another_shape_is_another_picture(self) -> None:
        images = (PICTURES[[0, 2, 4, 6]], PICTURES[[1, 3, 5], :, :1])
        outcome = verdict("FM844", {"alone": alone(), "ranks": together(images=images)})
        assert len(outcome.findings) == 3
        assert "f32[3,2,2] against f32[3,1,2]" in outcome.findings[0].message


class TestRepeats:
    """FM845: the same seed on the same ranks."""

    def test_the_same_again(self) -> None:
        outcome = verdict("FM845", {"ranks": together(), "again": together()})
        assert (outcome.status, outcome.checks) == ("passed", 4)

    def test_other_pictures_and_other_prompts(self) -> None:
        other = together(((0, 2, 4, 6), (1, 5, 3)), images=(PICTURES[[0, 2, 4, 5]], PICTURES[[1, 5, 3]]))
        found = [finding.message for finding in verdict("FM845", {"ranks": together(), "again": other}).findings]
        assert [text.split(":")[0] for text in found] == [
            "the second time the pictures are others",
            "the second time the rank makes prompts [1, 5, 3] instead of [1, 3, 5]",
            "the second time the pictures are others",
        ]

    def test_a_rank_without_prompts_is_no_evidence_about_pictures(self) -> None:
        parts = (range(7), ())
        assert verdict("FM845", {"ranks": together(parts), "again": together(parts)}).checks == 3


RULES = ("FM841", "FM842", "FM844", "FM845")


@pytest.mark.parametrize("subject", [tiny, get_variation("parts_in_blocks").change(tiny)], ids=lambda s: s.name)
def test_no_rule_objects_to_the_tiny_models_ranks(subject: Subject) -> None:
    for code in RULES:
        for nproc in (2, 4):
            outcome = verdict(code, made_here(subject, code, nproc))
            assert (outcome.status, outcome.findings) == ("passed", ()), (code, nproc)


def test_seeds_by_rank_may_change_the_pictures_and_nothing_else() -> None:
    subject = get_variation("noise_by_rank_declared").change(tiny)
    found = {code: verdict(code, made_here(subject, code)).status for code in RULES}
    assert found == dict.fromkeys(RULES, "passed") | {"FM844": "not informative"}
    undeclared = subject.but(rank_seeding="per_sample")
    assert verdict("FM844", made_here(undeclared, "FM844")).status == "failed"


@pytest.mark.parametrize(
    "name",
    [
        "prompts_padded_by_repetition",
        "remainder_of_the_prompts_dropped",
        "every_rank_makes_everything",
        "every_rank_uses_one_seed",
        "ranks_draw_from_the_process_generator",
        "seeds_of_neighbouring_ranks_overlap",
        "seeds_count_within_the_part",
        "pictures_scaled_by_the_part",
        "ranks_seeded_by_the_system",
    ],
)
def test_a_mutant_is_caught_by_its_rule(name: str) -> None:
    entry = get_mutant(name)
    outcome = verdict(entry.caught_by, made_here(entry.change(tiny), entry.caught_by))
    assert outcome.status == "failed", outcome
    assert "None" not in causes(outcome)
