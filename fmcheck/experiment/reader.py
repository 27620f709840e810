"""Read the header at the top of a file, and say everything that is wrong with it, with lines.

A value may go on over further comment lines that are indented by two blanks more than the fields; the lines are joined
by one blank. Two blanks (or a tab), `#` and a blank begin a remark, as in the template: `exp_20250903_A   # first try`.
Any other `#` belongs to the value.
"""

from pathlib import Path

from fmcheck.errors import DeclarationError
from fmcheck.experiment.block import Problem, lines_of, read_block
from fmcheck.experiment.header import Header

__all__ = ["HeaderError", "Problem", "parse_header", "problems", "read_header"]


class HeaderError(DeclarationError):
    """A header that is not legal; `problems` are all of them, and the message lists them as `name:line: message`."""

    def __init__(self, name: str, problems: list[Problem]) -> None:
        super().__init__("\n".join(f"{name}:{line}: {message}" for line, message in problems))
        self.name = name
        self.problems = problems


def read_header(path: Path | str) -> Header:
    """The header at the top of a file.

    Raises:
        HeaderError: no header, or one with problems; also a file that is no UTF-8 text.
        DeclarationError: a file that cannot be read.
    """
    try:
        data = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise DeclarationError(f"{path}: cannot be read: {reason}") from error
    try:
        # Some editors put a byte order mark at the start; it is no part of the first line.
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Not `data`, from which the codec cut the byte order mark before it counted.
        line = len(lines_of(error.object[: error.start].decode("utf-8")))
        wrong = Problem(line, f"expected UTF-8 text; found the byte 0x{error.object[error.start]:02x} ({error.reason})")
        raise HeaderError(str(path), [wrong]) from error
    return parse_header(text, str(path))


def parse_header(text: str, name: str = "header") -> Header:
    """The header at the top of a text; `name` stands for it in messages.

    Raises:
        HeaderError: no header, or one with problems.
    """
    block = read_block(text)
    if block.problems:
        raise HeaderError(name, sorted(block.problems))
    return Header(**block.values)


def problems(text: str) -> list[Problem]:
    """Everything that is wrong with the header at the top of a text, by line; empty for a legal one."""
    return sorted(read_block(text).problems)
