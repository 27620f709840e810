"""Campaigns in processes of their own, each with another seed, are reported as one."""

import multiprocessing
import os
from functools import partial

import pytest

from fmcheck.errors import DeclarationError, InternalError
from fmcheck.fuzz import Campaign, Find
from fmcheck.fuzz.workers import run_workers
from fmcheck.scenario import Scenario
from tests.fuzz.fuzz_fakes import Axes, Fake, axes, campaign, last


def _wide(a: Axes) -> bool:
    return a.w > 3


def make(fault: str, number: int) -> Campaign:
    """Made in the process of each worker; the second one may go wrong."""

    def hook(scenario: Scenario) -> None:
        if number == 1 and fault == "dies":
            os._exit(7)
        if number == 1 and fault == "declaration":
            raise DeclarationError("build raised")

    return campaign(Fake({"MY001": last(_wide)}, hook=hook), examples=30, seed=number)


def run(fault: str = "") -> tuple:
    counts: list[int] = []
    firsts: list[Find] = []
    finds: list[Find] = []
    report = run_workers(
        partial(make, fault), 2, on_example=counts.append, on_first=firsts.append, on_find=finds.append
    )
    return report, counts, firsts, finds


def test_what_two_find_is_announced_once_and_their_examples_are_added() -> None:
    report, counts, firsts, finds = run()
    assert (report.examples, counts[-1]) == (60, 60)
    assert [found.code for found in report.finds] == ["MY001"]
    assert (len(firsts), len(finds)) == (1, 1)
    assert axes(report.finds[0].scenario.last).w == 4
    assert multiprocessing.active_children() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("dies", InternalError, "campaign 1 ended with exit code 7"),
        ("declaration", DeclarationError, "build raised"),
    ],
)
def test_one_that_goes_wrong_ends_all(fault: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        run(fault)
    assert multiprocessing.active_children() == []
