"""The text report: order of a message, grouping, widths, colour, counts."""

import re
from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console

from fmcheck import Case, Finding, Report
from fmcheck.outcome import Outcome
from fmcheck.report.context import Context, rerun_command
from fmcheck.report.groups import group_findings
from fmcheck.report.layout import hanging, plain
from fmcheck.report.text import outcome_text, report_page
from fmcheck.report.verdict import verdict_of

Findings = Callable[..., Finding]
Outcomes = Callable[..., Outcome]


def text_of(report: Report, context: Context, width: int = 100, **how: bool) -> str:
    return plain([report_page(report, verdict_of(report), context, width=width, **how)])


class TestMessage:
    def test_fixed_order(self, context: Context, finding: Findings, outcome: Outcomes) -> None:
        failed = outcome("FM203", "wrong-guidance", "failed", finding(used=1.0, allowed=3e-5, ratio=33333.3))
        assert outcome_text(failed, context, width=100) == (
            "FM203 wrong-guidance  error\n"
            "  property The property holds: `v = (1 + w) c - w u`.\n"
            "  where    run base, step 0 of 4\n"
            "  observed came out 3.5, expected 2.5\n"
            "           error 1, allowed 3e-05: 3.33e+04 times the bound\n"
            "  case     latent f32[3,32,8,8]  image 256x256  steps 4  guidance 2.5  cpu\n"
            "  cause    likely: halves swapped, the scale of another convention (fmcheck explain FM203)\n"
            "  repeat   fmcheck run tiny --select FM203 --seed 0"
        )

    def test_a_diagnosis_takes_the_place_of_likely_causes(
        self, context: Context, finding: Findings, outcome: Outcomes
    ) -> None:
        twice = finding(diagnosis="guidance is applied twice")
        text = outcome_text(outcome("FM203", "wrong-guidance", "failed", finding(), twice, twice), context)
        assert "  cause    guidance is applied twice\n" in text
        assert "likely" not in text

    def test_a_finding_about_several_runs_shows_the_native_case(
        self, context: Context, finding: Findings, outcome: Outcomes
    ) -> None:
        text = outcome_text(outcome("FM206", "x", "failed", finding(run="", case=None, where="runs a and b")), context)
        assert "  where    runs a and b\n" in text
        assert "latent f32[3,32,8,8]" in text

    def test_a_command_is_never_broken(self, context: Context, finding: Findings, outcome: Outcomes) -> None:
        long = "my_company.models.text_to_image.checks:subject_of_the_nightly_gate"
        context = Context(
            target=long, subject=context.subject, rerun=rerun_command(long, Case(seed=3, dtype="bfloat16"), Case())
        )
        text = outcome_text(outcome("FM203", "wrong-guidance", "failed", finding()), context, width=80)
        assert text.splitlines()[-1] == f"  repeat   fmcheck run {long} --select FM203 --seed 3 --dtype bfloat16"


class TestGroups:
    def test_same_shape_of_message_is_one_group(self, finding: Findings) -> None:
        groups = group_findings(
            [
                finding("rows [1, 2] of 4, off by 1e-3"),
                finding("rows [3] of 8, off by 2.5", run="wide"),
                finding("other"),
            ]
        )
        assert [len(group.findings) for group in groups] == [2, 1]
        assert groups[0].runs == {"base": 1, "wide": 1}

    def test_ranks_and_severities_are_kept_apart(self, finding: Findings) -> None:
        found = [finding("found f32[6,1]"), finding("found f32[6,1,1]"), finding("found f32[2,1]", severity="warning")]
        assert len(group_findings(found)) == 3

    def test_diagnoses_and_reasons_too(
        self, context: Context, finding: Findings, outcome: Outcomes, report: Report
    ) -> None:
        found = [finding(diagnosis=f"wrong rank, N={n}") for n in (6, 3, 2)] + [finding(diagnosis="other")]
        assert group_findings(found)[0].diagnoses == ["wrong rank, N=6", "other"]
        silent = [outcome(f"FM30{n}", "x", "not informative", reason=f"run 'r{n}': found [{n}]") for n in (1, 2)]
        text = text_of(Report(**{**vars(report), "outcomes": tuple(silent)}), context)
        assert "  run 'r1': found [1]: FM301 FM302\n" in text

    def test_report_shows_a_group_once_with_its_runs_and_its_worst(self, report: Report, context: Context) -> None:
        text = text_of(report, context)
        assert text.count("FM203 wrong-guidance  error") == 1
        assert "run base, step 0 of 4; 2 more like it, in runs base, wide (2)" in text
        said = "at worst (run wide, step 1 of 4) error 7, allowed 1e-06: 7e+06 times the bound"
        assert said in " ".join(text.split())

    def test_many_kinds_are_cut_unless_verbose(
        self, report: Report, context: Context, finding: Findings, outcome: Outcomes
    ) -> None:
        kinds = [finding("ab" * count) for count in range(1, 8)]
        many = Report(
            **{**vars(report), "outcomes": (outcome("FM101", "wrong-time-rank", "failed", *kinds),), "problems": ()}
        )
        assert text_of(many, context).count("observed") == 4
        assert "FM101: 3 more kinds of finding; -v shows them" in text_of(many, context)
        assert text_of(many, context, verbose=True).count("observed") == 7


