"""What hangs in the gallery: every line of the log, its picture or why there is none, and who catches it."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fmcheck import commands_tiny
from fmcheck.errors import DeclarationError
from fmcheck.gallery.entries import entries
from fmcheck.gallery.exhibit import Catch, Exhibit, Gallery, gallery
from fmcheck.gallery.golden import golden_case
from fmcheck.gallery.page import gallery_json, gallery_markdown, gallery_page, note, times
from fmcheck.golden import read_golden
from fmcheck.mutants import all_mutants
from fmcheck.report.layout import plain
from fmcheck.subjects.tiny import subject


def test_the_whole_development_log_hangs_there() -> None:
    names = [entry.name for entry in entries()]
    assert names[0] == "clean"
    assert names[1:-2] == [m.name for m in all_mutants() if re.match(r"log\d_", m.name)]
    for entry in entries()[1:-2]:
        assert entry.label[:2] == f"{entry.name[3]} ", "a label begins with the line of the log"
    assert max(len(entry.label) for entry in entries()) <= 23


def test_an_unknown_defect_names_the_nearest() -> None:
    with pytest.raises(DeclarationError, match="did you mean 'uniform_grid'"):
        entries(["uniform_gird"])


def test_what_raises_says_so_and_has_no_score(by_name: dict[str, Exhibit]) -> None:
    raised = by_name["log1_generator_undefined"]
    assert raised.picture is None
    assert raised.scores == {}
    assert note(raised) == "raises: NameError: name 'generator' is not defined"


def test_what_is_no_picture_says_what_it_is(by_name: dict[str, Exhibit]) -> None:
    assert note(by_name["log1_output_channels_last"]) == "returned f32[3,256,256,3] for 3 prompts"


def test_pictures_are_shown_as_a_viewer_sees_them(by_name: dict[str, Exhibit]) -> None:
    picture = by_name["log1_output_out_of_range"].picture
    assert picture is not None
    assert float(picture.min()) >= 0
    assert float(picture.max()) == 1
    assert float((picture == 1).double().mean()) > 0.3, "grey levels above 1 are white"


def test_all_start_at_the_same_noise(by_name: dict[str, Exhibit]) -> None:
    clean, again = by_name["clean"], by_name["log9_fallback_made_again"]
    assert again.changed == 0, "at this size the fallback is not used"
    assert torch.equal(again.picture, clean.picture)
    assert "bit for bit" in note(again)
    assert by_name["log6_halves_mixed_up"].changed == 1


def test_each_is_caught_by_the_rule_that_it_names(small: Gallery) -> None:
    for exhibit in small.exhibits[1:]:
        assert exhibit.caught is not None
        assert exhibit.caught.code == exhibit.entry.mutant.caught_by
    assert small.exhibits[0].caught is None


def test_a_numeric_rule_says_by_how_many_times_its_bound(by_name: dict[str, Exhibit]) -> None:
    caught = by_name["uniform_grid"].caught
    assert caught.code == "FM303"
    assert caught.ratio > 1e4
    assert re.fullmatch(r"[\d,]+000? times its bound", times(caught.ratio))
    assert times(None) == "exact"
    assert times(12.345) == "12.3 times its bound"
    assert times(96_512.3) == "96,500 times its bound"


def _with(scores: list[float], clean: list[float]) -> Exhibit:
    from fmcheck.gallery.intervals import paired

    entry = entries(["uniform_grid"])[1]
    lost = {"score": paired(scores, clean)}
    return Exhibit(entry=entry, scores={"score": scores}, changed=1.0, lost=lost, caught=Catch("FM303", "", "", 2.0))


def test_the_note_is_honest_about_what_the_score_sees() -> None:
    clean = [1.0, 5 / 6] * 6
    assert note(_with([0.5] * 12, clean)) == ""
    assert note(_with(clean[::-1], clean)) == "the score cannot see it: not told from the clean model's"
    assert note(_with([1.0] * 12, clean)) == "the score cannot see it: it is even higher"


def test_a_gallery_is_the_same_again(small: Gallery) -> None:
    again = gallery(subject, entries(["log6_halves_mixed_up"]), prompts=3)
    assert again.exhibits[1].scores == small.exhibits[4].scores
    assert torch.equal(again.exhibits[1].picture, small.exhibits[4].picture)


def test_the_table_has_a_row_an_entry_and_fits_a_readme(small: Gallery) -> None:
    lines = gallery_markdown(small).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == 2 + len(small.exhibits)
    assert len({row.count("|") for row in rows}) == 1
    assert "FM303, " in rows[-1]


def test_the_page_fits_80_columns_and_notes_hang_under_their_row(small: Gallery) -> None:
    lines = plain([gallery_page(small, width=80, written="gallery.png")]).splitlines()
    assert max(map(len, lines)) <= 80
    row = next(i for i, line in enumerate(lines) if "fallback" in line)
    assert lines[row + 1].startswith("    the score cannot see it")


def test_the_numbers_are_plain_data(small: Gallery) -> None:
    document = json.loads(gallery_json(small))
    expected = golden_case(subject, 3)
    assert document["case"] == json.loads(json.dumps(expected.as_table()))
    halves = next(row for row in document["exhibits"] if row["name"] == "log6_halves_mixed_up")
    assert halves["means"]["score"]["mean"] == pytest.approx(sum(halves["scores"]["score"]) / 3, abs=1e-6)


@pytest.mark.parametrize("count", [1, 6, 7])
def test_the_picture_is_small_whatever_hangs_there(small: Gallery, tmp_path: Path, count: int) -> None:
    pytest.importorskip("matplotlib")
    from fmcheck.gallery.picture import save_gallery

    path = save_gallery(replace(small, exhibits=small.exhibits[:count]), tmp_path / "new" / "gallery.png")
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert path.stat().st_size < 300_000


def test_the_command_writes_three_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert commands_tiny.gallery(tmp_path, prompts=1, names=["uniform_grid"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"gallery.png", "gallery.json", "gallery.md"}
    out = capsys.readouterr().out
    assert "uniform grid" in out
    assert str(tmp_path / "gallery.png") in out


def test_the_command_writes_golden_scores(tmp_path: Path) -> None:
    path = tmp_path / "new" / "golden.json"
    assert commands_tiny.golden(path, prompts=2, seeds=2) == 0
    golden = read_golden(path)
    assert golden is not None
    assert (len(golden.prompts), golden.seeds) == (2, 2)
    assert replace(subject.judge, golden=golden).golden == golden


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DeclarationError, match="cannot be written"):
        commands_tiny.golden(tmp_path / "file" / "golden.json", prompts=1, seeds=1)


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Runs the command line; returns exit code and what it wrote to stderr."""
    from fmcheck import cli

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["fmcheck", *arguments])
        with pytest.raises(SystemExit) as done:
            cli.main()
        return int(done.value.code or 0), capsys.readouterr().err

    return run


def test_wrong_arguments_are_wrong_usage(command: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    code, err = command("tiny", "gallery", "uniform_gird", "--out", str(tmp_path))
    assert code == 2
    assert "did you mean 'uniform_grid'" in err
    code, err = command("tiny", "gallery", "--prompts", "97", "--out", str(tmp_path))
    assert code == 2
    assert "expected 1 to 96" in " ".join(err.split())
    assert "Traceback" not in err
