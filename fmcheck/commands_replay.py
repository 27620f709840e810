"""What `fmcheck replay` does."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from fmcheck.commands import contained, progress, stdout, width_of
from fmcheck.errors import DeclarationError
from fmcheck.repro import SUFFIX, Replayed, as_pytest, read
from fmcheck.repro import replay as replay_one
from fmcheck.repro.page import replay_page

__all__ = ["print_tests", "replay"]


def replay(paths: Sequence[Path], *, expect: str, device: str | None) -> int:
    """Replay files one after the other and print a block for each; 1 when one is not as expected.

    Args:
        expect: `fixed`, `reproduced`, or `file` for what each file says.

    Raises:
        DeclarationError: damaged files, subjects that are gone, a device that is not there. The other files have been
            replayed by then.
    """
    files = list(_files(paths))
    console = stdout()
    bad: list[str] = []
    failed = 0
    with progress(len(files), "files") as (say, advance):
        for path in files:
            say(path.name)
            try:
                done = _replayed(path, device)
            except DeclarationError as error:
                bad.append(_about(path, error))
            else:
                failed += done.status != (done.reproduction.expect if expect == "file" else expect)
                replay_page(done, str(path), width_of(console)).show(console)
            advance()
    if bad:
        raise DeclarationError("\n".join(bad))
    return int(failed > 0)


def print_tests(paths: Sequence[Path]) -> None:
    """Print the files as a test module.

    Raises:
        DeclarationError: a damaged file; nothing is printed then.
    """
    text = as_pytest([read(path) for path in _files(paths)])
    encoding = sys.stdout.encoding or "utf-8"
    # Its strings are literals, in which \u4e2d is the letter itself.
    print(text.encode(encoding, "backslashreplace").decode(encoding), end="")


def _replayed(path: Path, device: str | None) -> Replayed:
    with contained():
        return replay_one(read(path), device=device)


def _about(path: Path, error: DeclarationError) -> str:
    return str(error) if str(path) in str(error) else f"{path}: {error}"


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    """The files, each once, and those below folders in order.

    Raises:
        DeclarationError: a folder without any.
    """
    seen = set()
    for path in paths:
        found = sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path]
        if not found:
            raise DeclarationError(f"{path}: expected *{SUFFIX} files in this folder; found none")
        for file in found:
            if file not in seen:
                seen.add(file)
                yield file
