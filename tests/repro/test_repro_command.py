"""`fmcheck replay`: exit codes, blocks, folders, bad files, `--as-pytest`."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from fmcheck.cli_replay import replay
from fmcheck.errors import DeclarationError
from fmcheck.repro import write
from fmcheck.scenario import Scenario
from tests.cli import toy_subject
from tests.repro import examples
from tests.repro.examples import reproduction

Call = Callable[..., Result]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Call:
    """`fmcheck replay ARGS` in-process."""
    monkeypatch.setenv("COLUMNS", "100")
    app = typer.Typer()
    app.command()(replay)

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return call


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A file whose finding is still there."""
    scenario = Scenario((examples.CALL,))
    written = write(tmp_path, examples.BROKEN, toy_subject.broken, examples.FINDING, scenario)
    assert written.path is not None
    return written.path


@pytest.fixture
def fixed(tmp_path: Path) -> Path:
    """A file whose finding is gone."""
    path = tmp_path / "z" / "fixed.fmcheck.toml"
    path.parent.mkdir()
    path.write_text(reproduction(target=examples.CLEAN).as_text())
    return path


class TestExitCodes:
    def test_fixed(self, command: Call, fixed: Path) -> None:
        result = command(fixed)
        assert result.exit_code == 0
        assert result.output.startswith(f"fixed  FM203 wrong-guidance  {fixed}\n  by       FM203 passed\n")

    def test_reproduced(self, command: Call, broken: Path) -> None:
        result = command(broken)
        assert result.exit_code == 1
        assert "reproduced  FM203 wrong-guidance" in result.output
        assert "by       bit-identical, 5 tensors" in result.output

    def test_one_of_several(self, command: Call, broken: Path, fixed: Path) -> None:
        result = command(fixed, broken, fixed)
        assert result.exit_code == 1
        assert [line.split()[0] for line in result.output.splitlines() if "FM203 wrong" in line] == [
            "fixed",
            "reproduced",
        ]

    @pytest.mark.parametrize(("expect", "codes"), [("fixed", (1, 0)), ("reproduced", (0, 1)), ("file", (1, 0))])
    def test_expected(self, command: Call, broken: Path, fixed: Path, expect: str, codes: tuple[int, int]) -> None:
        assert (command("--expect", expect, broken).exit_code, command("--expect", expect, fixed).exit_code) == codes

    def test_what_a_fixture_expects(self, command: Call, broken: Path) -> None:
        broken.write_text(broken.read_text().replace('expect = "fixed"', 'expect = "reproduced"'))
        assert command("--expect", "file", broken).exit_code == 0

    def test_another_failure(self, command: Call, fixed: Path) -> None:
        fixed.write_text(reproduction(target="tests.cli.toy_subject:crashing").as_text())
        result = command(fixed)
        assert result.exit_code == 1
        assert result.output.startswith("different failure  FM203 wrong-guidance")

    def test_nothing_passes_because_nobody_looked(self, command: Call, fixed: Path) -> None:
        fixed.write_text(reproduction(target=examples.CLEAN, finding=replace(examples.FINDING, code="FM401")).as_text())
        result = command(fixed)
        assert result.exit_code == 1
        assert result.output.startswith("not judged  FM401")


class TestBadFiles:
    def test_the_others_are_replayed_first(self, command: Call, broken: Path, tmp_path: Path) -> None:
        (tmp_path / "a.fmcheck.toml").write_text("schema = 7")
        gone = tmp_path / "b.fmcheck.toml"
        gone.write_text(reproduction(target="no_such_module:subject").as_text())
        result = command(tmp_path)
        assert isinstance(result.exception, DeclarationError), "main answers it with exit code 2"
        first, second = str(result.exception).splitlines()
        assert first == f"{tmp_path}/a.fmcheck.toml: schema: expected 1, which this fmcheck reads; found 7"
        assert second.startswith(f"{gone}: subject 'no_such_module:subject': importing 'no_such_module' raised")
        assert "reproduced  FM203 wrong-guidance" in result.output

    def test_none_there(self, command: Call, tmp_path: Path) -> None:
        assert "gone.toml: cannot be read" in str(command(tmp_path / "gone.toml").exception).replace("'", "")
        assert "expected *.fmcheck.toml files in this folder; found none" in str(command(tmp_path).exception)

    def test_an_exit_in_the_subject_is_none_of_ours(self, command: Call, fixed: Path) -> None:
        fixed.write_text(reproduction(target="tests.cli.toy_subject:leaving").as_text())
        assert "the subject called sys.exit(0)" in str(command(fixed).exception)

    def test_its_prints_do_not_come_between(self, command: Call, fixed: Path) -> None:
        fixed.write_text(reproduction(target="tests.cli.toy_subject:talking").as_text())
        assert "step 1 of many" not in command(fixed).stdout


def test_folders_are_searched_in_order(command: Call, broken: Path, fixed: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.toml").write_text("not ours")
    result = command(tmp_path)
    shown = [line.split()[-1] for line in result.output.splitlines() if "FM203 wrong" in line]
    assert shown == [str(broken), str(fixed)]


def test_as_pytest_prints_and_runs_nothing(command: Call, broken: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fmcheck.trial.Bench.judged", None)
    result = command("--as-pytest", broken)
    assert result.exit_code == 0
    compile(result.output, "printed", "exec")
    assert "def test_fm203_" in result.output


def test_as_pytest_of_a_bad_file(command: Call, broken: Path, tmp_path: Path) -> None:
    (tmp_path / "z.fmcheck.toml").write_text("")
    result = command("--as-pytest", tmp_path)
    assert isinstance(result.exception, DeclarationError)
    assert result.output == ""
