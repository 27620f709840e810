"""A gallery of few prompts and a few telling defects, made once."""

from collections.abc import Iterator

import pytest

from fmcheck.gallery.entries import entries
from fmcheck.gallery.exhibit import Exhibit, Gallery, gallery
from fmcheck.subjects.tiny import subject
from tests import threads

CHOSEN = (
    "log1_generator_undefined",
    "log1_output_channels_last",
    "log1_output_out_of_range",
    "log6_halves_mixed_up",
    "log9_fallback_made_again",
    "uniform_grid",
)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    with threads.one_thread():
        yield


@pytest.fixture(scope="session")
def small() -> Gallery:
    return gallery(subject, entries(CHOSEN), prompts=3)


@pytest.fixture(scope="session")
def by_name(small: Gallery) -> dict[str, Exhibit]:
    return {exhibit.entry.name: exhibit for exhibit in small.exhibits}
