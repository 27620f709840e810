"""A process of its own for the model: whatever ends it is a verdict, and the next scenario is judged as if nothing was.

Every process costs some seconds of imports, so that the tests of this module share one executor, in this order.
"""

import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fmcheck.errors import DeclarationError, InternalError
from fmcheck.fuzz import Isolated, Local
from fmcheck.fuzz_gate import Hunt
from fmcheck.scenario import Call, Scenario
from fmcheck.subjects import load_subject
from fmcheck.trial import CRASH, HANG, MEMORY, Bench, Verdict
from tests.fuzz import toy_fuzz_subject as toys

TARGET = "tests.fuzz.toy_fuzz_subject:ending"
SELECT = ("FM203", "FM304", "FM716")
LIMIT = 2.0


def with_seed(seed: int) -> Scenario:
    return Scenario((Call(case=toys.ending.case.but(seed=seed)),))


def bench() -> Bench:
    """Made in the other process."""
    return Bench(load_subject(TARGET), SELECT)


def no_bench() -> Bench:
    raise DeclarationError("the configuration has no such subject")


@pytest.fixture(scope="module")
def isolated() -> Iterator[Isolated]:
    executor = Isolated(bench, time_limit=LIMIT)
    yield executor
    executor.close()
    assert multiprocessing.active_children() == []


def judged(isolated: Isolated, seed: int) -> Verdict:
    return isolated.judge(with_seed(seed), fresh=True)


def test_its_verdict_is_that_of_this_process(isolated: Isolated) -> None:
    apart, here = judged(isolated, 0), Local(bench()).judge(with_seed(0), fresh=True)
    assert apart.judged == here.judged == SELECT
    assert apart.findings == here.findings == ()
    assert apart.runs == here.runs


def test_no_memory_is_an_outcome_of_its_own(isolated: Isolated) -> None:
    verdict = judged(isolated, toys.MEMORY)
    assert verdict.failing() == [MEMORY]
    (finding,) = verdict.findings
    assert finding.severity == "warning"
    assert "no 3 TiB here" in finding.message


def test_a_build_that_raises_is_a_wrong_declaration(isolated: Isolated) -> None:
    for _ in range(2):
        with pytest.raises(DeclarationError, match="build raised RuntimeError: no checkpoint"):
            judged(isolated, toys.UNBUILDABLE)
    assert judged(isolated, 0).findings == ()


def test_sys_exit_is_a_crash_that_names_the_exit_code(isolated: Isolated) -> None:
    verdict = judged(isolated, toys.EXIT)
    assert verdict.failing() == [CRASH]
    assert verdict.findings[0].message == "the process died with exit code 3"


def test_an_abort_is_a_crash_that_names_its_signal_and_a_new_process_goes_on(isolated: Isolated) -> None:
    verdict = judged(isolated, toys.ABORT)
    assert verdict.failing() == [CRASH]
    (finding,) = verdict.findings
    assert "SIGABRT" in finding.message
    assert finding.name == "process-died"
    assert finding.case == with_seed(toys.ABORT).last.case
    isolated.renew()
    assert judged(isolated, 0).findings == ()


def test_what_takes_too_long_is_killed(isolated: Isolated) -> None:
    started = time.monotonic()
    verdict = judged(isolated, toys.HANG)
    assert time.monotonic() - started < LIMIT + 8
    assert verdict.failing() == [HANG]
    assert "no answer within the time limit of 2 s; killed" in verdict.findings[0].message
    assert multiprocessing.active_children() == []


def test_nothing_is_left_behind_and_closing_twice_is_no_error() -> None:
    executor = Isolated(bench)
    executor.close()
    executor.renew()
    executor.close()
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_a_bench_that_cannot_be_made_says_why() -> None:
    executor = Isolated(no_bench)
    with pytest.raises(DeclarationError, match="the configuration has no such subject"):
        executor.judge(with_seed(0), fresh=True)
    executor.close()
    assert multiprocessing.active_children() == []


def test_a_process_that_does_not_start_in_time_is_said() -> None:
    executor = Isolated(bench, start_limit=0.01)
    with pytest.raises(InternalError, match=r"the worker process did not start within 0\.01 s"):
        executor.judge(with_seed(0), fresh=True)
    assert multiprocessing.active_children() == []


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "code"), [(toys.ABORT, CRASH), (toys.HANG, HANG)])
def test_a_campaign_goes_on_after_what_ended_a_process(project: Path, seed: int, code: str) -> None:
    from hypothesis.strategies import sampled_from

    from fmcheck.fuzz import Limits

    hunt = Hunt(
        target="toy_fuzz:ending", select=SELECT, limits=Limits(examples=6, shrink_seconds=600), spool=project / "s"
    )
    search = hunt.campaign()
    search.executor._limit = LIMIT  # type: ignore[attr-defined]
    search.strategy = sampled_from([with_seed(number) for number in (0, 1, 2, seed, 4, 5)])
    try:
        report = search.run()
    finally:
        search.executor.close()
    (found,) = report.finds
    assert (found.code, found.scenario.last.case.seed, report.examples) == (code, seed, 6)
    assert (found.scenario.last.case.batch, found.scenario.last.case.num_steps) == (1, 1)
    assert multiprocessing.active_children() == []
