"""What a note takes from a run: the JSON that `fmcheck run --output-format json` prints, read and checked."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmcheck.errors import DeclarationError

__all__ = ["Judged", "RunRecord", "read_run"]

_SCHEMA = 1
_KINDS = {str: "a string", bool: "true or false", int: "an integer", list: "an array", dict: "an object"}


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One rule's outcome. `message` is its first error, or its first finding where it has no error."""

    code: str
    name: str
    status: str
    ratio: float | None
    message: str

    @property
    def rule(self) -> str:
        return f"{self.code} {self.name}"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run as its JSON tells it; attributes are the JSON's keys.

    `failed` and `reasons` are its verdict, `counts` the outcomes of rules, `severities` the findings.
    """

    subject: str
    case: Mapping[str, Any]
    versions: Mapping[str, Any]
    failed: bool
    reasons: tuple[str, ...]
    counts: Mapping[str, int]
    severities: Mapping[str, int]
    outcomes: tuple[Judged, ...]
    generate_calls: int
    generate_seconds: float
    seconds: float

    @classmethod
    def from_table(cls, table: Any, name: str = "run") -> "RunRecord":
        """A record from plain data; `name` stands for it in messages.

        Raises:
            DeclarationError: not what `fmcheck run` prints; names the missing key, or the one of another type.
        """
        run = _Reader(table, name)
        schema = run.take("schema", int)
        if schema != _SCHEMA:
            raise DeclarationError(f"{name}: schema: expected {_SCHEMA}, which this fmcheck reads; found {schema}")
        verdict = run.inside("verdict")
        return cls(
            subject=run.take("subject", str),
            case=run.take("case", dict),
            versions=run.take("versions", dict),
            failed=verdict.take("failed", bool),
            reasons=tuple(map(str, verdict.take("reasons", list))),
            counts=run.inside("counts").integers(),
            severities=run.inside("severities").integers(),
            outcomes=tuple(_judged(outcome) for outcome in run.each("outcomes")),
            generate_calls=run.take("generate_calls", int),
            generate_seconds=run.number("generate_seconds"),
            seconds=run.number("seconds"),
        )

    def with_status(self, status: str) -> dict[str, Judged]:
        """The outcomes of one status by the rule's code."""
        return {outcome.code: outcome for outcome in self.outcomes if outcome.status == status}


def read_run(path: Path | str) -> RunRecord:
    """The record in a file.

    Raises:
        DeclarationError: a file that cannot be read, is no JSON, or is not what `fmcheck run` prints.
    """
    try:
        # From bytes json tells UTF-8 and UTF-16 apart; a shell's redirection may write either.
        table = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise DeclarationError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DeclarationError(
            f"{path}: expected the JSON that `fmcheck run --output-format json` prints; this is no JSON: {error}"
        ) from error
    return RunRecord.from_table(table, str(path))


def _judged(outcome: "_Reader") -> Judged:
    findings = list(outcome.each("findings"))
    errors = [finding for finding in findings if finding.take("severity", str) == "error"]
    first = next(iter(errors or findings), None)
    return Judged(
        code=outcome.take("code", str),
        name=outcome.take("name", str),
        status=outcome.take("status", str),
        ratio=outcome.number("ratio", optional=True),
        message=first.take("message", str) if first else "",
    )


class _Reader:
    """Takes keys out of one object of the JSON, and names what is missing."""

    def __init__(self, table: Any, where: str) -> None:
        if not isinstance(table, dict):
            raise DeclarationError(
                f"{where}: expected an object as `fmcheck run --output-format json` prints it; "
                f"found {_KINDS.get(type(table), repr(table))}"
            )
        self.table = table
        self.where = where

    def _value(self, key: str) -> Any:
        if key not in self.table:
            raise DeclarationError(
                f"{self.where}: no key {key!r}; expected what `fmcheck run --output-format json` prints"
            )
        return self.table[key]

    def take(self, key: str, kind: type) -> Any:
        value = self._value(key)
        # `type`, since True is an int to isinstance.
        if type(value) is not kind:
            raise DeclarationError(f"{self.where}: {key}: expected {_KINDS[kind]}; found {_short(value)}")
        return value

    def inside(self, key: str) -> "_Reader":
        return _Reader(self.take(key, dict), f"{self.where}: {key}")

    def each(self, key: str) -> list["_Reader"]:
        items = self.take(key, list)
        return [_Reader(item, f"{self.where}: {key}[{place}]") for place, item in enumerate(items)]

    def integers(self) -> dict[str, int]:
        return {key: self.take(key, int) for key in self.table}

    def number(self, key: str, *, optional: bool = False) -> Any:
        """A float. The report writes infinity and NaN as strings, since JSON has neither."""
        value = self._value(key)
        if value is None and optional:
            return None
        if value in ("inf", "-inf", "nan") or (isinstance(value, int | float) and not isinstance(value, bool)):
            try:
                return float(value)
            except OverflowError:
                return math.inf
        raise DeclarationError(f"{self.where}: {key}: expected a number; found {_short(value)}")


def _short(value: Any) -> str:
    return _KINDS[type(value)] if isinstance(value, list | dict) else repr(value)
