"""What a check recorded dies with it, at once: the recordings of a whole run are gigabytes."""

import gc
from collections.abc import Iterator

import pytest

from fmcheck.mutants import get_mutant
from fmcheck.record.trace import Trace
from fmcheck.run import check
from fmcheck.subjects.tiny import subject


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Nothing but reference counts frees memory."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _traces() -> int:
    return sum(type(thing) is Trace for thing in gc.get_objects())


@pytest.mark.parametrize(
    "name",
    [
        "clean",
        # Its runs at other sizes and batches raise; and at other sizes no prompt can be rotated.
        pytest.param("only_the_native_size", marks=pytest.mark.slow),
        # Rules refuse its runs: the calls add up to nothing.
        pytest.param("no_velocity_without_guidance", marks=pytest.mark.slow),
    ],
)
def test_no_recording_outlives_its_check(no_collection: None, name: str) -> None:
    before = _traces()
    report = check(subject if name == "clean" else get_mutant(name).change(subject))
    assert report.calls > 50
    assert report.failed() == (name != "clean")
    assert _traces() == before
