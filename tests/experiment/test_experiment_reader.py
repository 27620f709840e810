"""Reading: what may stand around the header, every problem with its line, and files that are none."""

from pathlib import Path

import pytest

from fmcheck.errors import DeclarationError
from fmcheck.experiment import HeaderError, parse_header, problems, read_header

# Lines of the legal header, which the messages count from 1.
EXP_ID, TITLE, PURPOSE, KEY_DIFFS, DATASET, HARDWARE, BRANCH, CORE, TAGS, NOTES, END = range(3, 14)


def _but(legal: str, line: int, *instead: str) -> str:
    lines = legal.split("\n")
    lines[line : line + 1] = instead
    return "\n".join(lines)


class TestAccepted:
    @pytest.mark.parametrize(
        "above",
        ["", "\n\n", "---\n", "#!/usr/bin/env run\n# a licence\n\n---\n", "; of an INI file\n"],
        ids=["nothing", "blank", "yaml", "shebang", "ini"],
    )
    def test_above_the_header(self, legal: str, above: str) -> None:
        assert parse_header(above + legal) == parse_header(legal)

    def test_semicolons(self, legal: str) -> None:
        head, _, rest = legal.partition("lr: 1e-4")
        assert parse_header(head.replace("# ", "; ", 1).replace("\n# ", "\n; ") + rest) == parse_header(legal)

    @pytest.mark.parametrize("end", ["\r\n", "\r"])
    def test_line_ends(self, legal: str, end: str) -> None:
        assert parse_header(legal.replace("\n", end)) == parse_header(legal)

    def test_tabs(self, legal: str) -> None:
        tabs = legal.replace("# EXP_ID      : ", "#\tEXP_ID\t:\t").replace("            # exp_", "\t# exp_")
        assert parse_header(tabs) == parse_header(legal)

    def test_any_order_and_nothing_below(self, legal: str) -> None:
        lines = legal.split("\n")
        lines[EXP_ID], lines[NOTES] = lines[NOTES], lines[EXP_ID]
        assert parse_header("\n".join(lines[: END + 1])) == parse_header(legal)

    def test_byte_order_mark(self, legal: str, tmp_path: Path) -> None:
        path = tmp_path / "a.yaml"
        path.write_bytes(b"\xef\xbb\xbf" + legal.encode())
        assert read_header(path) == parse_header(legal)

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("issue#7", "issue#7"),
            ("#7", "#7"),
            ("see #7 and # 8", "see #7 and # 8"),
            ("colour  #fff", "colour #fff"),
            ("plain   # a remark", "plain"),
            ("plain\t# a remark", "plain"),
            ("plain  #", "plain"),
            ("plain # optional", "plain"),
            ("# first", "# first"),
            ("a: b", "a: b"),
            ("修复：批内泄漏", "修复：批内泄漏"),
            ("====", "===="),
        ],
    )
    def test_signs_in_values(self, legal: str, text: str, value: str) -> None:
        assert parse_header(_but(legal, TITLE, f"# TITLE       : {text}")).title == value

    def test_values_go_on_in_indented_lines(self, legal: str) -> None:
        text = _but(
            legal,
            PURPOSE,
            "# PURPOSE     : whether w = 3      # so far",
            "#",
            "#   res: 512",
            "#               beats w = 2",
        )
        header = parse_header(text)
        assert header.purpose == "whether w = 3 res: 512 beats w = 2"
        assert header.title == "guidance in the velocity domain"

    @pytest.mark.parametrize("knobs", ["[a (1, 2), b]", "a (1, 2); b", "a (1, 2)，b"])
    def test_spellings_of_knobs(self, legal: str, knobs: str) -> None:
        assert parse_header(_but(legal, KEY_DIFFS, f"# KEY_DIFFS   : {knobs}")).key_diffs == ("a (1, 2)", "b")

    def test_brackets_at_both_ends_are_not_always_around_the_list(self, legal: str) -> None:
        text = _but(legal, KEY_DIFFS, "# KEY_DIFFS   : [a] on, off [b]")
        assert parse_header(text).key_diffs == ("[a] on", "off [b]")

    @pytest.mark.parametrize("tags", ["[a, b c]", "[\"a\", 'b c']", "[ a ,b c ]"])
    def test_spellings_of_tags(self, legal: str, tags: str) -> None:
        assert parse_header(_but(legal, TAGS, f"# TAGS        : {tags}")).tags == ("a", "b c")

    @pytest.mark.parametrize("line", [BRANCH, TAGS, NOTES])
    def test_optional_fields(self, legal: str, line: int) -> None:
        assert problems(_but(legal, line)) == []


