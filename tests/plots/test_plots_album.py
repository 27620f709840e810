"""Which pictures there are, and what is said of those that there are not."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fmcheck.errors import DeclarationError
from fmcheck.outcome import Report
from fmcheck.plots import album as module
from fmcheck.plots.album import Picture, album, folder_for_pictures
from fmcheck.plots.canvas import caption
from fmcheck.run import check
from fmcheck.session import Session
from fmcheck.subject import Subject
from fmcheck.subjects.load import load_subject
from tests.foreign.subjects import SUBJECTS
from tests.plots.conftest import PNG
from tests.rules.toy import SPEC, Toy, toy_subject

pytest.importorskip("matplotlib")


def pictures(subject: Subject, folder: Path, select: tuple[str, ...] = ("FM203",)) -> dict[str, Picture]:
    """Pictures by name; of several notes about one the last."""
    made: list[Picture] = []

    def draw(session: Session, report: Report) -> None:
        made.extend(album(session, report, folder))

    check(subject, select=select, on_judged=draw)
    for picture in made:
        if picture.path is not None:
            assert picture.path.read_bytes().startswith(PNG)
    return {picture.name: picture for picture in made}


def written(made: dict[str, Picture]) -> set[str]:
    return {name for name, picture in made.items() if picture.path is not None}


ALWAYS = {"time_grid.png", "state_norm.png", "decoded_states.png", "velocities.png"}


def test_tiny(tmp_path: Path) -> None:
    assert written(pictures(load_subject("tiny"), tmp_path)) == ALWAYS | {"log_snr.png"}
    assert {path.name for path in tmp_path.iterdir()} == ALWAYS | {"log_snr.png"}


def test_separate_guidance_calls(tmp_path: Path) -> None:
    assert written(pictures(SUBJECTS["functional"], tmp_path)) == ALWAYS | {"t.png"}


def test_diffusers(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    made = pictures(load_subject("diffusers:FluxPipeline"), tmp_path, ("FM303",))
    assert written(made) == ALWAYS | {"sigma.png"}


@pytest.mark.parametrize(
    ("mutant", "rules"),
    [
        ("velocities_swapped", ("FM203",)),
        ("log6_halves_mixed_up", ("FM201",)),
        ("log6_rows_interleaved", ("FM202",)),
        ("uniform_grid", ("FM303",)),
        ("last_step_dropped", ("FM301",)),
        ("told_t_for_log_snr", ("FM307",)),
        ("guidance_on_half_of_the_channels", ("FM501",)),
        ("log8_v_all_decoded", ("FM601",)),
    ],
)
def test_a_defect_has_its_picture(
    mutant: str, rules: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_of_run", lambda *_: ())
    made = pictures(load_subject(f"mutant:{mutant}"), tmp_path, rules)
    assert written(made) == {f"finding-{code}.png" for code in rules}


def test_a_mutant_has_the_pictures_of_its_run_too(tmp_path: Path) -> None:
    made = pictures(load_subject("mutant:velocities_swapped"), tmp_path)
    assert written(made) == ALWAYS | {"log_snr.png", "finding-FM203.png"}


def test_a_missing_decoder_is_named(tmp_path: Path) -> None:
    made = pictures(toy_subject(decode=None), tmp_path)
    assert made["decoded_states.png"].path is None
    assert made["decoded_states.png"].reason == "the subject declares no 'decode'"
    assert str(made["decoded_states.png"]) == "no picture decoded_states.png: the subject declares no 'decode'"
    assert written(made) == ALWAYS - {"decoded_states.png"} | {"log_snr.png"}


def test_a_solver_without_a_formula_has_all_but_its_steps(tmp_path: Path) -> None:
    made = pictures(toy_subject(spec=replace(SPEC, solver="other")), tmp_path, ("FM307",))
    assert written(made) == ALWAYS | {"log_snr.png"}


class RaisesLate(Toy):
    def finish(self, images: Any) -> Any:
        raise ValueError("no pictures today")


def test_a_run_that_raised_after_its_loop_is_drawn_and_says_so(tmp_path: Path) -> None:
    made = pictures(toy_subject(RaisesLate), tmp_path)
    assert written(made) == ALWAYS - {"decoded_states.png"} | {"log_snr.png"}
    assert "no pictures today" in made["decoded_states.png"].reason
    session = Session(toy_subject(RaisesLate))
    assert caption(session.run(session.plan.base)).endswith("; generate raised ValueError: no pictures today")


class StartsAsNan(Toy):
    def initial_state(self, z: Tensor, height: int, width: int) -> Tensor:
        return super().initial_state(z, height, width) * torch.nan


def test_a_run_of_nothing_but_nan_has_its_pictures(tmp_path: Path) -> None:
    made = pictures(toy_subject(StartsAsNan), tmp_path)
    assert made["state_norm.png"].path is not None, made["state_norm.png"]


def test_dollars_in_prompts_and_names_begin_no_formula(tmp_path: Path) -> None:
    subject = toy_subject(name="a$_$b")
    subject = subject.but(case=subject.case.but(prompts=("a $x^$", "for $5 and $6", "${var_$}")))
    assert written(pictures(subject, tmp_path)) == ALWAYS | {"log_snr.png"}


class Raises(Toy):
    def integrate(self, *args: Any) -> Any:
        raise ValueError("no state here")


def test_a_run_that_raised_has_none(tmp_path: Path) -> None:
    made = pictures(toy_subject(Raises), tmp_path)
    assert not written(made)
    assert "never called" in made["time_grid.png"].reason


def test_of_many_findings_the_first_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FINDINGS", 1)
    made = pictures(load_subject("mutant:uniform_grid"), tmp_path, ("FM303", "FM504"))
    assert made["finding-FM303.png"].path is not None
    assert made["finding-FM504.png"].reason == "1 of 2 rules with findings are drawn"


def test_a_picture_that_breaks_says_so_and_the_others_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("of ours")

    monkeypatch.setattr(module, "draw_velocities", broken)
    made = pictures(toy_subject(), tmp_path)
    assert made["velocities.png"].reason == "fmcheck broke, please report it: ZeroDivisionError: of ours"
    assert written(made) == ALWAYS - {"velocities.png"} | {"log_snr.png"}


def test_pictures_of_an_earlier_run_are_replaced_or_named(tmp_path: Path) -> None:
    for name in ("time_grid.png", "finding-FM203.png", "of-the-user.png"):
        (tmp_path / name).write_text("old")
    made = pictures(toy_subject(), tmp_path)
    assert (tmp_path / "time_grid.png").read_bytes().startswith(PNG)
    assert "not of this run" in made["finding-FM203.png"].reason
    assert (tmp_path / "finding-FM203.png").read_text() == "old"
    assert "of-the-user.png" not in made


def test_equal_runs_give_equal_files(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        pictures(toy_subject(), folder_for_pictures(tmp_path / folder))
    for name in ALWAYS:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_folder_is_made(tmp_path: Path) -> None:
    assert folder_for_pictures(tmp_path / "new" / "deep").is_dir()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(DeclarationError, match="expected a folder"):
        folder_for_pictures(tmp_path / "taken")
    with pytest.raises(DeclarationError, match="expected a folder"):
        folder_for_pictures(tmp_path / "taken" / "below")
