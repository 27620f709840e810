"""Fixtures of the mutants: the clean tiny subject, and one session with its runs to compare the broken ones with."""

from collections.abc import Iterator

import pytest

from fmcheck.run import Session
from fmcheck.subject import Subject
from fmcheck.subjects.tiny import subject
from tests import threads


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Many runs of a tiny model: threads only get in each other's way."""
    with threads.one_thread():
        yield


@pytest.fixture(scope="session")
def tiny() -> Subject:
    """The clean subject."""
    return subject


@pytest.fixture(scope="session")
def clean_session(tiny: Subject) -> Session:
    """Runs of the clean subject, each made once for all mutants."""
    return Session(tiny)