@pytest.mark.parametrize("line", [EXP_ID, TITLE, PURPOSE, KEY_DIFFS, DATASET, HARDWARE, CORE])
def test_required_fields(legal: str, line: int) -> None:
    name = legal.split("\n")[line].partition(":")[0].strip("# ")
    # The line of the header itself, since the field has none.
    assert problems(_but(legal, line)) == [(2, f"{name}: expected this field in the header; found none")]


@pytest.mark.parametrize("line", range(EXP_ID, END))
def test_empty_values(legal: str, line: int) -> None:
    name = legal.split("\n")[line].partition(":")[0]
    for text in (f"{name}:", f"{name}:          # optional", f"{name}: # optional"):
        [(where, message)] = problems(_but(legal, line, text))
        assert where == line + 1
        assert "expected a value; found none" in message


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (EXP_ID, "# EXP_ID : exp_20250230_A", "EXP_ID: expected a day of the calendar"),
        (EXP_ID, "# EXP_ID : exp_<yyyymmdd>_<x>", "EXP_ID: expected exp_<yyyymmdd>_<x>, as exp_20250903_A"),
        (TITLE, "# TITLE : short one-liner", "TITLE: expected a value of your own; found the template's text"),
        (DATASET, "# DATASET : e.g. 24M t2i", "DATASET: expected a value of your own"),
        (HARDWARE, "# HARDWARE : e.g. A100x64", "HARDWARE: expected a value of your own"),
        (BRANCH, "# BRANCH/COMMIT: branch / abc1234   # optional", "BRANCH/COMMIT: expected a value of your own"),
        (CORE, "# CORE PARAMS : lr=..., batch=...", "CORE PARAMS: expected a value of your own"),
        (NOTES, "# NOTES : any caveat", "NOTES: expected a value of your own"),
        (KEY_DIFFS, "# KEY_DIFFS : the 2-4 knobs that distinguish this config from the baseline", "of your own"),
        (KEY_DIFFS, "# KEY_DIFFS : w=3", "KEY_DIFFS: expected 2 to 4 knobs"),
        (KEY_DIFFS, "# KEY_DIFFS : a, b, c, d, e", "found 5"),
        (KEY_DIFFS, "# KEY_DIFFS : a, b,", "found an empty entry"),
        (KEY_DIFFS, "# KEY_DIFFS : a (b, c", "expected every bracket to be closed again"),
        (TAGS, "# TAGS : a, b", "TAGS: expected a list in brackets, as [ablation, lrx5]; found 'a, b'"),
        (TAGS, "# TAGS : []", "TAGS: expected something between all separators"),
        (TAGS, "# TAGS : [a, a]", "TAGS: expected every entry once"),
        (NOTES, "# NOTES : \x1b[31mred", "expected text; found the control character U+001B"),
        (NOTES, "# NOTE : a", "unknown field 'NOTE'; did you mean 'NOTES'?; known: EXP_ID, TITLE"),
        (NOTES, "# notes : a", "unknown field 'notes'; did you mean 'NOTES'?"),
        (NOTES, "# CORE_PARAMS : a", "unknown field 'CORE_PARAMS'; did you mean 'CORE PARAMS'?"),
        (NOTES, "# DATASET : b", "DATASET: expected once; line 8 has it already"),
        (NOTES, "# what is this", "expected 'FIELD : value', or more of the value above, indented further"),
        (NOTES, "# NOTES ： 全角", "expected 'FIELD : value'"),
    ],
)
def test_problem_in_a_line(legal: str, line: int, text: str, message: str) -> None:
    [(where, found)] = problems(_but(legal, line, text))
    assert where == line + 1
    assert message in found


