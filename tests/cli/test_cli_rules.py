"""`fmcheck rules`, `explain` and `mutants`."""

import json
import os
import signal
from collections.abc import Callable

import pytest

from fmcheck import commands_mutants
from fmcheck.mutants import Mutant, Variation, get_mutant
from fmcheck.rules import all_rules

Command = Callable[..., tuple[int, str, str]]


def _killed(mutant: Mutant, *, full: bool) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class TestRules:
    def test_table_has_every_rule_and_fits(self, fmcheck_command: Command) -> None:
        code, out, _ = fmcheck_command("rules", columns=80)
        assert code == 0
        for rule in all_rules():
            assert f"  {rule.code} {rule.name}" in out
        assert "FM2  guidance" in out
        assert max(map(len, out.splitlines())) <= 80

    def test_json(self, fmcheck_command: Command) -> None:
        _, out, _ = fmcheck_command("rules", "--output-format", "json")
        table = {entry["code"]: entry for entry in json.loads(out)}
        assert list(table) == [rule.code for rule in all_rules()]
        assert table["FM203"]["name"] == "wrong-guidance"
        assert table["FM203"]["must_hold"].startswith("The velocity that moves the state")
        assert table["FM206"]["kind"] == "relation"


class TestExplain:
    @pytest.mark.parametrize("name", ["FM203", "fm203", "wrong-guidance"])
    def test_four_parts(self, fmcheck_command: Command, name: str) -> None:
        code, out, _ = fmcheck_command("explain", name, columns=80)
        assert code == 0
        assert out.startswith("FM203 wrong-guidance\n\nWhat must hold\n  The velocity that moves")
        titles = [line for line in out.splitlines() if line and not line.startswith(" ")][1:]
        assert titles == ["What must hold", "How it goes wrong", "Checked", "Fix", "Source", "Needs"]
        assert max(map(len, out.splitlines())) <= 80

    def test_every_rule_has_its_parts(self, fmcheck_command: Command) -> None:
        for rule in all_rules():
            code, out, _ = fmcheck_command("explain", rule.code)
            assert code == 0
            for title in ("How it goes wrong", "Checked", "Fix"):
                assert f"\n{title}\n  " in out, f"{rule} has no part {title!r}"

    def test_unknown_names_the_nearest(self, fmcheck_command: Command) -> None:
        code, out, err = fmcheck_command("explain", "wrong-guidence")
        assert (code, out) == (2, "")
        assert "no rule 'wrong-guidence'; did you mean 'wrong-guidance'?" in err


class TestMutants:
    def test_list(self, fmcheck_command: Command) -> None:
        code, out, _ = fmcheck_command("mutants", "--list")
        assert code == 0
        assert "  FM202 log6_rows_interleaved" in out
        assert "correct variations" in out

    def test_caught(self, fmcheck_command: Command) -> None:
        code, out, err = fmcheck_command("mutants", "log6_rows_interleaved")
        assert (code, err) == (0, "")
        assert "log6_rows_interleaved caught by FM202" in out
        assert "1 mutant: 1 caught by the rule they name, 0 by another, 0 missed" in out

    @pytest.mark.slow
    def test_several_processes_keep_the_order(self, fmcheck_command: Command) -> None:
        names = ["uniform_grid", "log6_rows_interleaved", "clamped_at_a_thousandth"]
        code, out, err = fmcheck_command("mutants", *names, "-n", "2")
        assert (code, err) == (0, "")
        assert [line.split()[:4] for line in out.splitlines()[:3]] == [
            ["uniform_grid", "caught", "by", "FM303"],
            ["log6_rows_interleaved", "caught", "by", "FM202"],
            ["clamped_at_a_thousandth", "caught", "by", "FM305"],
        ]

    @pytest.mark.slow
    def test_a_process_that_was_killed(self, fmcheck_command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(commands_mutants, "_kill", _killed)
        code, _, err = fmcheck_command("mutants", "uniform_grid", "-n", "2")
        assert code == 2
        assert "ask for fewer --workers" in " ".join(err.split())
        assert "Traceback" not in err

    def test_unknown(self, fmcheck_command: Command) -> None:
        code, _, err = fmcheck_command("mutants", "log6_rows_interleave")
        assert code == 2
        assert "did you mean 'log6_rows_interleaved'?" in err

    def test_misses_and_false_alarms_fail(
        self, fmcheck_command: Command, monkeypatch: pytest.MonkeyPatch, toy_rules: None
    ) -> None:
        from fmcheck.rules import registry

        only = {code: rule for code, rule in registry._RULES.items() if code in ("TY001", "TY002")}
        monkeypatch.setattr(registry, "_RULES", only)
        monkeypatch.setattr(commands_mutants, "all_mutants", lambda: [get_mutant("log6_rows_interleaved")])
        same = Variation("same_again", lambda subject: subject)
        monkeypatch.setattr(commands_mutants, "all_variations", lambda: [same])
        code, out, _ = fmcheck_command("mutants", "--full")
        assert code == 1
        assert "caught by another (TY002), not by FM202" in out
        assert out.count("false alarm: TY002 always-wrong") == 2
        assert "2 correct pipelines: 2 false alarms" in " ".join(out.split())
        monkeypatch.setattr(registry, "_RULES", {"TY001": only["TY001"]})
        code, out, _ = fmcheck_command("mutants", "--full")
        assert code == 1
        assert "missed, FM202 should catch it" in out
        assert out.count("silent, 1 rule passed") == 2
