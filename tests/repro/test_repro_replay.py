"""Replaying: reproduced, fixed, different failure, not judged; under the recorded settings, and nowhere else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fmcheck import Case, Subject
from fmcheck.errors import DeclarationError
from fmcheck.outcome import Finding
from fmcheck.repro import Reproduction, Settings, read, replay, write
from fmcheck.repro.page import replay_text
from fmcheck.repro.target import load, subject_of
from fmcheck.scenario import Call, Scenario
from fmcheck.trial import CRASH, HANG, MEMORY, Bench, failure
from tests.cli import toy_subject
from tests.repro import examples

BROKEN = toy_subject.broken


@pytest.fixture
def recorded(tmp_path: Path) -> Callable[..., Reproduction]:
    """A reproduction as `write` makes it, of the toy with another guidance scale."""

    def make(finding: Finding = examples.FINDING, scenario: Scenario | None = None) -> Reproduction:
        written = write(tmp_path, examples.BROKEN, BROKEN, finding, scenario or Scenario((examples.CALL,)))
        assert written.path is not None, written.reason
        return read(written.path)

    return make


class Elsewhere(toy_subject.Toy):
    """The same mathematics with other roundings, as another device computes."""

    def velocity(self, x: torch.Tensor, time: torch.Tensor, null: torch.Tensor) -> torch.Tensor:
        return super().velocity(x.double(), time.double(), null).float()


class TestReproduced:
    def test_bit_for_bit(self, recorded: Callable[..., Reproduction]) -> None:
        done = replay(recorded())
        assert (done.status, done.how) == ("reproduced", "bit-identical, 5 tensors")
        assert done.differences == ()
        assert done.finding is not None
        assert done.finding.code == "FM203"

    def test_within_the_bound_of_another_device(self, recorded: Callable[..., Reproduction]) -> None:
        file = recorded()
        done = replay(file, toy_subject.make("elsewhere", build=lambda case: Elsewhere(weight_error=1.0)))
        assert done.status == "reproduced"
        assert done.how.startswith("within the bound for another device (although versions and device are")
        assert max(one.ratio for one in done.comparisons) < 0.01
        assert {one.kind for one in done.comparisons} == {"identical", "within"}

    def test_says_what_differs(self, recorded: Callable[..., Reproduction]) -> None:
        file = replace(recorded(), versions={"torch": "1.0", "device": "cuda:0 (A100)"})
        done = replay(file)
        assert done.differences == (
            f"torch {torch.__version__}, recorded 1.0",
            f"device {load_device()}, recorded cuda:0 (A100)",
        )
        assert "here     torch" in replay_text(done, "a.fmcheck.toml")

    def test_without_recorded_tensors(self, recorded: Callable[..., Reproduction]) -> None:
        done = replay(replace(recorded(), prints=()))
        assert done.how == "the same rule says the same; no tensor was recorded that could be compared"

    def test_of_a_rule_that_compares_runs(self, recorded: Callable[..., Reproduction]) -> None:
        asked = recorded(replace(examples.FINDING, code="FM207"), Scenario((examples.CALL,), asks=("FM207",)))
        assert replay(asked).status == "reproduced"
        assert asked.also == ("FM203",)

    @pytest.mark.filterwarnings("ignore:TF32 acceleration")
    def test_on_real_networks_with_other_kernels(self, tmp_path: Path) -> None:
        target = "mutant:guidance_computed_and_dropped"
        case = Case(height=64, width=96, num_steps=2, dtype="bfloat16")
        finding = Finding(code="FM203", name="wrong-guidance", severity="error", message="")
        written = write(tmp_path, target, subject_of(target), finding, Scenario((Call(case=case),)))
        assert written.path is not None
        with torch.backends.mkldnn.flags(enabled=False):
            done = replay(read(written.path))
        assert done.status == "reproduced"
        assert any(one.kind == "within" for one in done.comparisons), "these kernels should round differently"
        assert max(one.ratio for one in done.comparisons) < 0.5


def load_device() -> str:
    from fmcheck.report.context import versions

    return versions("cpu")["device"]


class TestFixed:
    def test_by_correct_code(self, recorded: Callable[..., Reproduction]) -> None:
        done = replay(recorded(), toy_subject.subject)
        assert (done.status, done.how, done.finding) == ("fixed", "FM203 passed", None)

    def test_what_failed_besides_may_still_fail(self, recorded: Callable[..., Reproduction]) -> None:
        file, verdict = recorded(), Bench(BROKEN).judge(Scenario((examples.CALL,)))
        passed = next(code for code in verdict.judged if code not in verdict.failing())
        other = replace(file, finding=replace(file.finding, code=passed))
        done = replay(replace(other, also=("FM203",)))
        assert done.status == "fixed"
        assert done.how == f"{passed} passed; still failing, as when the file was written: FM203"
        assert replay(other).status == "different failure"


class TestDifferentFailure:
    def test_the_same_rule_with_other_numbers(self, recorded: Callable[..., Reproduction]) -> None:
        done = replay(recorded(), toy_subject.make("worse", build=lambda case: toy_subject.Toy(weight_error=2.0)))
        assert done.status == "different failure"
        assert done.how.startswith("the same rule fails with other numbers: 2 of 5 tensors differ, first last velocity")
        assert "expected u + 3.5" in replay_text(done, "x")

    def test_another_exception_before_the_first_tensor(self, tmp_path: Path) -> None:
        def crash_with(text: str) -> Subject:
            def crash(model: object, request: object) -> Any:
                raise ValueError(text)

            return toy_subject.make("toy that raises", generate=crash)

        code = Bench(crash_with("x")).judge(Scenario((examples.CALL,))).failing()[0]
        finding, scenario = replace(examples.FINDING, code=code), Scenario((examples.CALL,))
        written = write(tmp_path, examples.CLEAN, crash_with("row 3 of <T at 0x7f12ab>"), finding, scenario)
        assert written.path is not None
        file = read(written.path)
        assert file.prints == ()
        assert replay(file, crash_with("row 4 of <T at 0x55aa00>")).status == "reproduced"
        done = replay(file, crash_with("column 4"))
        assert (done.status, "says something else" in done.how) == ("different failure", True)

    def test_another_rule(self, recorded: Callable[..., Reproduction]) -> None:
        done = replay(recorded(), toy_subject.crashing)
        assert done.status == "different failure"
        assert done.how.startswith("FM203 does not fail, but now FM")
        assert done.finding is not None
        assert "the state is nowhere" in done.finding.message

    def test_only_where_it_is_watched(self, recorded: Callable[..., Reproduction]) -> None:
        done = replay(recorded(), toy_subject.crashing, watched=())
        assert done.status == "not judged"
        assert "FM203 could not judge: run 'fuzz': generate raised ValueError" in done.how


class TestNotJudged:
    def test_prompts_that_are_refused(self, recorded: Callable[..., Reproduction]) -> None:
        def tokenize(model: object, prompts: list[str]) -> dict[str, Any]:
            raise ValueError("longer than 77 tokens")

        done = replay(recorded(), BROKEN.but(tokenize=tokenize))
        assert done.status == "not judged"
        assert done.how == "tokenize refused the prompts: ValueError: longer than 77 tokens"

    def test_no_memory(self, recorded: Callable[..., Reproduction]) -> None:
        def exhausted(model: object, request: object) -> Any:
            raise MemoryError("no 3 TiB here")

        done = replay(recorded(), toy_subject.make("large", generate=exhausted))
        assert done.status == "not judged"
        assert "no 3 TiB here" in done.how

    def test_a_rule_that_is_skipped(self, recorded: Callable[..., Reproduction]) -> None:
        file = recorded()
        done = replay(replace(file, finding=replace(file.finding, code="FM401")), toy_subject.subject)
        assert done.status == "not judged"
        assert done.how.startswith("FM401 could not judge: ")

    def test_a_relation_that_nobody_asked_for(self, recorded: Callable[..., Reproduction]) -> None:
        file = recorded()
        done = replay(replace(file, finding=replace(file.finding, code="FM207")), toy_subject.subject)
        assert done.how == "FM207 could not judge: the rule compared nothing in this scenario"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "no_such_module:subject"}, "importing 'no_such_module' raised ModuleNotFoundError"),
        ({"target": "tests.cli.toy_subject:gone"}, "tests.cli.toy_subject has no 'gone'"),
        ({"target": "mutant:gone"}, "no mutant 'gone'"),
        ({"target": "tests.cli.toy_subject:not_a_subject"}, "expected a fmcheck.Subject, found int"),
        ({"finding": replace(examples.FINDING, code="MY999")}, "no rule 'MY999'"),
        ({"scenario": Scenario((examples.CALL.but(dtype="float16"),))}, "dtype 'float16': subject"),
    ],
)
def test_of_another_time(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        replay(examples.reproduction(**changes))


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a device that is not there")
def test_a_device_that_is_not_there(recorded: Callable[..., Reproduction]) -> None:
    elsewhere = replace(recorded(), scenario=Scenario((examples.CALL.but(device="cuda:0"),)))
    with pytest.raises(DeclarationError, match="device 'cuda:0': this machine has none; use --device cpu"):
        replay(elsewhere)
    assert replay(elsewhere, device="cpu").status == "reproduced"


class TestSettings:
    def test_the_recorded_ones_hold_while_it_runs_and_no_longer(self) -> None:
        seen = []

        def build(case: Case) -> Any:
            seen.append(Settings.now())
            return toy_subject.Toy()

        asked = Settings(
            threads=2,
            deterministic_algorithms=1,
            cudnn_deterministic=True,
            cudnn_benchmark=True,
            float32_matmul_precision="high",
            cudnn_tf32=False,
        )
        before = Settings.now()
        replay(examples.reproduction(settings=asked), toy_subject.make("seen", build=build))
        assert seen[0] == asked
        assert Settings.now() == before != asked

    def test_also_after_an_error(self) -> None:
        before = Settings.now()
        other = replace(before, float32_matmul_precision="medium", threads=before.threads + 1)
        with pytest.raises(DeclarationError, match="build raised"):
            replay(examples.reproduction(settings=other), toy_subject.unbuildable)
        assert Settings.now() == before


class TestInAProcessOfItsOwn:
    @pytest.mark.parametrize(
        ("code", "target", "status", "how"),
        [
            (CRASH, "tests.repro.examples:aborting", "reproduced", "the process died with SIGABRT"),
            (HANG, "tests.repro.examples:hanging", "reproduced", "no answer within the time limit of 2 s; killed"),
            (HANG, "tests.repro.examples:aborting", "different failure", "HANG does not fail, but now CRASH does"),
            (CRASH, examples.CLEAN, "fixed", "the process came to its end, and"),
        ],
    )
    def test_what_ends_a_process(
        self, code: str, target: str, status: str, how: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(Path(__file__).parents[2])
        done = replay(examples.reproduction(target=target, finding=_ending(code), time_limit=2.0))
        assert done.status == status
        assert how in done.how

    def test_judged_elsewhere(self) -> None:
        scenario = Scenario((examples.CALL,))
        file = examples.reproduction(finding=_ending(MEMORY))
        done = replay(file, toy_subject.subject, judge=lambda asked: failure(MEMORY, "full", asked))
        assert (done.status, done.how) == ("reproduced", "full")
        assert file.scenario == scenario


def _ending(code: str) -> Finding:
    return failure(code, "as found", Scenario((examples.CALL,))).findings[0]


class TestTheProject:
    def test_its_spec_and_its_gate_hold(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        text = '[tool.fmcheck]\nsubject = "tests.cli.toy_subject:subject"\nignore = ["FM8"]\n'
        text += '[tool.fmcheck.expected-failures]\nFM305 = "known"\n[tool.fmcheck.spec]\ngrid = "shifted"\n'
        (tmp_path / "pyproject.toml").write_text(text)
        monkeypatch.chdir(tmp_path)
        loaded = load(examples.CLEAN)
        assert loaded.subject.spec.grid == "shifted"
        assert "FM203" in loaded.watched
        assert not {"FM801", "FM305"} & loaded.watched

    def test_not_for_another_subject(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "pyproject.toml").write_text(
            '[tool.fmcheck]\nsubject = "tiny"\n[tool.fmcheck.spec]\ngrid = "shifted"\n'
        )
        monkeypatch.chdir(tmp_path)
        found: Subject = load(examples.CLEAN).subject
        assert found.spec == toy_subject.subject.spec


class TestText:
    def test_control_characters_do_not_reach_the_terminal(self) -> None:
        finding = replace(
            examples.FINDING, name="\x1b[2J", message="a\x1b]0;title\x07b", where="\r\n", diagnosis="\x9b"
        )
        done = replay(examples.reproduction(finding=finding, versions={"torch": "\x1b[31m"}), toy_subject.subject)
        text = replay_text(done, "a\x1b.fmcheck.toml")
        assert not {"\x1b", "\x07", "\x9b", "\r"} & set(text)

    def test_blocks(self, recorded: Callable[..., Reproduction]) -> None:
        file = recorded()
        lines = replay_text(replay(file), "a.fmcheck.toml").splitlines()
        assert lines[0] == "reproduced  FM203 wrong-guidance  a.fmcheck.toml"
        assert lines[1] == "  by       bit-identical, 5 tensors"
        assert lines[2] == f"  subject  {examples.BROKEN}"
        assert lines[3].startswith("  case     batch 2 16x24 steps 4")
        assert lines[4].startswith("  recorded FM203 the loop behaves as")
