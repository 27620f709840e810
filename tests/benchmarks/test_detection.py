"""How soon a campaign finds what only an odd case reveals, from a cold start, all rules judging.

One seed by default; `FMCHECK_SEEDS=10` takes ten, which is what the committed figures are from.
"""

import os
import statistics
import time

import pytest

from fmcheck.fuzz import Limits, campaign_of, examples_until
from fmcheck.mutants import Mutant, all_mutants
from fmcheck.strategies import Domain
from fmcheck.subjects.tiny import subject
from fmcheck.trial import Bench
from tests.benchmarks.conftest import result_file

pytestmark = [pytest.mark.benchmark, pytest.mark.filterwarnings("ignore:the text latent has")]

EXAMPLES, BUDGET = 200, 2**17


def examples_to_find(entry: Mutant, seed: int) -> int | None:
    """Scenarios until the named rule fails; None when it did not within the limit."""
    limits = Limits(examples=EXAMPLES, seed=seed)
    campaign = campaign_of(Bench(entry.change(subject)), domain=Domain(budget=BUDGET), limits=limits)
    return examples_until(entry.caught_by, campaign)


def test_odd_mutants_are_found_within_200_examples(capsys: pytest.CaptureFixture[str]) -> None:
    seeds = range(int(os.environ.get("FMCHECK_SEEDS", "1")))
    counts: dict[str, list[int | None]] = {}
    started = time.perf_counter()
    for entry in all_mutants(odd=True):
        counts[entry.name] = [examples_to_find(entry, seed) for seed in seeds]
        with capsys.disabled():
            print(f"\n{entry.caught_by} {entry.name}: {counts[entry.name]}", end="", flush=True)
    shares = {name: sum(count is not None for count in found) / len(seeds) for name, found in counts.items()}
    soon = [count for found in counts.values() for count in found if count is not None]
    with capsys.disabled():
        print(f"\nmedian {statistics.median(soon)} examples, {time.perf_counter() - started:.0f} s")
    with result_file("detection") as figures:
        figures["examples allowed"], figures["budget"], figures["seeds"] = EXAMPLES, BUDGET, len(seeds)
        figures["median examples until found"] = statistics.median(soon)
        figures["share of seeds in which it was found"] = shares
        figures["examples until found"] = counts
    if len(seeds) >= 10:
        # Two need coincidences that are rarer than the figure wants: 8 and 6 of ten seeds on record.
        assert len([name for name, share in shares.items() if share < 0.9]) <= 2, shares
    # A single seed may miss a mutant that nine in ten find.
    assert statistics.mean(shares.values()) >= 0.9
