"""Header: what it holds, what it refuses, how it is drawn, and that nothing can leave its comment."""

import configparser
import tomllib
from dataclasses import replace
from datetime import date

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fmcheck.errors import DeclarationError
from fmcheck.experiment import Header, as_knob, clean, parse_header
from fmcheck.experiment.values import split_list
from tests.experiment.conftest import HEADER

# Signs that mean something to a reader of the block, and letters of all kinds.
PIECES = st.sampled_from(
    [" ", "  ", "#", " # ", ":", "\n", "\r", "\t", "\x00", "\x85", "\u2028", "\ufeff", ",", ";", "，"]
)
MORE = st.sampled_from(
    ["[", "]", "(", ")", "（", '"', "'", "`", "====", "----", " # optional", "EXP_ID", "e.g.", "=..."]
)
TEXT = st.lists(st.one_of(PIECES, MORE, st.text(max_size=6)), max_size=8).map("".join)


def _legal(field: str) -> st.SearchStrategy[str]:
    def holds(text: str) -> bool:
        try:
            return bool(replace(HEADER, **{field: text}))
        except DeclarationError:
            return False

    return TEXT.filter(holds)


HEADERS = st.builds(
    Header,
    exp_id=st.builds(
        "exp_{:%Y%m%d}_{}".format, st.dates(min_value=date(1000, 1, 1)), st.from_regex(r"\A[A-Za-z0-9]+\Z")
    ),
    title=_legal("title"),
    purpose=_legal("purpose"),
    key_diffs=st.lists(TEXT.map(as_knob).filter(bool), min_size=2, max_size=4, unique=True),
    dataset=_legal("dataset"),
    hardware=_legal("hardware"),
    core_params=_legal("core_params"),
    branch_commit=_legal("branch_commit"),
    tags=st.lists(st.from_regex(r"\A[\w.+/#-]+( \w+)?\Z"), max_size=4, unique_by=clean),
    notes=_legal("notes"),
)


class TestRoundTrip:
    @settings(max_examples=200, deadline=None)
    @given(HEADERS)
    def test_comes_back_equal(self, header: Header) -> None:
        assert parse_header(header.as_text()) == header

    @settings(max_examples=200, deadline=None)
    @given(HEADERS)
    def test_no_value_leaves_its_comment(self, header: Header) -> None:
        text = header.as_text()
        assert len(text.splitlines()) == len(header.as_lines())
        assert all(line.startswith("# ") for line in text.splitlines())
        assert tomllib.loads(text + "x = 1") == {"x": 1}
        ini = configparser.ConfigParser()
        ini.read_string(text + "[s]\nx = 1")
        assert dict(ini["s"]) == {"x": "1"}
        text.encode("utf-8")

    @settings(max_examples=200, deadline=None)
    @given(TEXT)
    @example("# optional")
    @example("x # optional # optional")
    def test_clean_once_is_clean(self, text: str) -> None:
        assert clean(clean(text)) == clean(text)

    @settings(max_examples=200, deadline=None)
    @given(st.lists(TEXT.map(as_knob), min_size=1))
    def test_knobs_from_any_text_stay_apart(self, knobs: list[str]) -> None:
        assert split_list(", ".join(knobs)) == knobs

    def test_of_the_file(self, legal: str) -> None:
        header = parse_header(legal)
        assert header.key_diffs == ("w=3 (2)", "grid=quantile", "betas=(0.9, 0.99)")
        assert header.tags == ("guidance", "grid")
        assert header.notes == "issue#7 is open"
        assert header.date == date(2025, 8, 26)
        assert parse_header(header.as_text()) == header


def test_drawn_as_the_template_is() -> None:
    header = replace(HEADER, branch_commit="main / abc1234", tags=["ablation", "lrx5"], notes="a\nb")
    assert header.as_text() == (
        "# ======================================================================\n"
        "# EXP CONFIG META (paste at top of your .yaml / .toml / .ini config file)\n"
        "# ----------------------------------------------------------------------\n"
        "# EXP_ID      : exp_20250826_A\n"
        "# TITLE       : guidance in the velocity domain\n"
        "# PURPOSE     : whether w = 3 beats w = 2\n"
        "# KEY_DIFFS   : w=3 (2), grid=quantile\n"
        "# DATASET     : 24M t2i\n"
        "# HARDWARE    : A100x64\n"
        "# BRANCH/COMMIT: main / abc1234\n"
        "# CORE PARAMS : lr=1e-4\n"
        "# TAGS        : [ablation, lrx5]\n"
        "# NOTES       : a b\n"
        "# ======================================================================\n"
    )


