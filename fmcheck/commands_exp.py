"""What the commands of `fmcheck exp` do."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from fmcheck.errors import DeclarationError
from fmcheck.experiment import HeaderError, Setting, draft_lines, problems, read_header, read_run, render_note

__all__ = ["check", "new", "note"]


def check(paths: Sequence[Path]) -> int:
    """Say what is wrong with the headers of files, a line each, or what the experiment is; 1 on any problem.

    Raises:
        DeclarationError: files that cannot be read. What is wrong with the others has been said by then.
    """
    code, unreadable = 0, []
    for path in paths:
        try:
            header = read_header(path)
        except HeaderError as error:
            _print(str(error))
            code = 1
        except DeclarationError as error:
            unreadable.append(str(error))
        else:
            _print(f"{path}: {header.exp_id} {header.title}")
    if unreadable:
        raise DeclarationError("\n".join(unreadable))
    return code


def new(given: Mapping[str, str | Sequence[str]], *, suffix: str, output: Path | None) -> None:
    """Write a new header to `output` or stdout, and say on stderr which fields are still to be filled in.

    Raises:
        DeclarationError: a value that its field cannot hold, or a file that exists or cannot be written.
    """
    text = "".join(f"{line}\n" for line in draft_lines(given, suffix=suffix))
    _write(text, output)
    if left := [f"line {line}: {message}" for line, message in problems(text)]:
        _print("\n".join(["still to fill in:", *left]), sys.stderr)


def note(
    run_json: Path,
    config: Path,
    *,
    conclusion: str,
    baseline: Path | None,
    settings: Sequence[str],
    goal: str,
    next_step: str,
    language: str,
    output: Path | None,
) -> None:
    """Write the note of an experiment to `output` or stdout.

    Raises:
        DeclarationError: a run's JSON, a header or a setting that is none, or a file that exists or cannot be written.
    """
    text = render_note(
        read_header(config),
        read_run(run_json),
        conclusion=conclusion,
        baseline=read_run(baseline) if baseline else None,
        settings=[Setting.parse(setting) for setting in settings],
        goal=goal,
        next_step=next_step,
        language=language,
        links=[path.as_posix() for path in (config, run_json, baseline) if path],
    )
    _write(text, output)


def _write(text: str, output: Path | None) -> None:
    if output is None:
        _print(text.removesuffix("\n"))
        return
    try:
        # Mode x refuses an existing file in the same step in which it creates a new one.
        with output.open("xb") as file:
            file.write(text.encode("utf-8", "backslashreplace"))
    except FileExistsError as error:
        raise DeclarationError(f"{output}: exists already, and is not written over; name another file") from error
    except (OSError, ValueError) as error:
        raise DeclarationError(f"{output}: cannot be written: {error}") from error


def _print(text: str, stream: TextIO | None = None) -> None:
    """Print on streams of any encoding: a title in Chinese must not break the check of a file in a log of ASCII."""
    stream = stream or sys.stdout
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)
