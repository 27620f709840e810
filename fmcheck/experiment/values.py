"""What the value of a header field may hold: one line of text, a list of knobs, a list of tags, an experiment's id."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from datetime import date

from fmcheck.errors import DeclarationError

__all__ = ["as_knob", "clean", "exp_date", "parse_exp_id", "parse_knobs", "parse_tags", "split_list"]

# Typed on a Chinese keyboard, a list has Chinese commas and brackets.
_SEPARATORS = ",;，；、"
_OPEN, _CLOSE = "([{（【“「《", ")]}）】”」》"
_QUOTES = "\"'`"
_NOT_IN_TAGS = re.compile(rf"[{re.escape(_SEPARATORS)}\[\]\"']")

_HINT = re.compile(r"(?:^| )# (?:optional|exp_<yyyymmdd>_<x>)$")
_EXP_ID = re.compile(r"exp_([0-9]{4})([0-9]{2})([0-9]{2})_[A-Za-z0-9]+")
_FEWEST_KNOBS, _MOST_KNOBS = 2, 4


def clean(text: str) -> str:
    """The text as one line that cannot leave a comment: blanks, line breaks and control characters as one blank.

    The template's own hints at the end (`# optional`) go too.
    """
    line = " ".join("".join(" " if _breaks_lines(letter) else letter for letter in text).split())
    while (bare := _HINT.sub("", line)) != line:
        line = bare
    return line


def _breaks_lines(letter: str) -> bool:
    # Surrogates cannot be written as UTF-8, and YAML readers refuse the last three.
    return unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or letter in "\ufeff\ufffe\uffff"


def split_list(text: str) -> list[str]:
    """The parts between commas or semicolons; those in brackets or quotes separate nothing.

    Brackets need not be of one kind: `t in [0, 1)` is one part. A quote opens only where no word stands before it, so
    that `Adam's eps` opens none.

    Raises:
        DeclarationError: a bracket that is never closed.
    """
    parts, start, depth = [], 0, 0
    for place, depth in enumerate(_depths(text)):
        if text[place] in _SEPARATORS and not depth:
            parts.append(text[start:place].strip())
            start = place + 1
    if depth:
        raise DeclarationError(f"expected every bracket to be closed again; found {text!r}")
    return [*parts, text[start:].strip()]


def _depths(text: str) -> Iterator[int]:
    """How many brackets are open after each letter; in quotes, one more."""
    depth, quote = 0, ""
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES and _opens(text, place):
            quote = letter
        elif letter in _OPEN:
            depth += 1
        elif letter in _CLOSE:
            depth = max(depth - 1, 0)
        yield depth + bool(quote)


def _opens(text: str, place: int) -> bool:
    in_word = place > 0 and text[place - 1].isalnum()
    return not in_word and text[place] in text[place + 1 :]


def as_knob(text: str) -> str:
    """Any text as one legal knob: in double quotes where its commas, quotes or brackets would split the list."""
    line = clean(text)
    try:
        alone = len(split_list(line)) == 1 and not set(line) & set(_QUOTES)
    except DeclarationError:
        alone = False
    return line if alone else '"' + line.replace('"', "'") + '"'


def parse_exp_id(text: str) -> str:
    """`exp_<yyyymmdd>_<x>` with a day of the calendar.

    Raises:
        DeclarationError: another form, or no such day.
    """
    exp_date(text)
    return text


def exp_date(text: str) -> date:
    """The day in an experiment's id.

    Raises:
        DeclarationError: another form, or no such day.
    """
    found = _EXP_ID.fullmatch(text)
    if not found:
        raise DeclarationError(f"expected exp_<yyyymmdd>_<x>, as exp_20250903_A; found {text!r}")
    try:
        return date(*map(int, found.groups()))
    except ValueError as error:
        raise DeclarationError(
            f"expected a day of the calendar in exp_<yyyymmdd>_<x>; found {''.join(found.groups())!r}"
        ) from error


def parse_knobs(text: str) -> tuple[str, ...]:
    """Two to four knobs between commas or semicolons; brackets around the whole list are optional.

    Raises:
        DeclarationError: another number of them, an empty one, one said twice, a bracket that is never closed.
    """
    knobs = split_list(_inside(text))
    _refuse_gaps(knobs, text)
    if not _FEWEST_KNOBS <= len(knobs) <= _MOST_KNOBS:
        raise DeclarationError(
            f"expected {_FEWEST_KNOBS} to {_MOST_KNOBS} knobs, separated by commas or semicolons; "
            f"found {len(knobs)}: {text!r}"
        )
    return tuple(knobs)


def _inside(text: str) -> str:
    """What one pair of square brackets around all of the text holds; else the text."""
    around_all = text[:1] == "[" and text[-1:] == "]" and 0 not in list(_depths(text))[:-1]
    return text[1:-1] if around_all else text


def parse_tags(text: str) -> tuple[str, ...]:
    """`[ablation, lrx5]`; quotes around a tag are optional.

    Raises:
        DeclarationError: no brackets, an empty list or tag, one said twice, a tag with a bracket or quote in it.
    """
    if not (len(text) > 1 and text[0] == "[" and text[-1] == "]"):
        raise DeclarationError(f"expected a list in brackets, as [ablation, lrx5]; found {text!r}")
    tags = [_unquoted(tag) for tag in re.split(f"[{re.escape(_SEPARATORS)}]", text[1:-1])]
    _refuse_gaps(tags, text)
    for tag in tags:
        if _NOT_IN_TAGS.search(tag):
            raise DeclarationError(f"expected tags without commas, brackets or quotes; found {tag!r}")
    return tuple(tags)


def _unquoted(tag: str) -> str:
    tag = tag.strip()
    quoted = len(tag) > 1 and tag[0] == tag[-1] and tag[0] in "\"'"
    return tag[1:-1].strip() if quoted else tag


def _refuse_gaps(parts: Sequence[str], text: str) -> None:
    if not all(parts):
        raise DeclarationError(f"expected something between all separators; found an empty entry in {text!r}")
    for part in parts:
        if parts.count(part) > 1:
            raise DeclarationError(f"expected every entry once; found {part!r} {parts.count(part)} times")
