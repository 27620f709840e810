"""The reader: whatever a file holds, a valid reproduction comes out, or a DeclarationError that says why not."""

import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import example, given
from hypothesis import strategies as st

from fmcheck.errors import DeclarationError
from fmcheck.repro import Reproduction, parse, read
from fmcheck.repro.reading import MOST_BYTES
from fmcheck.repro.target import check_target
from tests.repro import examples
from tests.repro.examples import reproduction


def valid() -> dict[str, Any]:
    return tomllib.loads(reproduction().as_text())


def with_value(path: str, value: Any) -> str:
    """A valid file's text with one value replaced."""
    table = valid()
    *places, last = path.split(".")
    inner: Any = table
    for place in places:
        inner = inner[int(place) if place.isdigit() else place]
    inner[last] = value
    return tomli_w.dumps(table)


def refused(text: str) -> str:
    with pytest.raises(DeclarationError) as caught:
        parse(text, "a.fmcheck.toml")
    message = str(caught.value)
    assert message.startswith("a.fmcheck.toml: ")
    assert len(message) < 1000
    return message


CASE = "scenario.calls.0.case"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", 2, "schema: expected 1, which this fmcheck reads; found 2"),
        ("schema", True, "schema: expected 1, which this fmcheck reads; found True"),
        ("subjct", "tiny", "file: unknown key 'subjct'; did you mean 'subject'?"),
        ("finding.cause", "x", "finding: unknown key 'cause'"),
        ("finding.code", "FM299", "no rule 'FM299' in this fmcheck; did you mean 'wrong-guidance'?"),
        ("finding.code", "FM203\n", "no rule 'FM203\\n'"),
        ("finding.code", "../../etc/passwd", "no rule '../../etc/passwd'"),
        ("finding.code", 203, "finding, code: expected a string; found 203"),
        ("finding.severity", "fatal", "finding, severity: expected one of error, warning; found 'fatal'"),
        ("finding.used", "a lot", "finding, used: expected a number; found 'a lot'"),
        ("finding.used", True, "finding, used: expected a number; found True"),
        ("finding.message", "x" * 5000, "finding, message: expected at most 4000 letters; found 5000"),
        ("finding.also", [1], "finding, also: expected an array of strings; found 1"),
        ("expect", "broken", "file, expect: expected one of fixed, reproduced; found 'broken'"),
        ("time_limit", -1, "file, time_limit: expected seconds above 0"),
        ("time_limit", float("inf"), "file, time_limit: expected seconds above 0"),
        ("time_limit", float("nan"), "file, time_limit: expected seconds above 0"),
        ("scenario", [], "file, scenario: expected a table; found an array"),
        ("scenario.calls", [], "Scenario.calls: expected one Call or more"),
        ("scenario.calls", [{}] * 200, "scenario, calls: expected at most 128; found 200"),
        ("scenario.asks", ["FM999"], "no rule 'FM999' in this fmcheck; did you mean 'FM9"),
        ("scenario.asks", "FM203", "scenario, asks: expected an array; found str"),
        ("scenario.calls.0.kind", "train", "Call.kind: expected one of generate, loss; found 'train'"),
        ("scenario.calls.0.global_seed", 2**32, "Call.global_seed: expected an integer in [0, 2**32)"),
        (f"{CASE}.heigth", 64, "case: unknown key 'heigth'; did you mean 'height'?"),
        (f"{CASE}.height", "64", "Case.height: expected a positive integer; found '64'"),
        (f"{CASE}.height", 20_000, "case, height: expected at most 16384 in a reproduction; found 20000"),
        (f"{CASE}.num_steps", 10**6, "case, num_steps: expected at most 10000 in a reproduction; found 1000000"),
        (f"{CASE}.prompts", ["a"] * 5000, "case, prompts: expected at most 4096 in a reproduction; found 5000"),
        (f"{CASE}.prompts", ["a" * 70_000], "case, prompts: expected at most 65536 letters in all; found 70000"),
        (f"{CASE}.prompts", "a photo", "Case.prompts: expected a list or tuple of strings"),
        (f"{CASE}.dtype", "float31", "Case.dtype: expected one of float32"),
        (f"{CASE}.device", "gpu", "Case.device: expected a torch device"),
        (f"{CASE}.guidance_scale", float("nan"), "Case.guidance_scale: expected a finite number"),
        ("versions.numpy", "2.0", "versions: unknown key 'numpy'"),
        ("settings.threads", 0, "settings, threads: expected an integer from 1 to 4096; found 0"),
        ("settings.threads", 10**9, "settings, threads: expected an integer from 1 to 4096; found 1000000000"),
        ("settings.cudnn_tf32", 1, "settings, cudnn_tf32: expected true or false; found 1"),
        ("settings.float32_matmul_precision", "low", "expected one of highest, high, medium; found 'low'"),
        ("prints.0.digest", "zz", "prints, digest: expected 64 hexadecimal digits; found 'zz'"),
        ("prints.0.shape", [-1], "prints, shape: expected sizes from 0; found -1"),
        ("prints.0.projections", [1.0], "expected rms and 8 projections; found 1"),
        ("prints.0.projections", ["a"] * 8, "prints, projections: expected an array of numbers; found 'a'"),
    ],
)
def test_says_what_is_wrong(path: str, value: object, message: str) -> None:
    assert message in refused(with_value(path, value))


