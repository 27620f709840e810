"""The development log of 2025-08-26 as reproduction files: still caught on its mutants, gone on the clean model.

That each is reproduced is a test of its own: pytest collects the files themselves.
"""

from pathlib import Path

import pytest

from fmcheck.repro import read, replay
from fmcheck.subject import Subject
from fmcheck.subjects.tiny import subject
from tests.regressions.write_regressions import FOLDER, log_mutants

FILES = sorted(FOLDER.glob("*.fmcheck.toml"))


def test_every_line_of_the_log_has_its_file() -> None:
    files = {read(path).target.removeprefix("mutant:"): read(path).code for path in FILES}
    assert files == {entry.name: entry.caught_by for entry in log_mutants()}
    assert {name[:4] for name in files} == {f"log{line}" for line in range(1, 10)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_clean_model_is_the_fix(path: Path) -> None:
    clean: Subject = subject
    done = replay(read(path), clean)
    assert done.status == "fixed", done
