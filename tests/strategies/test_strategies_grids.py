"""Drawn time grids are ones that fmcheck's own functions take, and whose edges ascend over the whole path."""

import torch
from hypothesis import Phase, find, given, settings

from fmcheck.flow.grid import check_edges, edge_error_bound, evaluation_times, time_edges
from fmcheck.spec import FlowSpec
from fmcheck.strategies import time_grids


@settings(max_examples=150, derandomize=True, database=None, deadline=None)
@given(time_grids())
def test_grids_have_ascending_edges(drawn: tuple[FlowSpec, int]) -> None:
    spec, steps = drawn
    edges = time_edges(steps, spec)
    check_edges(edges)
    assert edges.shape == (steps + 1,)
    assert edges.isfinite().all()
    assert (edges.diff() > 0).all()
    assert edges[0] >= 0
    assert edges[-1] <= 1
    assert evaluation_times(edges, spec).shape == (steps, spec.stages)
    bound = edge_error_bound(steps, spec, torch.float64)
    assert bound.isfinite().all()
    assert (bound >= 0).all()


def test_every_kind_is_drawn_with_and_without_a_clamp() -> None:
    seen: list[tuple[FlowSpec, int]] = []

    @settings(max_examples=200, derandomize=True, database=None, deadline=None)
    @given(time_grids(7))
    def collect(drawn: tuple[FlowSpec, int]) -> None:
        seen.append(drawn)

    collect()
    assert {spec.grid for spec, _ in seen} == {"logit_normal", "uniform", "shifted"}
    assert {spec.grid_clamp > 0 for spec, _ in seen} == {True, False}
    assert {steps for _, steps in seen} == set(range(1, 8))


def test_the_simplest_is_the_native_grid_of_one_step() -> None:
    rules = settings(database=None, phases=[Phase.generate, Phase.shrink])
    assert find(time_grids(), lambda drawn: True, settings=rules) == (FlowSpec(), 1)
