"""Velocities of a run: angles and combinations in closed form."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from fmcheck.plots.velocities import angle_rows, guided, velocities_of
from fmcheck.record.disturb import answer_instead
from fmcheck.session import Session
from fmcheck.wish import Wish
from tests.foreign.subjects import SUBJECTS
from tests.plots.conftest import base_run, toy_run
from tests.rules.toy import SPEC, Toy, toy_subject

W = 2.5


class Swapped(Toy):
    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        return super().velocity_at(x, t, -1 - scale)


@pytest.mark.parametrize("degrees", [0.0, 1e-7, 30.0, 90.0, 179.9999, 180.0])
def test_angle(degrees: float) -> None:
    angle = math.radians(degrees)
    first = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    second = torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    assert angle_rows(first, second)[0] == pytest.approx(degrees, rel=1e-6, abs=1e-12)


def test_angle_to_nothing_is_none() -> None:
    assert math.isnan(angle_rows(torch.zeros(1, 2), torch.ones(1, 2))[0])


def test_the_formula() -> None:
    cond, uncond = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    assert guided(cond, uncond, W).tolist() == [[3.5, -2.5]]
    assert guided(cond, None, W) is cond


def constant(inputs: dict[str, Tensor], like: Tensor) -> Tensor:
    """3 in the conditional rows, 4 along another channel in the others: a right angle."""
    velocity = torch.zeros_like(like)
    null = inputs["null"].bool()
    velocity[~null, 0], velocity[null, 1] = 3.0, 4.0
    return velocity


def test_on_constant_velocities_all_of_it_is_known() -> None:
    session = Session(toy_subject())
    change = answer_instead("constant", "velocity", constant)
    found = velocities_of(session.run(Wish("constant", session.subject.case, disturbances=(change,))))
    # One of four channels holds the value.
    for rows in found.cond:
        assert rows == pytest.approx([1.5] * 3)
    for rows in found.uncond:
        assert rows == pytest.approx([2.0] * 3)
    for rows in found.angle:
        assert rows == pytest.approx([90.0] * 3)
    combined = math.sqrt((3.5 * 1.5) ** 2 + (2.5 * 2.0) ** 2)
    for rows in (*found.combined, *found.declared):
        assert rows == pytest.approx([combined] * 3)
    for rows in found.used:
        assert rows == pytest.approx([combined] * 3, rel=1e-4)
    assert found.guidance == "w = 2.5"


def test_what_moved_the_state_shows_a_wrong_formula() -> None:
    right, wrong = velocities_of(toy_run()), velocities_of(toy_run(Swapped))
    for used, declared in zip(right.used, right.declared, strict=True):
        assert used == pytest.approx(declared, rel=1e-4)
    assert wrong.used[0] != pytest.approx(wrong.declared[0], rel=0.05)


def test_two_separate_calls_are_two_branches() -> None:
    run = base_run(SUBJECTS["functional"])
    found = velocities_of(run)
    assert len(found.cond) == len(found.uncond) == len(run.trace.of("velocity")) // 2 == 8
    first, second = run.trace.of("velocity")[:2]
    assert first.output is not None
    assert second.output is not None
    cond, uncond = (call.output.double().flatten(1).square().mean(1).sqrt().tolist() for call in (first, second))
    assert found.uncond[0] == pytest.approx(uncond)
    assert found.cond[0] == pytest.approx(cond)
    # `u + s (c - u)` with s = 2.5.
    assert found.guidance == "w = 1.5"
    for used, declared in zip(found.used, found.declared, strict=True):
        assert used == pytest.approx(declared, rel=1e-4)


def test_a_distilled_network_has_one_branch() -> None:
    found = velocities_of(base_run(SUBJECTS["flux"]))
    assert not any(found.uncond)
    assert not any(found.angle)
    assert found.combined == found.cond
    assert found.guidance == "the network is told the scale"


def test_guidance_in_an_interval() -> None:
    found = velocities_of(base_run(SUBJECTS["interval"]))
    assert found.guidance == "w = 2.5 for t in [0.17, 0.83]"
    assert [bool(row) for row in found.uncond] == [False, True, True, True]


def test_without_a_formula_of_the_solver_only_the_network_is_known() -> None:
    found = velocities_of(toy_run(spec=replace(SPEC, solver="other")))
    assert found.step == ()
    assert "no formula" in found.reason
    assert len(found.combined) == 4
