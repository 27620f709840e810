"""The note: front matter, the sections in order, the words of two languages, and nothing concluded for the author."""

import json
import re
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcheck.errors import DeclarationError
from fmcheck.experiment import RunRecord, Setting, render_note
from tests.experiment import conftest

DAY = date(2025, 8, 26)
HEADER = replace(conftest.HEADER, tags=("guidance",), notes="two nodes were lost")


@pytest.fixture
def run(run_table: dict[str, Any]) -> RunRecord:
    return RunRecord.from_table(run_table)


@pytest.fixture
def baseline(run_table: dict[str, Any]) -> RunRecord:
    wrong, right = run_table["outcomes"][1], run_table["outcomes"][0]
    right.update(status="failed", ratio="inf", findings=[{"severity": "error", "message": "was wrong"}])
    wrong.update(status="passed", ratio=0.25, findings=[])
    changes = {
        "subject": "toy:old",
        "verdict": {"failed": False, "reasons": []},
        "counts": {"passed": 3, "timed out": 1},
    }
    return RunRecord.from_table({**run_table, **changes})


def _sections(note: str) -> dict[str, str]:
    parts = re.split(r"^## (.*)\n", note, flags=re.MULTILINE)
    return dict(zip(parts[1::2], map(str.strip, parts[2::2]), strict=True))


def _front_matter(note: str) -> dict[str, Any]:
    """Every value as JSON where it is quoted, since its double quotes are YAML's; the others as they stand."""
    block = note.split("---\n")[1]
    pairs = (line.split(": ", 1) for line in block.removesuffix("\n").split("\n"))
    return {key: json.loads(value) if value[0] in '"[' else value for key, value in pairs}


def test_front_matter(run: RunRecord) -> None:
    note = render_note(HEADER, run, conclusion="keep", links=["a.yaml", "run.json"], today=DAY)
    assert note.startswith("---\n")
    assert _front_matter(note) == {
        "title": "guidance in the velocity domain",
        "created": "2025-08-26",
        "updated": "2025-08-26",
        "origin": "week-35",
        "type": "experiment",
        "status": "draft",
        "tags": ["guidance"],
        "links": ["a.yaml", "run.json"],
    }
    assert list(_front_matter(note)) == ["title", "created", "updated", "origin", "type", "status", "tags", "links"]


@pytest.mark.parametrize(("day", "week"), [(date(2024, 12, 30), "week-01"), (date(2021, 1, 1), "week-53")])
def test_weeks_are_those_of_iso(run: RunRecord, day: date, week: str) -> None:
    assert f"origin: {week}\n" in render_note(HEADER, run, conclusion="keep", today=day)


# A quotation mark in front keeps the title from being the template's.
@settings(max_examples=100, deadline=None)
@given(st.text().map('"'.__add__), st.lists(st.text()))
def test_any_title_and_link_stays_in_its_line(title: str, links: list[str]) -> None:
    run = RunRecord.from_table(MINIMAL)
    header = replace(HEADER, title=title)
    found = _front_matter(render_note(header, run, conclusion="keep", links=links, today=DAY).split("\n## ")[0])
    assert found["title"] == header.title
    assert len(found["links"]) == len(links)


MINIMAL: dict[str, Any] = {
    "schema": 1,
    "subject": "toy",
    "case": {},
    "versions": {},
    "verdict": {"failed": True, "reasons": []},
    "counts": {},
    "severities": {},
    "outcomes": [],
    "generate_calls": 0,
    "generate_seconds": 0,
    "seconds": 0,
}


@pytest.mark.parametrize(
    ("language", "headings"),
    [
        ("en", ["Goal", "Settings", "Metrics and records", "Conclusion", "Next step", "Raw notes"]),
        ("zh", ["目标", "设置", "指标与记录", "结论", "下一步", "原始笔记"]),
        (
            "both",
            [
                "Goal 目标",
                "Settings 设置",
                "Metrics and records 指标与记录",
                "Conclusion 结论",
                "Next step 下一步",
                "Raw notes 原始笔记",
            ],
        ),
    ],
)
def test_headings(run: RunRecord, language: str, headings: list[str]) -> None:
    assert list(_sections(render_note(HEADER, run, conclusion="keep", language=language))) == headings


