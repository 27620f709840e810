"""`fmcheck run --plots DIR`: what is written where, what is refused before any run, and that verdicts stay."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fmcheck.session import Session

pytest.importorskip("matplotlib")

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        pytest.fail("a run was made")

    monkeypatch.setattr(Session, "run", refuse)


def without_seconds(text: str) -> str:
    return re.sub(r"\d+\.\d+ s", "", text)


@pytest.mark.usefixtures("project")
class TestPlots:
    def test_what_was_written_and_what_was_not(self, fmcheck_command: Command, project: Path) -> None:
        code, _, err = fmcheck_command("run", "toy:subject", "--select", "FM203", "--plots", "seen")
        assert code == 0
        assert err.splitlines() == [
            "picture seen/time_grid.png",
            "picture seen/t.png",
            "picture seen/state_norm.png",
            "no picture decoded_states.png: the subject declares no 'decode'",
            "picture seen/velocities.png",
        ]
        assert sorted(path.name for path in (project / "seen").iterdir()) == [
            "state_norm.png",
            "t.png",
            "time_grid.png",
            "velocities.png",
        ]

    @pytest.mark.parametrize("subject", ["toy:subject", "toy:broken", "toy:crashing"])
    def test_verdicts_stay(self, fmcheck_command: Command, subject: str) -> None:
        arguments = ("run", subject, "--select", "FM203,FM303,FM707")
        code, out, _ = fmcheck_command(*arguments)
        drawn_code, drawn_out, _ = fmcheck_command(*arguments, "--plots", "seen")
        assert drawn_code == code
        assert without_seconds(drawn_out) == without_seconds(out)

    def test_a_finding(self, fmcheck_command: Command, project: Path) -> None:
        code, _, err = fmcheck_command("run", "toy:broken", "--select", "FM203", "--plots", "seen")
        assert code == 1
        assert "picture seen/finding-FM203.png" in err
        assert (project / "seen" / "finding-FM203.png").stat().st_size > 10_000

    def test_json_is_one_document(self, fmcheck_command: Command) -> None:
        code, out, err = fmcheck_command(
            "run", "toy:talking", "--select", "FM203", "--plots", "seen", "--output-format", "json"
        )
        document = json.loads(out)
        assert code == 0
        assert set(err.splitlines()) == {"step 1 of many"}
        assert document["plots"][0] == {"name": "time_grid.png", "path": "seen/time_grid.png", "reason": ""}
        assert document["plots"][3] == {
            "name": "decoded_states.png",
            "path": None,
            "reason": "the subject declares no 'decode'",
        }

    def test_json_without_pictures_has_no_such_key(self, fmcheck_command: Command) -> None:
        _, out, _ = fmcheck_command("run", "toy:subject", "--select", "FM203", "--output-format", "json")
        assert "plots" not in json.loads(out)

    @pytest.mark.usefixtures("no_run")
    def test_a_file_in_the_place_of_the_folder(self, fmcheck_command: Command, project: Path) -> None:
        (project / "taken").write_text("mine")
        code, out, err = fmcheck_command("run", "toy:subject", "--plots", "taken")
        assert (code, out) == (2, "")
        assert "--plots taken: expected a folder" in err
        assert "Traceback" not in err
        assert (project / "taken").read_text() == "mine"

    @pytest.mark.usefixtures("no_run")
    def test_matplotlib_is_missing(
        self, fmcheck_command: Command, project: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
        code, out, err = fmcheck_command("run", "toy:subject", "--plots", "seen")
        assert (code, out) == (2, "")
        assert "pip install 'fmcheck[plots]'" in " ".join(err.split())
        assert not (project / "seen").exists()

    def test_without_the_option_matplotlib_is_not_imported(self, project: Path, shell: Callable[..., object]) -> None:
        code = (
            "import atexit, sys; atexit.register(lambda: print('matplotlib' in sys.modules)); "
            "from fmcheck.cli import main; main()"
        )
        done = shell("run", "toy:subject", "--select", "FM203", code=code)
        assert done.stdout.endswith("False\n")  # type: ignore[attr-defined]
