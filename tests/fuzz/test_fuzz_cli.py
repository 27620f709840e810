"""`fmcheck fuzz`: exit codes, what is written, what is refused, and the case that is on disk while the model runs."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fmcheck.fuzz_gate
from fmcheck.cli_fuzz import seconds_of
from fmcheck.errors import DeclarationError
from fmcheck.fuzz import Local
from fmcheck.repro import read
from fmcheck.repro.spool import Spool
from fmcheck.scenario import Call, Scenario
from fmcheck.trial import Bench
from tests.cli import toy_subject

Command = Callable[..., tuple[int, str, str]]
CLEAN = ("--select", "FM101,FM203,FM304")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a process for the model, whose start takes seconds."""

    def local(make: Callable[[], Bench], **limits: float) -> Local:
        return Local(make())

    monkeypatch.setattr(fmcheck.fuzz_gate, "Isolated", local)


@pytest.mark.usefixtures("project")
class TestInAProcessOfItsOwn:
    def test_a_clean_subject_whose_case_is_on_disk_whenever_its_model_runs(
        self, project: Path, fmcheck_command: Command, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TOY_SPOOL", str(project / ".hypothesis" / "fmcheck"))
        code, out, err = fmcheck_command("fuzz", "toy_fuzz:looking", *CLEAN, "--select", "FM7", "--examples", "12")
        assert (code, err) == (0, "")
        assert "12 examples" in out
        assert out.rstrip().endswith("CLEAN")
        assert len((project / ".hypothesis" / "looked").read_text()) >= 12
        assert list(project.rglob("under-way-*")) == [], "a campaign that has ended leaves none"

    def test_a_model_that_cannot_be_built_is_a_wrong_declaration(self, fmcheck_command: Command) -> None:
        code, out, err = fmcheck_command("fuzz", "toy_fuzz:unbuildable", *CLEAN, "--examples", "3", "--no-database")
        assert (code, out) == (2, "")
        assert "build raised RuntimeError: no checkpoint" in " ".join(err.split())


@pytest.mark.usefixtures("project", "in_process")
class TestFailures:
    def test_a_broken_rule(self, project: Path, fmcheck_command: Command) -> None:
        arguments = ("fuzz", "toy_fuzz:squares", "--select", "FM203", "--examples", "40", "--seed", "1")
        code, out, err = fmcheck_command(*arguments, "--repro-dir", "found")
        assert (code, err) == (1, "")
        shown = " ".join(out.split())
        assert "FM203 wrong-guidance found by example" in shown
        assert "FM203 wrong-guidance smallest case" in shown
        assert re.search(r"case +batch 1  16x16  steps \d  guidance", out)
        assert "FAILED: 1 rule broken (FM203)" in shown
        assert "seed 1" in shown
        (path,) = (project / "found").glob("*.fmcheck.toml")
        assert f"replay fmcheck replay found/{path.name}" in shown
        kept = read(path)
        assert (kept.target, kept.finding.code) == ("toy_fuzz:squares", "FM203")
        assert kept.scenario.last.case.height == kept.scenario.last.case.width == 16
        again, out, _ = fmcheck_command(*arguments[:-4], "--examples", "1", "--seed", "77")
        assert again == 1
        assert "from the example database" in out, "kept in .hypothesis/examples"

    def test_json_is_one_document(self, fmcheck_command: Command) -> None:
        arguments = ("fuzz", "toy_fuzz:squares", "--select", "FM203", "--examples", "40", "--seed", "1")
        code, out, err = fmcheck_command(*arguments, "--output-format", "json", "--repro-dir", "found")
        assert (code, err) == (1, "")
        document = json.loads(out)
        (found,) = document["finds"]
        assert (found["code"], found["shrunk"], found["findings"][0]["code"]) == ("FM203", True, "FM203")
        assert Scenario.from_table(found["scenario"]).last.case.width == 16
        assert Scenario.from_table(found["first"])
        assert [read(Path(file)).finding.code for file in found["files"]] == ["FM203"]
        assert (document["subject"], document["seed"], document["examples"]) == ("toy_fuzz:squares", 1, 40)
        assert document["judged"]["FM203"] > 0
        assert "coincidences" in document["coverage"]

    def test_out_of_memory_fails_only_a_strict_campaign(self, fmcheck_command: Command, project: Path) -> None:
        (project / "toy_fuzz.py").write_text(
            "from tests.cli.toy_subject import make\n"
            "def no_memory(model, request):\n    raise MemoryError('no 3 TiB here')\n"
            "subject = make('hungry', generate=no_memory)\n"
        )
        arguments = ("fuzz", "toy_fuzz:subject", "--select", "FM203", "--examples", "2", "--no-database")
        code, out, _ = fmcheck_command(*arguments)
        assert code == 0
        assert "MEMORY out-of-memory" in " ".join(out.split())
        assert fmcheck_command(*arguments, "--strict")[0] == 1


@pytest.mark.usefixtures("project", "in_process")
class TestEnds:
    def test_by_time(self, fmcheck_command: Command) -> None:
        code, out, _ = fmcheck_command("fuzz", "toy:subject", "--select", "FM304", "--time", "1s", "--no-database")
        assert code == 0
        found = re.search(r"(\d+) examples.* ([\d.]+) s, seed", " ".join(out.split()))
        assert found
        assert int(found[1]) >= 1
        assert 1.0 <= float(found[2]) < 10.0

    def test_a_profile_that_never_changes(self, fmcheck_command: Command) -> None:
        arguments = ("fuzz", "toy:subject", "--select", "FM304", "--profile", "gate", "--output-format", "json")
        first, second = (json.loads(fmcheck_command(*arguments)[1]) for _ in range(2))
        assert (first["examples"], first["seed"]) == (50, 0)
        assert first["coverage"] == second["coverage"]

    def test_only_the_selected_rules_judge(self, fmcheck_command: Command) -> None:
        arguments = ("fuzz", "toy:subject", "--select", "FM3", "--ignore", "FM304,FM306,FM309,FM310")
        _, out, _ = fmcheck_command(*arguments, "--examples", "5", "--no-database", "--output-format", "json")
        judged = json.loads(out)["judged"]
        assert judged
        assert all(code.startswith("FM3") and code != "FM304" for code in judged)

    def test_bounds_of_what_is_asked_for(self, fmcheck_command: Command) -> None:
        bounds = ("--max-batch", "2", "--max-steps", "3", "--max-side", "16", "--weights", "0", "1", "--budget", "2000")
        arguments = ("fuzz", "toy:subject", "--select", "FM304", "--examples", "30", "--no-database")
        _, out, _ = fmcheck_command(*arguments, *bounds, "--output-format", "json")
        seen = json.loads(out)["coverage"]
        assert set(re.findall(r"(\d+) \(", seen["batch"])) <= {"1", "2"}
        assert set(re.findall(r"(\d+) \(", seen["steps"])) <= {"1", "2", "3"}
        assert set(re.findall(r"(\d+)x(\d+)", seen["size"])) <= {("8", "8"), ("8", "16"), ("16", "8"), ("16", "16")}
        assert "negative" not in seen["guidance"]
        assert "huge" not in seen["guidance"]

    def test_verbose_shows_every_axis(self, fmcheck_command: Command) -> None:
        arguments = ("fuzz", "toy:subject", "--select", "FM304", "--examples", "3", "--no-database")
        assert "prompts" not in fmcheck_command(*arguments)[1]
        assert "prompts" in fmcheck_command(*arguments, "--verbose")[1]

    def test_an_interrupt(self, fmcheck_command: Command, monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
        def stop(self: Local, scenario: Scenario, *, fresh: bool) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(Local, "judge", stop)
        code, out, _ = fmcheck_command("fuzz", "toy:subject", "--select", "FM304")
        assert code == 130
        assert "interrupted" in out
        assert "CLEAN" not in out
        assert list(project.rglob("under-way-*")) == []


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["toy:subject", "--time", "soon"], "--time 'soon': expected a duration such as 90s, 10m or 1.5h"),
        (["toy:subject", "--time", "0s"], "--time '0s': expected a duration"),
        (["toy:subject", "--time", "-5s"], "expected a duration"),
        (["toy:subject", "--profile", "nigthly"], "profile 'nigthly': expected gate or nightly"),
        (["toy:subject", "--profile", "nigthly"], "did you mean 'nightly'?"),
        (["toy:subject", "--examples", "0"], "expected a positive integer; found 0"),
        (["toy:subject", "--weights", "2", "1"], "Domain.weights: expected a pair (low, high), low < high"),
        (["toy:subject", "--select", "TX"], "no rule code starts with 'TX'"),
        (["toy:subjekt"], "toy has no 'subjekt'; did you mean 'subject'?"),
        (["nowhere:subject"], "importing 'nowhere' raised ModuleNotFoundError"),
        (["toy:subject", "--max-batch", "0"], "Input should be greater than or equal to 1"),
        (["toy:subject", "-n", "0"], "Input should be greater than or equal to 1"),
        (["toy:subject", "--seed", "-1"], "Input should be greater than or equal to 0"),
    ],
)
def test_wrong_usage(fmcheck_command: Command, arguments: list[str], message: str) -> None:
    code, out, err = fmcheck_command("fuzz", *arguments)
    assert (code, out) == (2, "")
    assert message in " ".join(re.sub(r"[│╭╮╰╯─]", " ", err).split())


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), (" 2 m ", 120), ("0.5s", 0.5)]
)
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "1d", "1h30m", "1e3", "-1", "0", "0.0h", "nan", "inf", "1 000"])
def test_no_durations(text: str) -> None:
    with pytest.raises(DeclarationError, match="expected a duration such as 90s, 10m or"):
        seconds_of(text)