@pytest.mark.parametrize(
    ("conclusion", "both"), [("keep", "keep 保留"), ("reject", "reject 否决"), ("retest", "retest 待复验")]
)
def test_conclusion(run: RunRecord, conclusion: str, both: str) -> None:
    section = _sections(render_note(HEADER, run, conclusion=conclusion))["Conclusion 结论"]
    # The gate's verdict stands beside it, so that a reader sees when the two disagree.
    assert section == f"**{both}**\n\ngate 门禁: FAILED 不合格: 2 rules failed (TY002 TY003)"
    english, chinese = both.split()
    assert f"## Conclusion\n\n**{english}**\n" in render_note(HEADER, run, conclusion=conclusion, language="en")
    assert f"## 结论\n\n**{chinese}**\n" in render_note(HEADER, run, conclusion=conclusion, language="zh")


class TestRefused:
    @pytest.mark.parametrize("conclusion", ["", "kept", "保留"])
    def test_conclusions(self, run: RunRecord, conclusion: str) -> None:
        with pytest.raises(DeclarationError, match="conclusion: expected one of keep, reject, retest; found "):
            render_note(HEADER, run, conclusion=conclusion)

    def test_languages(self, run: RunRecord) -> None:
        with pytest.raises(DeclarationError, match="language: expected one of en, zh, both; found 'cn'"):
            render_note(HEADER, run, conclusion="keep", language="cn")

    def test_a_fifth_setting(self, run: RunRecord) -> None:
        five = [Setting(name=name, value="1") for name in "abcde"]
        with pytest.raises(DeclarationError, match="settings: expected at most 4; found 5"):
            render_note(HEADER, run, conclusion="keep", settings=five)


class TestSettings:
    @pytest.mark.parametrize(
        ("text", "setting"),
        [
            ("lr=5e-4 (1e-4)", ("lr", "5e-4", "1e-4")),
            ("lr = 5e-4 (baseline 1e-4)", ("lr", "5e-4", "1e-4")),
            ("lr=5e-4 (baseline: 1e-4)", ("lr", "5e-4", "1e-4")),
            ("lr=5e-4", ("lr", "5e-4", "")),
            ("act=relu(6)", ("act", "relu(6)", "")),
            ("act=relu(6) (gelu())", ("act", "relu(6)", "gelu()")),
            ("betas=(0.9, 0.99)", ("betas", "(0.9, 0.99)", "")),
            ("betas=(0.9, 0.99) ((0.9, 0.95))", ("betas", "(0.9, 0.99)", "(0.9, 0.95)")),
            ("学习率=5e-4（1e-4）", ("学习率", "5e-4", "1e-4")),
            ("args=a=1 (b=2)", ("args", "a=1", "b=2")),
            ("x=1)", ("x", "1)", "")),
        ],
    )
    def test_parsed(self, text: str, setting: tuple[str, str, str]) -> None:
        found = Setting.parse(text)
        assert (found.name, found.value, found.baseline) == setting

    @pytest.mark.parametrize("text", ["", "lr", "=1", "lr=", "lr= ", "lr x5 (x1)"])
    def test_refused(self, text: str) -> None:
        with pytest.raises(DeclarationError, match=r"setting: expected 'name=value \(baseline value\)'; found "):
            Setting.parse(text)

    def test_table(self, run: RunRecord) -> None:
        settings = [Setting(name="a|b", value="2", baseline="1"), Setting(name="c", value="3\n4")]
        note = render_note(HEADER, run, conclusion="keep", settings=settings, language="en")
        assert _sections(note)["Settings"].split("\n") == [
            "| setting | this run | baseline |",
            "| --- | --- | --- |",
            r"| a\|b | 2 | 1 |",
            "| c | 3 4 | - |",
        ]

    def test_the_knobs_of_the_header_are_the_default(self, run: RunRecord) -> None:
        section = _sections(render_note(HEADER, run, conclusion="keep", language="en"))["Settings"]
        assert section == "the knobs that differ:\n\n- w=3 (2)\n- grid=quantile"


