"""`fmcheck run`: exit codes, what is written, what is refused."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fmcheck.plan import Plan
from fmcheck.session import Session
from tests.cli import toy_subject

Command = Callable[..., tuple[int, str, str]]

PLAIN_RUNS = len(Plan(toy_subject.subject).plain)


@pytest.mark.usefixtures("project", "toy_rules")
class TestExitCodes:
    def test_clean(self, fmcheck_command: Command) -> None:
        code, out, err = fmcheck_command("run", "toy:subject", "--select", "TY001")
        assert (code, err) == (0, "")
        assert "1 rule: 1 passed, 0 failed" in out
        assert out.rstrip().endswith("CLEAN")

    def test_error(self, fmcheck_command: Command) -> None:
        code, out, _ = fmcheck_command("run", "toy:subject", "--select", "TY001,TY002")
        assert code == 1
        assert "TY002 always-wrong  error" in out
        assert "FAILED: 1 rule failed (TY002)" in out

    def test_warning_fails_only_when_strict(self, fmcheck_command: Command) -> None:
        assert fmcheck_command("run", "toy:subject", "--select", "TY003")[0] == 0
        code, out, _ = fmcheck_command("run", "toy:subject", "--select", "TY003", "--strict")
        assert code == 1
        assert "warnings fail a strict gate" in out

    def test_note_never_fails(self, fmcheck_command: Command) -> None:
        assert fmcheck_command("run", "toy:subject", "--select", "TY004", "--strict")[0] == 0

    @pytest.mark.parametrize("rule", ["TY005", "TY006", "TY007"])
    def test_nothing_passes_because_nobody_looked(self, fmcheck_command: Command, rule: str) -> None:
        code, out, _ = fmcheck_command("run", "toy:subject", "--select", rule)
        assert code == 1
        assert "only 0 rules really judged something, and 1 must" in out

    def test_min_checked(self, fmcheck_command: Command) -> None:
        several = ("run", "toy:subject", "--select", "TY001,TY004", "--select", "TY005")
        assert fmcheck_command(*several, "--min-checked", "2")[0] == 0
        code, out, _ = fmcheck_command(*several, "--min-checked", "3")
        assert code == 1
        assert "only 2 rules really judged something, and 3 must" in out

    def test_broken_rule_is_not_the_model(self, fmcheck_command: Command) -> None:
        code, out, err = fmcheck_command("run", "toy:subject", "--select", "TY001,TY008")
        assert code == 3
        assert "1 rule of another package broke" in " ".join(out.split())
        assert "1 passed" in out, "the other rules are judged all the same"
        assert "rule TY008 of-our-making of package" in err
        assert "a defect of that package, not of fmcheck" in " ".join(err.split())
        assert "KeyError: 'inner'" in err
        assert "typer" not in err

    def test_interrupt(self, fmcheck_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(Session, "judge", interrupted)
        assert fmcheck_command("run", "toy:subject", "--select", "TY001") == (130, "", "")


@pytest.mark.usefixtures("project", "toy_rules")
class TestRefusals:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["toys"], "expected one of tiny or package.module:attribute"),
            (["toy:subjekt"], "toy has no 'subjekt'; did you mean 'subject'?"),
            (["nowhere:subject"], "importing 'nowhere' raised ModuleNotFoundError"),
            (["toy:not_a_subject"], "expected a fmcheck.Subject, found int"),
            (["toy:model"], "a model (Toy), where a fmcheck.Subject is expected; write a function that builds it"),
            (["toy:build_model"], "builds a model (Toy), where a fmcheck.Subject is expected; fmcheck init toy:build_"),
            (["toy:leaving", "--select", "TY001"], "the subject called sys.exit(0) while it was imported or run"),
            (["toy:unbuildable", "--select", "TY001"], "build raised TypeError"),
            (["toy:subject", "--select", "TX"], "no rule code starts with 'TX'"),
            (["toy:subject", "--dtype", "bfloat16"], "declares float32; add it to Subject.dtypes"),
            (["toy:subject", "--dtype", "float33"], "Case.dtype: expected one of"),
            (["toy:subject", "--device", "toaster"], "expected a torch device such as cpu or cuda:0"),
            (["toy:subject", "--device", "meta"], "device 'meta': there are no numbers on it to check"),
            (["toy:subject", "--repro-dir", "toy.py"], "--repro-dir toy.py: expected a folder, or a place for a new"),
            (["toy:subject", "--seed", "-1"], "Case.seed: expected an integer in"),
        ],
    )
    def test_declaration(self, fmcheck_command: Command, arguments: list[str], message: str) -> None:
        code, out, err = fmcheck_command("run", *arguments)
        assert (code, out) == (2, "")
        assert message in " ".join(err.split())
        assert err.startswith("fmcheck: ")
        assert "Traceback" not in err

    @pytest.mark.parametrize("arguments", [["--sed", "1"], ["--seed", "one"], ["--output-format", "xml"], ["a", "b"]])
    def test_usage(self, fmcheck_command: Command, arguments: list[str]) -> None:
        code, out, err = fmcheck_command("run", *arguments)
        assert (code, out) == (2, "")
        assert "Usage" in err


@pytest.mark.usefixtures("project", "toy_rules")
class TestOutput:
    def test_json_is_one_document(self, fmcheck_command: Command) -> None:
        code, out, err = fmcheck_command(
            "run", "toy:subject", "--select", "TY", "--ignore", "TY008", "--output-format=json"
        )
        document = json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert (code, err) == (1, "")
        assert document["schema"] == 1
        assert document["subject"] == "toy:subject"
        assert [o["status"] for o in document["outcomes"]] == [
            "passed",
            "failed",
            "passed",
            "passed",
            "not informative",
            "out of resources",
            "skipped",
        ]
        assert document["counts"]["passed"] == 3
        assert document["severities"]["warning"] == len(document["outcomes"][2]["findings"])
        assert {run["name"] for run in document["runs"]} >= {"base", "wide"}
        assert all(run["case"]["height"] > 0 for run in document["runs"])

    def test_github(self, fmcheck_command: Command) -> None:
        code, out, _ = fmcheck_command(
            "run", "toy:subject", "--select", "TY00", "--ignore=TY008", "--output-format=github"
        )
        lines = out.splitlines()
        assert code == 1
        assert lines[0].startswith("::error title=TY002 always-wrong::came out 3.5, expected 2.5%0Awhere: run base")
        assert [line.split(" ")[0] for line in lines[:3]] == ["::error", "::warning", "::notice"]
        assert lines[-1].startswith("fmcheck toy:subject: failed: 1 rule failed (TY002). 7 rules: 3 passed, 1 failed")

    def test_a_model_that_prints_does_not_break_it(self, fmcheck_command: Command) -> None:
        _, out, err = fmcheck_command("run", "toy:talking", "--select", "TY001", "--output-format", "json")
        assert json.loads(out)["verdict"]["failed"] is False
        assert err == "step 1 of many\n" * PLAIN_RUNS

    def test_repeat_command_keeps_what_was_asked(self, fmcheck_command: Command) -> None:
        _, out, _ = fmcheck_command("run", "toy:subject", "--select", "TY002", "--seed", "7")
        assert "repeat   fmcheck run toy:subject --select TY002 --seed 7" in out

    def test_six_outcomes_with_reasons(self, fmcheck_command: Command) -> None:
        _, out, _ = fmcheck_command("run", "toy:subject", "--select", "TY", "--ignore", "TY008")
        assert "every velocity is zero: TY005" in out
        assert "no 3 TiB here: TY006" in out
        assert "the subject declares no 'pad': TY007" in out
        assert "3 passed, 1 failed, 0 expected failures, 1 skipped, 1 not informative, 1 out of" in out
        assert "used / allowed: TY001 always-right 0.6" in out

    def test_verbose_shows_the_runs(self, fmcheck_command: Command) -> None:
        _, out, _ = fmcheck_command("run", "toy:subject", "--select", "TY001", "-v")
        assert f"runs ({PLAIN_RUNS} made, shared by 1 rule)" in out
        assert "one-step batch 1, steps 1; for TY001" in " ".join(out.split())
        assert f"{PLAIN_RUNS} generate() calls in all" in out

    def test_real_rules_find_a_wrong_scale(self, fmcheck_command: Command) -> None:
        assert fmcheck_command("run", "toy:subject", "--select", "FM203")[0] == 0
        code, out, _ = fmcheck_command("run", "toy:broken", "--select", "FM203")
        assert code == 1
        assert out.count("FM203 wrong-guidance  error") == 1
        assert "more like it, in runs base" in out

    def test_crash_is_named_once(self, fmcheck_command: Command) -> None:
        _, out, _ = fmcheck_command("run", "toy:crashing", "--select", "TY001,TY002")
        assert out.count("generate raised ValueError: the state is nowhere") == 1


class TestProcess:
    def test_version_and_help_do_not_import_torch(self, shell: Callable[..., subprocess.CompletedProcess[str]]) -> None:
        code = (
            "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); "
            "from fmcheck.cli import main; main()"
        )
        version = shell("--version", code=code)
        assert version.returncode == 0
        assert version.stdout.startswith("fmcheck 0.")
        assert version.stdout.endswith("False\n")
        for arguments in (["--help"], ["run", "--help"], []):
            shown = shell(*arguments, code=code)
            assert "Usage" in shown.stdout + shown.stderr
            assert shown.stdout.endswith("False\n")

    @pytest.mark.usefixtures("project")
    def test_exit_codes(self, shell: Callable[..., subprocess.CompletedProcess[str]]) -> None:
        failed = shell("run", "toy:broken", "--select", "FM203")
        assert (failed.returncode, failed.stderr) == (1, "")
        refused = shell("run", "toy:missing")
        assert (refused.returncode, refused.stdout) == (2, "")
        assert refused.stderr.startswith("fmcheck: subject 'toy:missing'")

    def test_ctrl_c(self, project: Path, environment: dict[str, str]) -> None:
        started = project / "started"
        process = subprocess.Popen(
            [sys.executable, "-c", "from fmcheck.cli import main; main()", "run", "toy:slow", "--select", "FM203"],
            env={**environment, "TOY_STARTED": str(started)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            deadline = time.monotonic() + 200
            while not started.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            os.kill(process.pid, signal.SIGINT)
            out, err = process.communicate(timeout=100)
        finally:
            process.kill()
        assert (process.returncode, out, err) == (130, "", "")
        assert sorted(path.name for path in project.iterdir() if path.name != "__pycache__") == [
            "pyproject.toml",
            "started",
            "toy.py",
        ]
