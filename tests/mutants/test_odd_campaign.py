"""What a campaign makes of odd mutants: the shrunk case is minimal, and every find is replayed bit for bit."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from fmcheck.fuzz import Find, Limits, campaign_of
from fmcheck.mutants import get_mutant
from fmcheck.repro import read, replay, write
from fmcheck.scenario import Scenario
from fmcheck.strategies import Domain
from fmcheck.subjects import load_subject
from fmcheck.trial import Bench
from tests.mutants.test_odd_mutants import WITNESSES

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:the text latent has")]

SHRUNK = (
    "cells_updated_in_pairs",
    "sides_clamped_to_four_to_one",
    "all_axes_of_one_squeezed",
    "weights_given_axes_until_they_fit",
    "scale_of_one_taken_for_off",
    "negative_share_of_cond_refused",
    "scale_capped_at_thirty",
    "tanh_by_exponentials",
    "quantiles_from_a_table",
    "steps_run_in_blocks_of_ten",
    "empty_prompts_start_at_noise",
    "state_takes_the_velocitys_dtype",
)


class _Shrunk(BaseException):
    pass


def _shrunk(name: str) -> Find:
    entry = get_mutant(name)
    limits = Limits(examples=200, seed=1, shrink_seconds=60)
    campaign = campaign_of(Bench(load_subject(f"mutant:{name}")), domain=Domain(budget=2**17), limits=limits)
    found: list[Find] = []

    def look(find: Find) -> None:
        if find.code == entry.caught_by:
            found.append(find)
            raise _Shrunk

    campaign.on_find = look
    with pytest.raises(_Shrunk):
        campaign.run()
    return found[0]


def _smaller(scenario: Scenario) -> Iterator[Scenario]:
    """Every single call with no axis larger, and one smaller."""
    call, case = scenario.last, scenario.last.case
    axes = (range(1, case.batch + 1), range(32, case.height + 1, 32), range(32, case.width + 1, 32))
    scales = dict.fromkeys((0.0, case.guidance_scale))
    for batch, height, width, steps, scale in itertools.product(*axes, range(1, case.num_steps + 1), scales):
        size = {"height": height, "width": width, "num_steps": steps, "guidance_scale": scale}
        other = Scenario((call.but(prompts=case.prompts[:batch], **size),), scenario.asks)
        if other != scenario:
            yield other


@pytest.mark.parametrize("name", SHRUNK)
def test_no_smaller_case_than_the_shrunk_one_fails(name: str) -> None:
    entry, found = get_mutant(name), _shrunk(name)
    assert found.shrunk
    assert len(found.scenario.calls) == 1
    bench = Bench(load_subject(f"mutant:{name}"), (entry.caught_by,))
    smaller = list(_smaller(found.scenario))
    assert len(smaller) <= 500, found.scenario
    assert not [str(other) for other in smaller if entry.caught_by in bench.judge(other).failing()]


@pytest.mark.parametrize("name", WITNESSES)
def test_a_find_is_replayed_bit_for_bit(name: str, tmp_path: Path) -> None:
    target, code = f"mutant:{name}", get_mutant(name).caught_by
    subject, scenario = load_subject(target), WITNESSES[name]
    finding = Bench(subject).judge(scenario).of(code)[0]
    written = write(tmp_path, target, subject, finding, scenario)
    assert written.path is not None, written.reason
    done = replay(read(written.path))
    assert done.status == "reproduced", done
    assert all(one.kind == "identical" for one in done.comparisons), done
