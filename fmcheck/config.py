"""`[tool.fmcheck]` of a pyproject.toml: what a project says once instead of on every command line.

[tool.fmcheck]
subject = "my_model.checks:subject"
ignore = ["FM804"]
strict = true
min-checked = 40

[tool.fmcheck.expected-failures]
FM305 = "the quantiles are clamped; retrain first"
FM603 = { reason = "scale is fixed in the next release", match = "scale 0.18215" }

[tool.fmcheck.spec]
grid_clamp = 1e-3
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from beartype.door import is_bearable

from fmcheck.errors import DeclarationError, did_you_mean
from fmcheck.outcome import Expected
from fmcheck.rules import get_rule, select_rules
from fmcheck.spec import FlowSpec
from fmcheck.subject import Subject

__all__ = ["Config", "load_config"]

_KEYS = {
    "subject": (str, 'a string such as "tiny" or "package.module:attribute"'),
    "select": (list[str], 'an array of strings such as ["FM2", "FM305"]'),
    "ignore": (list[str], 'an array of strings such as ["FM804"]'),
    "device": (str, 'a string such as "cuda:0"'),
    "dtype": (str, 'a string such as "bfloat16"'),
    "seed": (int, "an integer"),
    "strict": (bool, "true or false"),
    "thorough": (bool, "true or false"),
    "min-checked": (int, "an integer"),
    "nproc": (int, "an integer"),
    "expected-failures": (dict, "a table of rule codes"),
    "spec": (dict, "a table of FlowSpec fields"),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    """The configuration, or nothing but defaults where there is none.

    Attributes:
        path: the file, None without one; messages name it.
        min_checked: rules that must really have judged something; by default 1, since a gate in which nobody looked
            must not pass.
        nproc: on how many ranks rules about ranks are judged; 1 skips them.
        expected, spec: those of `subject`; :meth:`applied` leaves them out for another subject.
    """

    path: Path | None = None
    subject: str | None = None
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    device: str | None = None
    dtype: str | None = None
    seed: int | None = None
    strict: bool = False
    thorough: bool = False
    min_checked: int = 1
    nproc: int = 1
    expected: Mapping[str, Expected] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)

    def about(self, target: str) -> "Config":
        """The configuration as it holds for one subject.

        A spec and expected failures describe the configured subject. Applied to another one they would call its
        conventions wrong and its passed rules stale.
        """
        mine = self.subject is None or target == self.subject
        return self if mine else replace(self, expected={}, spec={})

    def applied(self, subject: Subject) -> Subject:
        """The subject with the fields of `[tool.fmcheck.spec]` put over its own spec; also checks the rule codes.

        Called after the subject was imported, since its module may register rules of its own.

        Raises:
            DeclarationError: a code that no rule has, or a spec field outside its domain; names the file.
        """
        with _naming(self.path, "expected-failures"):
            for code in self.expected:
                get_rule(code)
        for key, codes in (("select", self.select), ("ignore", self.ignore)):
            with _naming(self.path, key):
                select_rules(codes)
        with _naming(self.path, "spec"):
            return subject.but(spec=replace(subject.spec, **self.spec)) if self.spec else subject


class _naming:
    """Puts the file and the key in front of a declaration error."""

    def __init__(self, path: Path | None, key: str) -> None:
        self.prefix = f"{path}, [tool.fmcheck] {key}: "

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DeclarationError):
            raise DeclarationError(f"{self.prefix}{error}") from error


def load_config(start: Path | None = None) -> Config:
    """The `[tool.fmcheck]` table of the nearest pyproject.toml that has one, from `start` upwards.

    A pyproject.toml without the table is passed over, so that a package inside a repository shares the root's.

    Raises:
        DeclarationError: unreadable TOML, an unknown key (names the nearest), or a value of the wrong type.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        path = folder / "pyproject.toml"
        if path.is_file():
            tools = _read(path).get("tool")
            if isinstance(tools, dict) and "fmcheck" in tools:
                return _parse(path, tools["fmcheck"])
    return Config()


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DeclarationError(f"{path}: cannot be read as TOML: {error}") from error


def _parse(path: Path, table: Any) -> Config:
    with _naming(path, "table"):
        _require_type(table, dict, "a table")
    for key, value in table.items():
        with _naming(path, key):
            if key not in _KEYS:
                raise DeclarationError(f"unknown key{did_you_mean(key, _KEYS)}; known: {', '.join(_KEYS)}")
            _require_type(value, *_KEYS[key])
    plain: dict[str, Any] = {k.replace("-", "_"): tuple(v) if isinstance(v, list) else v for k, v in table.items()}
    plain["expected"] = _expected(path, plain.pop("expected_failures", {}))
    plain["spec"] = _spec(path, plain.pop("spec", {}))
    return Config(path=path, **plain)


def _expected(path: Path, table: Mapping[str, Any]) -> dict[str, Expected]:
    expected = {}
    for code, entry in table.items():
        with _naming(path, f"expected-failures.{code}"):
            parts = {"reason": entry} if isinstance(entry, str) else entry
            _require_type(parts, dict[str, str], 'a reason, or { reason = "…", match = "…" }')
            for key in parts:
                if key not in ("reason", "match"):
                    raise DeclarationError(f"unknown key {key!r}{did_you_mean(key, ['reason', 'match'])}")
            if not parts.get("reason", "").strip():
                raise DeclarationError("expected a reason that is not empty; say why the failure is accepted")
            expected[code] = Expected(**parts)
    return expected


def _spec(path: Path, table: Mapping[str, Any]) -> dict[str, Any]:
    known = {f.name: f.type for f in fields(FlowSpec)}
    values = {}
    for key, value in table.items():
        with _naming(path, f"spec.{key}"):
            if key not in known:
                raise DeclarationError(f"unknown key{did_you_mean(key, known)}; it must be a field of FlowSpec")
            values[key] = _converted(value, known[key])
    return values


def _converted(value: Any, annotation: Any) -> Any:
    """A TOML value as the annotation wants it: arrays as tuples, and whole numbers where a float is meant."""
    if isinstance(value, list):
        value = tuple(float(v) if type(v) is int else v for v in value)
    if type(value) is int and not is_bearable(value, annotation) and is_bearable(float(value), annotation):
        value = float(value)
    name = annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
    _require_type(value, annotation, name)
    return value


def _require_type(value: Any, annotation: Any, expected: str) -> None:
    # bool is an int in Python, and `seed = true` is a mistake.
    wrong_bool = isinstance(value, bool) and annotation is not bool
    if wrong_bool or not is_bearable(value, annotation):
        raise DeclarationError(f"expected {expected}; found {value!r}")
