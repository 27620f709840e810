"""Reproductions as the text of a test module, for those who prefer code to files."""

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from fmcheck.repro.file import SUFFIX, Reproduction
from fmcheck.repro.replayed import ENDINGS

__all__ = ["as_pytest", "code_of"]

_INDENT = "    "
_WIDTH = 100
_IMPORTS = (
    ("fmcheck.case", ("Case",)),
    ("fmcheck.repro", ("judged_apart", "subject_of")),
    ("fmcheck.scenario", ("Call", "Scenario")),
    ("fmcheck.trial", ("Bench",)),
)


def as_pytest(reproductions: Iterable[Reproduction]) -> str:
    """A test module with one function for each reproduction; equal ones make one function.

    Whatever a file holds stands in it as a literal, written by `repr`.
    """
    tests = {reproduction.name: "\n".join(_test(reproduction)) for reproduction in reproductions}
    body = "\n\n\n".join(tests.values())
    imports = [
        f"from {module} import {', '.join(used)}"
        for module, names in _IMPORTS
        if (used := [name for name in names if f"{name}(" in body])
    ]
    return "\n".join(['"""Findings of fmcheck, as tests."""', "", *imports, "", "", body, ""])


def _test(reproduction: Reproduction) -> Iterator[str]:
    finding, code = reproduction.finding, reproduction.code
    name = reproduction.name.removesuffix(SUFFIX).replace("-", "_")
    yield f"def test_{name}() -> None:"
    yield f"{_INDENT}found = {f'{finding.code} {finding.name}: {finding.message}'!r}"
    yield f"{_INDENT}scenario = {code_of(reproduction.scenario, _INDENT)}"
    if code in ENDINGS:
        # In a process of its own, or the finding would end the test run.
        limit = f"time_limit={reproduction.time_limit!r}"
        yield f"{_INDENT}verdict = judged_apart({reproduction.target!r}, scenario, {limit})"
        yield f"{_INDENT}assert verdict.judged or verdict.findings, verdict.refused or 'nothing was judged'"
    else:
        yield f"{_INDENT}verdict = Bench(subject_of({reproduction.target!r})).judge(scenario)"
        yield f"{_INDENT}assert {code!r} in verdict.judged, verdict.refused or {f'{code} compared nothing'!r}"
    strict = "strict=True" if finding.severity == "warning" else ""
    word = "in" if reproduction.expect == "reproduced" else "not in"
    yield f"{_INDENT}assert {code!r} {word} verdict.failing({strict}), found"


def code_of(value: Any, indent: str = "") -> str:
    """The expression that makes a value of dataclasses, tuples and plain data; fields that are None are left out."""
    if is_dataclass(value):
        given = {field.name: getattr(value, field.name) for field in fields(value)}
        name, deeper = type(value).__name__, indent + _INDENT
        parts = [f"{key}={code_of(part, deeper)}" for key, part in given.items() if part is not None]
        return _bracketed(f"{name}(", parts, ")", indent)
    if isinstance(value, tuple):
        return _bracketed("(", [code_of(part, indent + _INDENT) for part in value], ")", indent, last=",")
    return repr(value)


def _bracketed(left: str, parts: list[str], right: str, indent: str, last: str = "") -> str:
    """On one line where there is room, else a line for each part."""
    line = f"{left}{', '.join(parts)}{last if len(parts) == 1 else ''}{right}"
    if len(indent) + len(line) <= _WIDTH and "\n" not in line:
        return line
    inner = "".join(f"{indent}{_INDENT}{part},\n" for part in parts)
    return f"{left}\n{inner}{indent}{right}"