class TestSpool:
    SCENARIO = Scenario(
        (Call(case=toy_subject.subject.case), Call(case=toy_subject.subject.case.but(seed=3))), ("FM204",)
    )

    @pytest.fixture
    def spool(self, tmp_path: Path) -> Iterator[Spool]:
        spool = Spool(tmp_path / "deep" / "folder", "toy:subject", "cpu")
        yield spool
        spool.done()
        assert not spool.path.exists()

    def test_the_case_under_way_can_be_read_and_replayed_like_any_other(self, spool: Spool) -> None:
        spool.note(self.SCENARIO)
        kept = read(spool.path)
        assert (kept.target, kept.finding.code, kept.scenario) == ("toy:subject", "CRASH", self.SCENARIO)

    def test_it_is_always_the_latest(self, spool: Spool) -> None:
        for seed in range(3):
            spool.note(Scenario((Call(case=toy_subject.subject.case.but(seed=seed)),)))
            assert read(spool.path).scenario.last.case.seed == seed

    def test_nothing_is_made_before_the_first_case_and_ending_twice_is_no_error(self, spool: Spool) -> None:
        assert not spool.path.parent.exists()
        spool.done()
        spool.done()


@pytest.mark.slow
@pytest.mark.usefixtures("project")
def test_two_workers_report_as_one(fmcheck_command: Command, project: Path) -> None:
    arguments = ("fuzz", "toy_fuzz:squares", "--select", "FM203", "--examples", "41", "--seed", "1", "-n", "2")
    code, out, _ = fmcheck_command(*arguments, "--output-format", "json", "--repro-dir", "found")
    assert code == 1
    document = json.loads(out)
    assert [found["code"] for found in document["finds"]] == ["FM203"]
    assert document["examples"] == 42, "each has half of them, rounded up"
    assert list(project.rglob("under-way-*")) == []