class TestReport:
    def test_last_lines(self, report: Report, context: Context) -> None:
        assert text_of(report, context, width=120).splitlines()[-3:] == [
            "4 errors, 1 warning, 0 notes; 2 runs with 2 generate() calls, 1.5 s, of which 1.0 s in the model",
            "10 rules: 2 passed, 2 failed, 1 expected failure, 2 skipped, 2 not informative, 1 out of resources",
            "FAILED: 2 rules failed (FM109 FM203); 1 stale expected failure",
        ]

    def test_header(self, report: Report, context: Context) -> None:
        first, second, third = text_of(report, context, width=120).splitlines()[:3]
        assert re.match(r"fmcheck \S+  torch \S+  python \S+  cpu \(.+\), \d+ threads?$", first)
        assert second == "subject  tiny"
        assert third == "case     batch 3  256x256  steps 4  guidance 2.5  seed 0  float32  cpu"

    def test_errors_come_before_warnings_and_expected_failures_are_not_findings(
        self, report: Report, context: Context
    ) -> None:
        heads = re.findall(r"^(FM\d+) \S+  (\w+)$", text_of(report, context), re.MULTILINE)
        assert heads == [("FM109", "error"), ("FM203", "error"), ("FM305", "warning")]

    def test_reasons_are_grouped(self, report: Report, context: Context) -> None:
        text = text_of(report, context)
        assert "not informative (2)\n  generate raised ValueError: no: FM301 FM302\n" in text
        assert (
            "skipped (2)\n  the subject declares no 'pad': FM804\n  the subject declares no 'masked': FM805\n" in text
        )
        assert "expected failures (1)\n  until May: FM204\n" in text
        assert "out of resources (1)\n  no memory: FM902\n" in text
        assert "stale expected failure: FM401" in text

    def test_verbose_names_the_rules_and_the_runs(self, report: Report, context: Context) -> None:
        text = text_of(report, context, verbose=True)
        assert "  generate raised ValueError: no\n    FM301 wrong-step-count\n    FM302 time-not-monotone\n" in text
        assert (
            "runs (2 made, shared by 10 rules)\n  base native case; for FM203\n  wide 256x512; for FM203 FM305\n"
            in text
        )

    def test_only_close_ratios_are_shown(self, report: Report, context: Context, outcome: Outcomes) -> None:
        assert "used / allowed: FM503 drifting-state 0.71\n" in text_of(report, context)
        calm = Report(**{**vars(report), "outcomes": (outcome("FM503", "x", "passed", ratio=0.3),)})
        assert "used / allowed" not in text_of(calm, context)
        assert "used / allowed: FM503 x 0.3" in text_of(calm, context, verbose=True)

    def test_clean(self, report: Report, context: Context, outcome: Outcomes) -> None:
        clean = Report(**{**vars(report), "outcomes": (outcome("FM503", "x", "passed"),), "problems": ()})
        assert text_of(clean, context).endswith("\nCLEAN")

    @pytest.mark.parametrize("width", [80, 120])
    def test_width(self, report: Report, context: Context, width: int) -> None:
        for line in text_of(report, context, width=width, verbose=True).splitlines():
            assert len(line) <= width
            assert line == line.rstrip()

    def test_colour_adds_nothing_but_colour(self, report: Report, context: Context) -> None:
        out = StringIO()
        page = report_page(report, verdict_of(report), context, width=80)
        page.show(Console(file=out, force_terminal=True, color_system="standard", width=80))
        coloured = out.getvalue()
        assert "\x1b[1;31mFM203\x1b[0m" in coloured
        assert re.sub(r"\x1b\[[\d;]*m", "", coloured).rstrip("\n") == text_of(report, context, width=80)

    def test_brackets_are_text_and_not_markup(self, context: Context, finding: Findings, outcome: Outcomes) -> None:
        text = outcome_text(outcome("FM101", "x", "failed", finding("expected [bold]B[/], found [red]")), context)
        assert "expected [bold]B[/], found [red]" in text


class TestVerdict:
    def test_a_warning_needs_strict(self, report: Report, outcome: Outcomes, finding: Findings) -> None:
        warned = outcome("FM305", "x", "passed", finding(severity="warning"), finding(severity="note"))
        one = Report(**{**vars(report), "outcomes": (warned,), "problems": ()})
        assert not verdict_of(one).failed
        assert verdict_of(one, strict=True).reasons == ("1 warning, and warnings fail a strict gate",)

    def test_only_rules_that_compared_something_count(self, report: Report) -> None:
        assert verdict_of(report).judged == 5
        assert verdict_of(report, min_checked=5).shortfall == ""
        assert verdict_of(report, min_checked=6).reasons[-1] == "only 5 rules really judged something, and 6 must"

    def test_it_agrees_with_the_report(self, report: Report) -> None:
        assert verdict_of(report).failed == report.failed()


def test_hanging_lines_never_lose_a_word() -> None:
    text = "one two three four " * 9
    lines = hanging(text, width=40, indent=2, label="label")
    assert lines[0].startswith("  label one")
    assert all(line.startswith(" " * 8) for line in lines[1:])
    assert " ".join(lines).split()[1:] == text.split()
