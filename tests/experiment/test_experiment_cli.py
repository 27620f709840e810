"""`fmcheck exp`: arguments, streams, exit codes, files that are never written over."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from fmcheck.cli_exp import exp_app
from fmcheck.errors import DeclarationError
from fmcheck.experiment import new_exp_id, read_header

NEW = [
    *(
        "new",
        "--title",
        "批大小: twice",
        "--purpose",
        "speed",
        "--key-diff",
        "batch=4096 (2048)",
        "--key-diff",
        "lr x2",
    ),
    *("--dataset", "24M t2i", "--hardware", "A100x64", "--core-params", "lr=2e-4", "--tag", "ablation", "--tag", "b2"),
]


class Result(NamedTuple):
    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def exp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """`fmcheck exp ARGS` in an empty folder. Errors are raised: `fmcheck.cli.main` answers them with 2."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def call(*arguments: str) -> Result:
        with pytest.raises(SystemExit) as left:
            exp_app(list(arguments), prog_name="fmcheck exp")
        return Result(int(left.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture
def config(legal: str, tmp_path: Path) -> Path:
    path = tmp_path / "a.yaml"
    path.write_text(legal, encoding="utf-8")
    return path


class TestCheck:
    def test_legal(self, exp: Callable[..., Result], config: Path) -> None:
        result = exp("check", "a.yaml")
        assert (result.exit_code, result.stdout) == (0, "a.yaml: exp_20250826_A guidance in the velocity domain\n")

    def test_problems_of_all_files(self, exp: Callable[..., Result], config: Path, legal: str) -> None:
        Path("b.yaml").write_text(legal.replace("20250826", "20250230").replace("24M t2i", "e.g. 24M t2i"))
        Path("c.yaml").touch()
        result = exp("check", "b.yaml", "a.yaml", "c.yaml")
        assert result.exit_code == 1
        heads = [line.split(": ")[:2] for line in result.stdout.splitlines()]
        assert [head[0] for head in heads] == ["b.yaml:4", "b.yaml:8", "a.yaml", "c.yaml:1"]

    def test_unreadable_files_do_not_hide_the_others(
        self, exp: Callable[..., Result], config: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(DeclarationError, match="none: cannot be read: .*\n.*: cannot be read: Is a directory"):
            exp_app(["check", "none", "a.yaml", "."])
        assert capsys.readouterr().out == "a.yaml: exp_20250826_A guidance in the velocity domain\n"

    def test_no_file(self, exp: Callable[..., Result]) -> None:
        assert exp("check").exit_code == 2


class TestNew:
    def test_to_stdout(self, exp: Callable[..., Result]) -> None:
        result = exp(*NEW)
        assert result.exit_code == 0
        assert result.stderr == ""
        Path("new.toml").write_text(result.stdout, encoding="utf-8")
        header = read_header("new.toml")
        assert header.exp_id == new_exp_id()
        assert header.title == "批大小: twice"
        assert header.key_diffs == ("batch=4096 (2048)", "lr x2")
        assert header.tags == ("ablation", "b2")

    def test_to_a_new_file_only(self, exp: Callable[..., Result]) -> None:
        result = exp(*NEW, "--notes", "late", "--suffix", "C", "--output", "new.toml")
        assert (result.exit_code, result.stdout) == (0, "")
        assert read_header("new.toml").exp_id == new_exp_id("C")
        before = Path("new.toml").read_bytes()
        with pytest.raises(DeclarationError, match=r"new\.toml: exists already, and is not written over"):
            exp(*NEW, "--output", "new.toml")
        assert Path("new.toml").read_bytes() == before
        with pytest.raises(DeclarationError, match="cannot be written"):
            exp(*NEW, "--output", "none/new.toml")

    def test_what_is_left_is_said_on_stderr(self, exp: Callable[..., Result]) -> None:
        result = exp("new", "--hardware", "A100x64", "--title", "a")
        assert result.exit_code == 0
        assert result.stderr.startswith("still to fill in:\nline 6: PURPOSE: expected a value of your own")
        assert "TITLE" not in result.stderr
        assert result.stdout.count("\n") == len(result.stdout.splitlines())

    @pytest.mark.parametrize("knobs", [1, 5])
    def test_number_of_knobs(self, exp: Callable[..., Result], knobs: int) -> None:
        given = [word for place in range(knobs) for word in ("--key-diff", f"k{place}")]
        with pytest.raises(DeclarationError, match=f"KEY_DIFFS: expected 2 to 4 knobs.*; found {knobs}"):
            exp("new", "--hardware", "A100x64", *given)


class TestNote:
    def test_to_stdout(self, exp: Callable[..., Result], config: Path, write_run: Callable[..., Path]) -> None:
        write_run()
        write_run("old.json", {"subject": "toy:old"})
        result = exp(
            *(
                "note",
                "run.json",
                "--config",
                "a.yaml",
                "--baseline",
                "old.json",
                "--conclusion",
                "retest",
                "--lang",
                "en",
            ),
            *("--setting", "w=3 (2)", "--setting", "steps=8", "--goal", "why", "--next", "again"),
        )
        assert result.exit_code == 0
        for line in (
            'title: "guidance in the velocity domain"',
            'links: ["a.yaml", "run.json", "old.json"]',
            "| w | 3 | 2 |",
            "| subject | toy:subject | toy:old |",
            "**retest**",
            "again",
        ):
            assert line in result.stdout.split("\n")

    def test_to_a_new_file_only(
        self, exp: Callable[..., Result], config: Path, write_run: Callable[..., Path], tmp_path: Path
    ) -> None:
        write_run()
        words = ("note", "run.json", "--config", "a.yaml", "--conclusion", "keep", "--output", "note.md")
        assert exp(*words).stdout == ""
        assert "**keep 保留**" in (tmp_path / "note.md").read_text(encoding="utf-8")
        with pytest.raises(DeclarationError, match="exists already"):
            exp(*words)

    def test_a_conclusion_is_asked_for(
        self, exp: Callable[..., Result], config: Path, write_run: Callable[..., Path]
    ) -> None:
        write_run()
        result = exp("note", "run.json", "--config", "a.yaml")
        assert result.exit_code == 2
        assert "--conclusion" in result.stderr
        assert exp("note", "run.json", "--config", "a.yaml", "--conclusion", "maybe").exit_code == 2

    def test_refused(self, exp: Callable[..., Result], config: Path, write_run: Callable[..., Path]) -> None:
        write_run()
        words = ("--config", "a.yaml", "--conclusion", "keep")
        with pytest.raises(DeclarationError, match="settings: expected at most 4; found 5"):
            exp("note", "run.json", *words, *(["--setting", "a=1"] * 5))
        with pytest.raises(DeclarationError, match=r"a\.yaml: expected the JSON that"):
            exp("note", "a.yaml", *words)
        with pytest.raises(DeclarationError, match=r"run\.json:1: expected the header"):
            exp("note", "run.json", "--config", "run.json", "--conclusion", "keep")


def test_without_arguments_the_help_is_shown(exp: Callable[..., Result]) -> None:
    result = exp()
    assert "check" in result.stdout + result.stderr


def test_a_stream_of_ascii_is_enough(config: Path, legal: str) -> None:
    config.write_text(legal.replace("guidance in", "引导 in"), encoding="utf-8")
    code = "import sys; from fmcheck.cli_exp import exp_app; exp_app(sys.argv[1:])"
    command = [sys.executable, "-X", "utf8=0", "-c", code, "check", config.name]
    done = subprocess.run(command, cwd=config.parent, env=_ascii(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u5f15\\u5bfc in the velocity domain" in done.stdout


def test_neither_check_nor_note_waits_for_torch(config: Path) -> None:
    code = "import sys; from fmcheck import cli_exp, commands_exp; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], env=_ascii(), check=True)


def _ascii() -> dict[str, str]:
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": root}
