"""The header's lines, read into values and problems."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fmcheck.errors import DeclarationError, did_you_mean
from fmcheck.experiment.form import FIELDS, MARK, Field

__all__ = ["Block", "Problem", "lines_of", "read_block"]

_NAMES = {field.name: field for field in FIELDS}
# Only these end a line in an editor; str.splitlines knows eight more, which stand inside of one.
_LINE_END = re.compile(r"\r\n|\n|\r")
_COMMENT = re.compile(r"[ \t]*[#;](.*)", re.DOTALL)
_RULE = re.compile(r"\s*(={3,}|-{3,})\s*")
_REMARK = re.compile(r"\s\s#(?:\s.*)?$", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_CONTINUED = 2
_TAB = 8


class Problem(NamedTuple):
    """What is wrong in one line; lines count from 1."""

    line: int
    message: str


@dataclass
class _Entry:
    """A field as it stands in the file: its first line, and its text so far."""

    name: str
    line: int
    text: str


@dataclass
class Block:
    """What was found so far; `values` maps attributes of `Header` to values, and is whole where `problems` is empty.

    `indent` is how far the fields are indented.
    """

    problems: list[Problem] = field(default_factory=list)
    entries: list[_Entry] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    indent: int = 1

    def complain(self, line: int, message: str) -> None:
        self.problems.append(Problem(line, message))


def read_block(text: str) -> Block:
    """Everything that the header at the top of a text holds, and everything that is wrong with it."""
    block = Block()
    lines = lines_of(text)
    mark = next((place for place, line in enumerate(lines) if _says(line, MARK)), None)
    if mark is None:
        what = "an empty file" if not text.strip() else "no such line"
        block.complain(1, f"expected the header, whose first words are {MARK!r}, at the top; found {what}")
        return block
    _check_top(lines, mark, block)
    end = _read_body(lines, mark + 1, block)
    for place, line in enumerate(lines[end:], end):
        if _says(line, MARK):
            block.complain(place + 1, f"expected one header; a second one begins here, after that of line {mark + 1}")
    _judge(mark + 1, block)
    return block


def lines_of(text: str) -> list[str]:
    """The lines as an editor counts them."""
    return _LINE_END.split(text)


def _content(line: str) -> str | None:
    """A comment line without its sign, tabs as blanks; None for another line."""
    found = _COMMENT.fullmatch(line)
    return found[1].expandtabs(_TAB) if found else None


def _says(line: str, words: str) -> bool:
    return (_content(line) or "").strip().startswith(words)


def _rule(line: str) -> str:
    """The sign that a rule is drawn with, `=` or `-`; empty for another line."""
    found = _RULE.fullmatch(_content(line) or "")
    return found[1][0] if found else ""


def _check_top(lines: list[str], mark: int, block: Block) -> None:
    for place, line in enumerate(lines[:mark]):
        if line.strip() and line.rstrip() != "---" and _content(line) is None:
            block.complain(
                mark + 1,
                f"expected the header at the top, below nothing but comments, blank lines and '---'; line {place + 1} "
                "stands above it",
            )
            break
    if mark == 0 or _rule(lines[mark - 1]) != "=":
        block.complain(mark + 1, "expected a comment line of '=' above this one, where the header begins")


def _read_body(lines: list[str], start: int, block: Block) -> int:
    """Read the lines below the title; returns the place of the line that ends the header."""
    if start == len(lines) or _rule(lines[start]) != "-":
        block.complain(start, "expected a comment line of '-' below this one")
    for place in range(start, len(lines)):
        content = _content(lines[place])
        if content is None or _says(lines[place], MARK):
            break
        if _rule(lines[place]) == "=":
            return place
        if control := _CONTROL.search(content):
            block.complain(place + 1, f"expected text; found the control character U+{ord(control[0]):04X}")
        if content.strip() and not _rule(lines[place]):
            _read_line(content, place + 1, block)
    else:
        place = len(lines)
    before = f"line {place + 1}" if place < len(lines) else "the end of the file"
    block.complain(start, f"expected a comment line of '=' at the end of the header; found none before {before}")
    return place


def _read_line(content: str, line: int, block: Block) -> None:
    name, colon, text = content.partition(":")
    indent = len(content) - len(content.lstrip())
    if not block.entries:
        block.indent = indent
    if colon and name.strip() in _NAMES:
        block.entries.append(_Entry(name.strip(), line, _without_remark(text)))
    elif indent >= block.indent + _CONTINUED:
        block.entries[-1].text += f" {_without_remark(content)}"
    elif colon:
        # Kept, so that the lines that continue it are not taken for those of the field above.
        block.entries.append(_Entry(name.strip(), line, text))
    else:
        block.complain(
            line,
            f"expected 'FIELD : value', or more of the value above, indented further; found {content.strip()!r}",
        )


def _without_remark(text: str) -> str:
    found = _REMARK.search(text)
    return text[: found.start()] if found else text


def _judge(mark: int, block: Block) -> None:
    seen: dict[str, int] = {}
    for entry in block.entries:
        known = _NAMES.get(entry.name)
        if known is None:
            near = did_you_mean(entry.name.upper(), _NAMES)
            block.complain(entry.line, f"unknown field {entry.name!r}{near}; known: {', '.join(_NAMES)}")
        elif entry.name in seen:
            block.complain(entry.line, f"{entry.name}: expected once; line {seen[entry.name]} has it already")
        else:
            seen[entry.name] = entry.line
            _keep(known, entry, block)
    for name in _missing(seen):
        block.complain(mark, f"{name}: expected this field in the header; found none")


def _keep(known: Field, entry: _Entry, block: Block) -> None:
    try:
        block.values[known.attribute] = known.read(entry.text)
    except DeclarationError as error:
        block.complain(entry.line, f"{known.name}: {error}")


def _missing(seen: dict[str, int]) -> Iterator[str]:
    return (field.name for field in FIELDS if field.required and field.name not in seen)
