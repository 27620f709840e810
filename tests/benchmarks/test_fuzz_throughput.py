"""What a campaign costs over the bare `generate()` calls that it makes: drawing, recording, judging, building."""

import statistics
import time

import pytest

from fmcheck.fuzz import Limits, Local, campaign_of
from fmcheck.scenario import Scenario
from fmcheck.strategies import scenarios
from fmcheck.subjects.tiny import subject
from fmcheck.trial import Bench, Verdict
from tests.benchmarks.conftest import bare_seconds, result_file

pytestmark = [pytest.mark.benchmark, pytest.mark.filterwarnings("ignore:the text latent has")]

EXAMPLES, SEEDS = 40, 3


class _Beside(Local):
    """Runs every scenario, and then its calls bare, whose time is kept apart."""

    bare = 0.0
    apart = 0.0

    def judge(self, scenario: Scenario, *, fresh: bool) -> Verdict:
        session = self.bench.session(scenario, fresh=fresh)
        verdict = self.bench.judged(scenario, session)
        started = time.perf_counter()
        self.bare += bare_seconds(session)
        session.forget()
        self.apart += time.perf_counter() - started
        return verdict


def _throughput(seed: int, *, asked: bool) -> float:
    bench = Bench(subject)
    executor = _Beside(bench)
    campaign = campaign_of(bench, executor, limits=Limits(examples=EXAMPLES, seed=seed))
    if not asked:
        campaign.strategy = scenarios(subject)
    started = time.perf_counter()
    report = campaign.run()
    spent = time.perf_counter() - started - executor.apart
    assert not report.finds
    return executor.bare / spent


def test_throughput_against_bare_generate_calls(capsys: pytest.CaptureFixture[str]) -> None:
    with result_file("fuzz-throughput") as figures:
        for name, asked in (("whole campaign", True), ("without rules that make runs of their own", False)):
            ratios = sorted(_throughput(seed, asked=asked) for seed in range(SEEDS))
            with capsys.disabled():
                print(f"\n{name}: {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}) of bare calls")
            figures[f"{name}, bare / campaign"] = round(statistics.median(ratios), 3)
            figures[f"{name}, range"] = [round(ratios[0], 3), round(ratios[-1], 3)]
            if asked:
                assert ratios[-1] >= 0.7, (
                    f"the campaign reaches {ratios} of the bare throughput; at least 0.7 is expected"
                )
