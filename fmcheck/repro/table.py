"""TOML text as plain data, and typed keys out of it; everything that is wrong is said with its place."""

import math
import re
import tomllib
from collections.abc import Iterable
from typing import Any

from fmcheck.errors import DeclarationError, did_you_mean

__all__ = ["Table", "read_toml", "short"]

_KINDS = {str: "a string", bool: "true or false", int: "an integer", list: "an array", dict: "a table"}
_LONGEST = 120
_MOST_DOTS = 8
# Strings and comments as TOML's own lexer sees them; an unclosed one ends with its line, or with the text.
_STRING = re.compile(
    r'"""(?:\\.|[^\\])*?(?:"""|\Z)'
    r"|'''.*?(?:'''|\Z)"
    r'|"(?:\\.|[^"\\\n])*+(?:"|$)'
    r"|'[^'\n]*+(?:'|$)"
    r"|\#[^\n]*+",
    re.DOTALL | re.MULTILINE,
)
_BETWEEN_KEYS = re.compile(r"[^\w.\- \t]")


def read_toml(text: str) -> dict[str, Any]:
    """The data of a TOML text.

    Raises:
        DeclarationError: no TOML, keys of too many parts, or an integer beyond 64 bits.
    """
    # tomllib's memory grows with the square of the parts of a dotted key: 100 kB of dots would take all there is.
    bare = _STRING.sub("s", text)
    if any(part.count(".") > _MOST_DOTS for part in _BETWEEN_KEYS.split(bare)):
        raise DeclarationError(f"expected keys of at most {_MOST_DOTS + 1} dotted parts; found a longer one")
    try:
        table = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise DeclarationError(f"expected TOML; found none: {short(str(error) or type(error).__name__)}") from error
    _refuse_huge(table)
    return table


def _refuse_huge(value: Any) -> None:
    """TOML promises 64 bits. Larger integers, which hexadecimal text can hold, cannot even be printed."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise DeclarationError("expected integers of at most 64 bits; found a larger one")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _refuse_huge(inner)


def short(text: str, longest: int = _LONGEST) -> str:
    """The text, cut where it is long."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


class Table:
    """One table of the file, with a known set of keys.

    Raises:
        DeclarationError: no table, or an unknown key; names the nearest known one.
    """

    def __init__(self, value: Any, where: str, known: Iterable[str]) -> None:
        self.where = where
        known = tuple(known)
        if not isinstance(value, dict):
            raise self.wrong("", "a table", value)
        for key in value:
            if key not in known:
                hint = did_you_mean(short(key), known) or f"; known: {', '.join(known)}"
                raise DeclarationError(f"{where}: unknown key {short(repr(key))}{hint}")
        self.value = value

    def wrong(self, key: str, expected: str, found: Any) -> DeclarationError:
        """The error about the value of a key."""
        place = ", ".join(part for part in (self.where, key) if part)
        kind = _KINDS[type(found)] if isinstance(found, list | dict) else short(repr(found))
        return DeclarationError(f"{place}: expected {expected}; found {kind}")

    def take(self, key: str, kind: type) -> Any:
        """The value of a key that must be there. `True` is no integer."""
        if key not in self.value:
            raise DeclarationError(f"{self.where}: no key {key!r}; expected {_KINDS[kind]}")
        if type(self.value[key]) is not kind:
            raise self.wrong(key, _KINDS[kind], self.value[key])
        return self.value[key]

    def text(self, key: str, longest: int, default: str | None = None) -> str:
        """A string of limited length."""
        if default is not None and key not in self.value:
            return default
        found: str = self.take(key, str)
        if len(found) > longest:
            raise DeclarationError(f"{self.where}, {key}: expected at most {longest} letters; found {len(found)}")
        return found

    def count(self, key: str, most: int, least: int = 0) -> int:
        """An integer within bounds."""
        found: int = self.take(key, int)
        if not least <= found <= most:
            raise self.wrong(key, f"an integer from {least} to {most}", found)
        return found

    def choice(self, key: str, known: Iterable[str], default: str | None = None) -> str:
        """One of a few words."""
        found = self.text(key, _LONGEST, default)
        if found not in known:
            raise DeclarationError(
                f"{self.where}, {key}: expected one of {', '.join(known)}; found {found!r}{did_you_mean(found, known)}"
            )
        return found

    def number(self, key: str) -> float | None:
        """A float or integer, infinity and NaN included; None without the key."""
        found = self.value.get(key)
        if found is not None and (isinstance(found, bool) or not isinstance(found, int | float)):
            raise self.wrong(key, "a number", found)
        return None if found is None else float(found)

    def seconds(self, key: str, most: float) -> float:
        """A duration above 0."""
        found = self.number(key)
        if found is None or not (math.isfinite(found) and 0 < found <= most):
            raise self.wrong(key, f"seconds above 0 and at most {most:g}", found)
        return found

    def array(self, key: str, kind: type, most: int) -> list[Any]:
        """An array whose entries are all of one type (floats may be written as integers)."""
        found = self.take(key, list)
        if len(found) > most:
            raise DeclarationError(f"{self.where}, {key}: expected at most {most} entries; found {len(found)}")
        for entry in found:
            if type(entry) is not kind and not (kind is float and type(entry) is int):
                raise self.wrong(key, f"an array of {_PLURALS[kind]}", entry)
        return [float(entry) for entry in found] if kind is float else found


_PLURALS = {str: "strings", int: "integers", float: "numbers", dict: "tables"}