def test_a_size_that_only_all_calls_together_have() -> None:
    call = {"case": {"prompts": ["a"] * 4, "height": 16384, "width": 16384, "num_steps": 500}}
    assert "expected pixels x steps x batch of at most 1099511627776" in refused(
        with_value("scenario.calls", [call, call, call])
    )


@pytest.mark.parametrize("key", ["subject", "time_limit", "finding", "scenario", "versions", "settings", "prints"])
def test_a_key_that_is_missing(key: str) -> None:
    table = valid()
    del table[key]
    assert key in refused(tomli_w.dumps(table))


def test_what_a_file_may_leave_out() -> None:
    table = valid()
    del table["expect"], table["finding"]["also"], table["finding"]["where"], table["scenario"]["asks"]
    assert parse(tomli_w.dumps(table)).expect == "fixed"


@pytest.mark.parametrize(
    "target",
    [
        "",
        " tiny",
        "tiny\n",
        "Tiny",
        "./evil.py",
        "/tmp/evil:subject",
        "..evil:subject",
        ".evil:subject",
        "evil.:subject",
        "a b:subject",
        "a:b:c",
        "a:b.c",
        "a:",
        ":a",
        "a;import os:b",
        "mutant:",
        "mutant:../x",
        "x" * 400 + ":a",
        "os:abort",
        "os.path:join",
        "builtins:breakpoint",
        "subprocess:run",
        "antigravity:x",
        "__main__:x",
        "pkg.__main__:main",
        "fmcheck.cli:main",
        "fmcheck:check",
    ],
)
def test_no_name_of_a_subject(target: str) -> None:
    with pytest.raises(DeclarationError, match="expected a"):
        check_target(target)
    assert "expected a" in refused(with_value("subject", target))


@pytest.mark.parametrize("target", ["tiny", "mutant:x", "a:b", "pkg.mod_1:sub", "fmcheck.subjects.tiny:subject"])
def test_names_of_subjects(target: str) -> None:
    assert parse(with_value("subject", target)).target == target


def test_nothing_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "canary_module.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert parse(with_value("subject", "canary_module:subject")).target == "canary_module:subject"


