"""The subject that a reproduction names: checked as a name first, then loaded with the settings of the project."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fmcheck.config import Config, load_config
from fmcheck.errors import DeclarationError, did_you_mean
from fmcheck.rules import select_rules
from fmcheck.subject import Subject
from fmcheck.subjects import load_subject
from fmcheck.subjects.load import READY_MADE

__all__ = ["Loaded", "check_target", "load", "subject_of"]

_LONGEST = 300


def check_target(target: str) -> None:
    """Refuse what is no name of a subject, before anything is imported.

    The attribute of a module is called when it is a function, so no module of Python's own and none of fmcheck's
    inside can be named: `os:abort` is no subject.

    Raises:
        DeclarationError: says what was expected.
    """
    if target in READY_MADE:
        return
    module, colon, name = target.partition(":")
    parts = module.split(".")
    legal = bool(colon) and len(target) <= _LONGEST and all(part.isidentifier() for part in (*parts, name))
    if not legal:
        raise DeclarationError(
            f"expected a subject such as {', '.join(READY_MADE)}, mutant:NAME or package.module:attribute; "
            f"found {target[:_LONGEST]!r}{did_you_mean(target[:_LONGEST], READY_MADE)}"
        )
    if target.startswith("mutant:"):
        return
    ours = parts[0] == "fmcheck" and parts[1:2] != ["subjects"]
    if ours or parts[0] in sys.stdlib_module_names or any(part.startswith("__") for part in parts):
        raise DeclarationError(
            f"expected a module that declares a subject; found {module!r}, a part of {'fmcheck' if ours else 'Python'}"
        )


@dataclass(frozen=True)
class Loaded:
    """A subject with the project's spec on top.

    Attributes:
        watched: codes of the rules that the project's gate judges and does not expect to fail.
    """

    subject: Subject
    watched: frozenset[str]


def load(target: str) -> Loaded:
    """The subject of a name, as `fmcheck run` would check it.

    Raises:
        DeclarationError: a name that is none, no such subject, or a wrong configuration.
    """
    check_target(target)
    configured = load_config()
    folder: Path | None = configured.path.parent if configured.path else None
    config: Config = configured.about(target)
    subject = config.applied(load_subject(target, folder))
    expected: Mapping[str, object] = config.expected
    codes = {rule.code for rule in select_rules(config.select, config.ignore)}
    return Loaded(subject, frozenset(codes - set(expected)))


def subject_of(target: str) -> Subject:
    """The subject of a name, with the project's spec on top.

    Raises:
        DeclarationError: as :func:`load`.
    """
    return load(target).subject