def test_all_problems_are_listed_in_the_order_of_lines(legal: str) -> None:
    text = _but(_but(legal, NOTES, "# NOTE : a", "#    more of it"), EXP_ID, "# EXP_ID : 7")
    text = _but(text, KEY_DIFFS, "# KEY_DIFFS : a")
    with pytest.raises(HeaderError) as caught:
        parse_header(text, "a.toml")
    assert [line for line, _ in caught.value.problems] == [EXP_ID + 1, KEY_DIFFS + 1, NOTES + 1]
    assert str(caught.value).split("\n")[0].startswith("a.toml:4: EXP_ID: expected exp_<yyyymmdd>_<x>")


class TestFrame:
    def test_no_header(self) -> None:
        expected = "expected the header, whose first words are 'EXP CONFIG META', at the top; found "
        assert problems("lr: 1\n") == [(1, f"{expected}no such line")]
        assert problems("\n") == problems("") == [(1, f"{expected}an empty file")]

    def test_not_at_the_top(self, legal: str) -> None:
        [(line, message)] = problems(f"# a comment\nseed: 1\n{legal}")
        assert line == 4
        assert "expected the header at the top" in message
        assert "line 2 stands above it" in message

    def test_not_closed(self, legal: str) -> None:
        [(line, message)] = problems(_but(legal, END))
        assert (line, message) == (
            2,
            "expected a comment line of '=' at the end of the header; found none before line 14",
        )
        [(_, message)] = problems("\n".join(legal.split("\n")[:END]))
        assert message.endswith("found none before the end of the file")

    def test_broken_by_a_blank_line(self, legal: str) -> None:
        found = problems(_but(legal, DATASET, "", legal.split("\n")[DATASET]))
        assert "found none before line 8" in found[-1].message
        assert {message.partition(":")[0] for _, message in found[:-1]} == {"DATASET", "HARDWARE", "CORE PARAMS"}

    def test_rules(self, legal: str) -> None:
        assert problems(_but(legal, 0)) == [
            (1, "expected a comment line of '=' above this one, where the header begins")
        ]
        assert problems(_but(legal, 2)) == [(2, "expected a comment line of '-' below this one")]

    def test_only_its_first_words(self) -> None:
        assert {line for line, _ in problems("# EXP CONFIG META")} == {1}

    def test_twice(self, legal: str) -> None:
        assert problems(legal + legal) == [(17, "expected one header; a second one begins here, after that of line 2")]
        unclosed = "\n".join(legal.split("\n")[:END])
        assert [line for line, _ in problems(f"{unclosed}\n{legal}")] == [15]


class TestFiles:
    def test_not_utf8(self, legal: str, tmp_path: Path) -> None:
        path = tmp_path / "a.ini"
        for mark in (b"", b"\xef\xbb\xbf"):
            path.write_bytes(mark + legal.replace("velocity", "vélocité").encode("latin-1"))
            with pytest.raises(HeaderError) as caught:
                read_header(path)
            assert str(caught.value).startswith(f"{path}:5: expected UTF-8 text; found the byte 0xe9")

    def test_utf16(self, legal: str, tmp_path: Path) -> None:
        path = tmp_path / "a.ini"
        path.write_text(legal, encoding="utf-16")
        with pytest.raises(HeaderError, match="expected UTF-8 text; found the byte 0xff"):
            read_header(path)

    def test_empty(self, tmp_path: Path) -> None:
        path = tmp_path / "a.ini"
        path.touch()
        with pytest.raises(HeaderError, match=r"a\.ini:1: expected the header, .* found an empty file"):
            read_header(path)

    def test_binary(self, tmp_path: Path) -> None:
        path = tmp_path / "a.ini"
        path.write_bytes(bytes(range(128)))
        with pytest.raises(HeaderError, match="no such line"):
            read_header(path)

    @pytest.mark.parametrize("name", [".", "none.yaml", "a\0b"])
    def test_unreadable(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(DeclarationError, match="cannot be read: ") as caught:
            read_header(tmp_path / name)
        assert not isinstance(caught.value, HeaderError)