N = MOST_BYTES - 100
HOSTILE = {
    "dots": "a." * (N // 2) + "a=1",
    "dots in a table's name": "[" + "a." * (N // 2) + "a]",
    "dots between quotes": '"a" . ' * (N // 6) + "b=1",
    "dots in an inline table": "x = [{" + "a." * (N // 2) + "a=1}]",
    "brackets": "a=" + "[" * N,
    "braces": "a=" + "{a=" * (N // 3),
    "a long number": "a=" + "9" * N,
    "a long hexadecimal number": "a=0x" + "f" * N,
    "quotes": '"' * N,
    "open strings": '"""\\' * (N // 4),
    "backslashes": '"' + "\\" * N,
    "tables": "[[a]]\n" * (N // 6),
    "returns": "\r" * N,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_large_nonsense_is_refused_at_once(text: str) -> None:
    refused(text)


def test_a_seed_of_a_thousand_digits_can_be_told() -> None:
    text = reproduction().as_text().replace("seed = 0", "seed = 0x" + "f" * 9000)
    assert "expected integers of at most 64 bits" in refused(text)


class TestFiles:
    def test_reads_one(self, tmp_path: Path) -> None:
        path = tmp_path / "a.fmcheck.toml"
        path.write_text(reproduction().as_text(), encoding="utf-8")
        assert read(path) == reproduction()

    def test_none(self, tmp_path: Path) -> None:
        with pytest.raises(DeclarationError, match=r"gone\.toml'?: cannot be read: No such file"):
            read(tmp_path / "gone.toml")

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DeclarationError, match="expected a reproduction file; found a folder"):
            read(tmp_path)

    def test_a_loop_of_links(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to(tmp_path / "b")
        (tmp_path / "b").symlink_to(tmp_path / "a")
        with pytest.raises(DeclarationError, match="cannot be read: Too many levels of symbolic links"):
            read(tmp_path / "a")

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(DeclarationError, match="found no regular file"):
            read(tmp_path / "pipe")

    def test_a_name_with_a_zero_in_it(self) -> None:
        with pytest.raises(DeclarationError, match="cannot be read"):
            read(Path("a\0b"))

    def test_too_large(self, tmp_path: Path) -> None:
        (tmp_path / "big").write_bytes(b"#" * (MOST_BYTES + 1))
        with pytest.raises(DeclarationError, match="expected a reproduction of at most 262144 bytes"):
            read(tmp_path / "big")

    def test_another_encoding(self, tmp_path: Path) -> None:
        (tmp_path / "latin").write_bytes("schéma = 1".encode("latin-1"))
        with pytest.raises(DeclarationError, match="expected UTF-8; found the byte 0xe9"):
            read(tmp_path / "latin")

    @pytest.mark.parametrize("content", [b"", b"\0", b"\xef\xbb\xbfschema = 1", b"{}", b"schema = 1\0"])
    def test_no_reproduction(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(DeclarationError, match=str(tmp_path / "x")):
            read(tmp_path / "x")


def survives(text: str) -> None:
    """A valid reproduction, whose text comes back, or a DeclarationError: nothing else."""
    try:
        found = parse(text)
    except DeclarationError:
        return
    assert isinstance(found, Reproduction)
    assert parse(found.as_text()).as_text() == found.as_text()


@given(st.binary(max_size=300))
def test_garbage_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.fmcheck.toml"
    path.write_bytes(content)
    with pytest.raises(DeclarationError):
        read(path)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | examples.texts | st.dates() | st.datetimes()
values = st.recursive(
    scalars.filter(lambda value: value is not None),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(examples.texts, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(examples.texts, values, max_size=4))
def test_garbage_toml(table: dict[str, Any]) -> None:
    with pytest.raises(DeclarationError):
        parse(tomli_w.dumps(table))


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """`(container, key)` of every value inside."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    for key in keys:
        yield value, key
        yield from places(value[key])


@given(st.data())
def test_valid_files_with_one_thing_changed(data: st.DataObject) -> None:
    table = tomllib.loads(data.draw(st.just(reproduction()) | examples.reproductions).as_text())
    container, key = data.draw(st.sampled_from(list(places(table))))
    # Mostly values of another domain, where the type check says nothing.
    replacement = data.draw(values | st.sampled_from(["tiny", "FM204", "cuda:999999999999", "mps:1", -1, 0, 2**63 - 1]))
    change = data.draw(st.sampled_from(["delete", "replace", "add"]))
    if change == "delete":
        del container[key]
    elif change == "replace":
        container[key] = replacement
    elif isinstance(container, dict):
        container[data.draw(examples.texts)] = replacement
    else:
        container.insert(key, replacement)
    survives(tomli_w.dumps(table))


@given(st.data())
def test_valid_files_with_text_torn_out(data: st.DataObject) -> None:
    text = reproduction().as_text()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(start + 80, len(text))))
    survives(text[:start] + data.draw(examples.texts) + text[end:])


@given(st.text(st.sampled_from("a.=\"'#\\[]{}\n, 1"), max_size=40))
@example('"""a""""')
@example("a = '''b''''")
def test_toml_that_is_lexed_twice_means_the_same(text: str) -> None:
    """The look for dotted keys must not refuse what TOML reads without them, nor let one through."""
    from fmcheck.repro.table import read_toml

    try:
        expected = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        with pytest.raises(DeclarationError):
            read_toml(text)
        return
    if text.count(".") <= 8:
        assert read_toml(text) == expected


def test_dots_in_prompts_are_no_keys() -> None:
    from fmcheck.repro.table import read_toml

    prompt = 'a. b. c. "d". e. f. g. h. i. j. k. \\ l. m. n. # o. p.'
    assert read_toml(tomli_w.dumps({"prompts": [prompt, "'" + prompt]}))["prompts"] == [prompt, "'" + prompt]
