"""`fmcheck run --nproc`, the same in the configuration and in pytest: what is refused, what is said, what is made."""

import json
import multiprocessing
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

import fmcheck
from fmcheck.errors import DeclarationError
from fmcheck.gate import prepare
from fmcheck.ranks.pool import Ranks
from fmcheck.subjects import load_subject

Command = Callable[..., tuple[int, str, str]]
CODES = ("FM841", "FM842", "FM843", "FM844", "FM845")


def statuses(out: str) -> dict[str, tuple[str, str]]:
    return {entry["code"]: (entry["status"], entry["reason"]) for entry in json.loads(out)["outcomes"]}


@pytest.fixture(autouse=True)
def _no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about what is said before a process is started; the slow ones start some."""

    def refuse(_: Ranks) -> None:
        raise AssertionError("a process would have been started")

    monkeypatch.setattr(Ranks, "_started", refuse)


@pytest.mark.usefixtures("project")
class TestRefusals:
    @pytest.mark.parametrize("number", ["0", "-1", "two", "1.5"])
    def test_a_number_that_is_none(self, fmcheck_command: Command, number: str) -> None:
        code, out, err = fmcheck_command("run", "toy:subject", "--nproc", number)
        assert (code, out) == (2, "")
        assert "Invalid value for '--nproc'" in err

    def test_more_ranks_than_prompts(self, fmcheck_command: Command) -> None:
        code, out, err = fmcheck_command("run", "toy:subject", "--nproc", "8")
        assert (code, out) == (2, "")
        assert err.startswith("fmcheck: nproc 8: expected at most 7, the number of prompts that the ranks are given")

    def test_fewer_gpus_than_ranks(self, fmcheck_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        code, out, err = fmcheck_command("run", "toy:subject", "--nproc", "2", "--device", "cuda")
        assert (code, out) == (2, "")
        assert "nproc 2: this machine has 1 GPUs, and every rank needs its own" in " ".join(err.split())

    @pytest.mark.parametrize("value", ["0", "true", '"2"'])
    def test_in_the_configuration(self, configure: Callable[[str], Path], fmcheck_command: Command, value: str) -> None:
        configure(f"nproc = {value}\n")
        code, out, err = fmcheck_command("run", "toy:subject", "--select", "FM8")
        assert (code, out) == (2, "")
        assert "nproc" in err

    def test_in_a_suite(self) -> None:
        with pytest.raises(DeclarationError, match="nproc: expected a number of processes from 1; found 0"):
            fmcheck.suite("tiny", nproc=0)


@pytest.mark.usefixtures("project")
class TestSkipped:
    def test_without_being_asked_for(self, fmcheck_command: Command) -> None:
        _, out, _ = fmcheck_command("run", "tiny", "--select", "FM84", "--output-format", "json")
        found = statuses(out)
        assert found == dict.fromkeys(CODES, ("skipped", "runs with several processes only: --nproc 2"))

    def test_where_the_subject_declares_nothing(self, fmcheck_command: Command) -> None:
        _, out, _ = fmcheck_command("run", "toy:subject", "--select", "FM84", "--nproc", "2", "--output-format", "json")
        reasons = {code: reason for code, (_, reason) in statuses(out).items()}
        undeclared = "the subject declares no 'generate_rank'"
        assert reasons == dict.fromkeys(CODES, undeclared) | {"FM843": "the subject declares no 'shard'"}

    def test_where_no_process_can_load_it(self) -> None:
        report = fmcheck.check(load_subject("tiny"), select=["FM84"], nproc=2)
        reasons = {outcome.reason for outcome in report.outcomes}
        assert reasons == {"a process of its own has no way to this subject: name it as package.module:attribute"}


@pytest.mark.usefixtures("project")
def test_the_number_comes_from_the_argument_then_from_the_configuration(configure: Callable[[str], Path]) -> None:
    assert prepare("toy:subject").nproc == 1
    configure("nproc = 2\n")
    assert prepare("toy:subject").nproc == 2
    assert prepare("toy:subject", nproc=4).nproc == 4
    gate = prepare("toy:subject")
    assert gate.load is not None
    assert gate.load().name == "toy"
    assert gate.context().rerun_of("FM841").endswith("--select FM841 --seed 0 --nproc 2")


def test_a_correct_variation_is_a_subject_too() -> None:
    assert load_subject("variation:parts_in_blocks").name == "tiny with parts_in_blocks"
    with pytest.raises(DeclarationError, match="did you mean 'parts_in_blocks'"):
        load_subject("variation:parts_in_block")


@pytest.mark.slow
class TestProcesses:
    @pytest.fixture(autouse=True)
    def _processes_after_all(self, monkeypatch: pytest.MonkeyPatch, _no_process: None) -> None:
        monkeypatch.undo()

    @pytest.mark.parametrize("nproc", [2, 3, 4])
    def test_the_tiny_model_passes_on_any_number_of_ranks(self, nproc: int) -> None:
        report = fmcheck.check(load_subject("tiny"), select=["FM84"], nproc=nproc, load=partial(load_subject, "tiny"))
        assert {o.rule.code: o.status for o in report.outcomes} == dict.fromkeys(CODES, "passed")
        assert not report.findings
        assert [text for o in report.outcomes for text in o.measured] == [
            f"velocity of the network sharded over {nproc} ranks: that of one process, bit for bit"
        ]

    def test_the_command_finds_and_reports(self, fmcheck_command: Command, tmp_path: Path) -> None:
        target = ("run", "mutant:parts_gathered_rank_by_rank", "--select", "FM84", "--nproc", "2")
        code, out, err = fmcheck_command(*target, "--repro-dir", str(tmp_path / "repro"))
        assert code == 1
        assert "FM844 ranks-change-pictures  error" in out
        assert "--select FM844 --seed 0 --nproc 2" in " ".join(out.split())
        assert "FM844: no file: a file holds runs in one process" in err

    def test_a_suite_judges_them(self, run_pytest: Callable[..., pytest.RunResult], pytester: pytest.Pytester) -> None:
        pytester.makepyfile("import fmcheck\ntest_tiny = fmcheck.suite('tiny', select=['FM841', 'FM842'], nproc=2)")
        run_pytest("-q").assert_outcomes(passed=2)
        # A suite keeps its ranks until its process ends, which here is that of all tests.
        for process in multiprocessing.active_children():
            process.kill()
            process.join()
