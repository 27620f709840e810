"""What was found in released code: every finding is judged, and every judged one can be reproduced without fmcheck."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from fmcheck.run import check
from fmcheck.subjects.diffusers.builds import BUILDS
from fmcheck.subjects.diffusers.schedulers import SCHEDULERS
from fmcheck.subjects.load import load_subject

FOLDER = Path(__file__).parents[2] / "fixtures" / "findings"
JUDGED = tomllib.loads((FOLDER / "judged.toml").read_text())["finding"]
SUBJECTS = [f"diffusers:{name}" for name in (*BUILDS, *SCHEDULERS)]


def test_every_entry_says_where_and_how_to_see_it() -> None:
    for entry in JUDGED:
        assert entry["judgement"] in ("real defect", "documented convention", "limit")
        assert (FOLDER / entry["reproduction"]).is_file()
        assert set(entry["subjects"]) <= set(SUBJECTS)
        path, _, line = entry["where"].partition(":")
        assert path.startswith("diffusers/")
        assert line.isdigit()


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(path.name for path in FOLDER.glob("*.py")))
def test_a_reproduction_needs_nothing_but_the_released_package(script: str) -> None:
    assert "fmcheck" not in (FOLDER / script).read_text()
    done = subprocess.run([sys.executable, FOLDER / script], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("reproduced: "), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", SUBJECTS)
def test_nothing_is_found_that_is_not_judged(name: str) -> None:
    report = check(load_subject(name))
    found = {finding.code for outcome in report.outcomes for finding in outcome.findings if finding.severity != "note"}
    judged = {code for entry in JUDGED if name in entry["subjects"] for code in entry["rules"]}
    assert found <= judged, f"{sorted(found - judged)} are not judged"
    assert found or not judged, "the judged findings are gone: strike them out"
