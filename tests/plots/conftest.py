"""Runs of toys whose loops are known in closed form, and the tiny model's native run."""

from typing import Any

import pytest

from fmcheck.plan import Run
from fmcheck.session import Session
from fmcheck.subject import Subject
from fmcheck.subjects.load import load_subject
from tests.cli.conftest import environment, fmcheck_command, project, shell, toy_rules  # noqa: F401
from tests.rules.toy import Toy, toy_subject

PNG = b"\x89PNG\r\n\x1a\n"


def base_run(subject: Subject) -> Run:
    """The native run of a subject."""
    session = Session(subject)
    return session.run(session.plan.base)


def toy_run(model: type[Toy] = Toy, **overrides: Any) -> Run:
    """The native run of a toy: Euler, four steps, guidance 2.5 as `cond_plus`, text latents."""
    return base_run(toy_subject(model, **overrides))


@pytest.fixture(scope="session")
def tiny() -> tuple[Session, Run]:
    session = Session(load_subject("tiny"))
    return session, session.run(session.plan.base)