def test_optional_fields_without_value_have_no_line() -> None:
    assert [line.split(":")[0].strip("# ") for line in HEADER.as_lines()[3:-1]] == [
        "EXP_ID",
        "TITLE",
        "PURPOSE",
        "KEY_DIFFS",
        "DATASET",
        "HARDWARE",
        "CORE PARAMS",
    ]


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "exp_id",
            "exp_20250230_A",
            "Header.exp_id: expected a day of the calendar in exp_<yyyymmdd>_<x>; found '20250230'",
        ),
        ("exp_id", "exp_00000101_A", "found '00000101'"),
        ("exp_id", "exp_2025826_A", "expected exp_<yyyymmdd>_<x>, as exp_20250903_A; found 'exp_2025826_A'"),
        ("exp_id", "exp_20250826_", "expected exp_<yyyymmdd>_<x>"),
        ("exp_id", "exp_20250826_a-b", "expected exp_<yyyymmdd>_<x>"),
        ("exp_id", "exp_２０２５０８２６_A", "expected exp_<yyyymmdd>_<x>"),
        ("title", "", "Header.title: expected a value; found none: say what it is"),
        ("title", " \n ", "expected a value; found none"),
        ("title", "# optional", "expected a value; found none"),
        ("title", "Short One-Liner", "expected a value of your own; found the template's text 'Short One-Liner'"),
        ("title", 3, "Header.title: expected a string; found 3"),
        ("dataset", "e.g. 24M t2i", "expected a value of your own"),
        ("core_params", "lr=1e-4, batch=...", "expected a value of your own"),
        ("key_diffs", "a, b", "Header.key_diffs: expected a list or tuple of strings; found 'a, b'"),
        ("key_diffs", ("a",), "expected 2 to 4 knobs, separated by commas or semicolons; found 1: 'a'"),
        ("key_diffs", tuple("abcde"), "found 5: 'a, b, c, d, e'"),
        ("key_diffs", ("a", "a"), "expected every entry once; found 'a' 2 times"),
        ("key_diffs", ("a", ""), "expected something between all separators; found an empty entry in 'a,'"),
        ("key_diffs", ("a, b", "c"), "expected entries that can be told apart in 'a, b, c'; found 3 instead of 2"),
        ("key_diffs", ("a (", "b) c"), "found 1: 'a (, b) c'"),
        ("key_diffs", ("a (", "b"), "expected every bracket to be closed again; found 'a (, b'"),
        ("key_diffs", (), "expected a value; found none"),
        ("tags", ("a b", "c]"), "expected tags without commas, brackets or quotes; found 'c]'"),
        ("tags", ("a", ""), "found an empty entry in '[a, ]'"),
        ("tags", [1], "expected a list or tuple of strings; found [1]"),
    ],
)
def test_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        replace(HEADER, **{field: value})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a, b; c", ["a", "b", "c"]),
        ("学习率，批大小；网格、步数", ["学习率", "批大小", "网格", "步数"]),
        ("betas=(0.9, 0.99), t in [0, 1)", ["betas=(0.9, 0.99)", "t in [0, 1)"]),
        ("{a: [1, 2]; b}, c", ["{a: [1, 2]; b}", "c"]),
        ("数据（甲，乙），丙", ["数据（甲，乙）", "丙"]),
        ('prompt "a, b", c', ['prompt "a, b"', "c"]),
        ("Adam's eps, Eve's lr", ["Adam's eps", "Eve's lr"]),
        ("'a, b', c", ["'a, b'", "c"]),
        ("it is 5' long, c", ["it is 5' long", "c"]),
        ("1) lr, 2) res", ["1) lr", "2) res"]),
        ("a,,b", ["a", "", "b"]),
        ("", [""]),
    ],
)
def test_parts_of_lists(text: str, parts: list[str]) -> None:
    assert split_list(text) == parts


def test_knobs_from_text() -> None:
    assert as_knob("lr=5e-4 (1e-4)") == "lr=5e-4 (1e-4)"
    assert as_knob("seed 1,\n2") == '"seed 1, 2"'
    assert as_knob('say "a" (') == "\"say 'a' (\""