class TestTexts:
    def test_given(self, run: RunRecord) -> None:
        note = render_note(HEADER, run, conclusion="keep", goal=" *why*\n\n- a ", next_step="more", language="en")
        assert _sections(note)["Goal"] == "*why*\n\n- a"
        assert _sections(note)["Next step"] == "more"

    def test_defaults(self, run: RunRecord) -> None:
        sections = _sections(render_note(HEADER, run, conclusion="keep", language="zh"))
        assert sections["目标"] == "whether w = 3 beats w = 2"
        assert sections["下一步"] == "(待填写)"
        assert sections["原始笔记"].split("\n")[1:-1] == HEADER.as_lines()

    @pytest.mark.parametrize("purpose", ["## Conclusion", "```", "- [x] a", "> a", "<script>", "*a*"])
    def test_a_purpose_is_no_markup(self, run: RunRecord, purpose: str) -> None:
        note = render_note(replace(HEADER, purpose=purpose), run, conclusion="keep", language="en")
        assert len(_sections(note)) == 6
        assert _sections(note)["Goal"].startswith("\\")


class TestMetrics:
    def test_alone(self, run: RunRecord) -> None:
        section = _sections(render_note(HEADER, run, conclusion="keep", language="en"))["Metrics and records"]
        assert section == (
            "| metric | this run |\n"
            "| --- | --- |\n"
            "| gate | FAILED: 2 rules failed (TY002 TY003) |\n"
            "| passed | 1 |\n"
            "| failed | 2 |\n"
            "| expected | 0 |\n"
            "| skipped | 1 |\n"
            "| judged | 3 |\n"
            "| errors | 5 |\n"
            "| warnings | 1 |\n"
            "| notes | 0 |\n"
            "\n"
            "| Largest used / allowed: rule | this run |\n"
            "| --- | --- |\n"
            "| TY003 not-finite | nan |\n"
            "| TY002 always-wrong | 2 |\n"
            "| TY001 always-right | 0.6 |\n"
            "\n"
            "Failed rules:\n"
            "\n"
            "- TY002 always-wrong: came out 3.5 \\| expected 2.5\n"
            "- TY003 not-finite: came out 3.5 \\| expected 2.5\n"
            "\n"
            "| record | this run |\n"
            "| --- | --- |\n"
            "| experiment | exp_20250826_A |\n"
            "| subject | toy:subject |\n"
            "| case | batch 2, height 64, width 32, num steps 4, seed 7 |\n"
            "| fmcheck | 0.1.0 |\n"
            "| torch | 2.6.0 |\n"
            "| device | cpu (x86_64) |\n"
            "| generate calls | 51 |\n"
            "| seconds in generate | 3.8 |\n"
            "| seconds in all | 4.5 |"
        )

    def test_beside_the_baseline(self, run: RunRecord, baseline: RunRecord) -> None:
        note = render_note(HEADER, run, conclusion="reject", baseline=baseline, language="en")
        for line in (
            "| metric | this run | baseline |",
            "| gate | FAILED: 2 rules failed (TY002 TY003) | clean |",
            "| passed | 1 | 3 |",
            # A count that only one of the two has.
            "| failed | 2 | - |",
            "| timed out | - | 1 |",
            "| TY002 always-wrong | 2 | 0.25 |",
            "| TY001 always-right | 0.6 | inf |",
            "- TY002 always-wrong (new): came out 3.5 \\| expected 2.5",
            "- TY003 not-finite (as in the baseline): came out 3.5 \\| expected 2.5",
            "- TY001 always-right (failed only in the baseline): was wrong",
            "| subject | toy:subject | toy:old |",
            "| experiment | exp_20250826_A |  |",
        ):
            assert line in note.split("\n")

    def test_nothing_failed_and_nothing_measured(self) -> None:
        note = render_note(HEADER, RunRecord.from_table(MINIMAL), conclusion="keep", language="en")
        assert "Failed rules:\n\n- none\n" in note
        assert "Largest" not in note
        assert "| gate | FAILED |" in note
        assert "\n\n\n" not in note

    def test_the_five_largest_ratios(self, run_table: dict[str, Any]) -> None:
        outcome = run_table["outcomes"][0]
        run_table["outcomes"] = [{**outcome, "code": f"TY{place:03}", "ratio": place / 10} for place in range(9)]
        note = render_note(HEADER, RunRecord.from_table(run_table), conclusion="keep", language="en")
        assert re.findall(r"^\| (TY\d+) ", note, flags=re.MULTILINE) == ["TY008", "TY007", "TY006", "TY005", "TY004"]
