"""The pictures of a sweep: what is drawn where, read back from the figures."""

import math
from pathlib import Path

import pytest
import torch

from fmcheck import Request
from fmcheck.sweep import Campaign, Sweep, settings_for
from tests.sweep.toys import PROMPTS, Toy, likes_03, toy

pytest.importorskip("matplotlib")

from fmcheck.sweep.pictures import grid_picture, latents_picture, measures_picture, write_pictures


def _broken(model: Toy, request: Request) -> torch.Tensor:
    images = model.generate(request)
    if request.guidance_scale == 9:
        raise ValueError("too much")
    return images * math.nan if request.guidance_scale == 6 else images


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    subject = toy(likes_03, generate=_broken)
    settings = settings_for(subject, scales=[1, 3, 6, 9], steps=[2, 4], seeds=2, count=3, batch=2)
    return Campaign("toy", subject, settings, tmp_path_factory.mktemp("sweep") / "out", timed=False).run()


def _texts(axis: object) -> list[str]:
    return [text.get_text() for text in axis.texts]  # type: ignore[attr-defined]


def test_the_grid_has_a_column_a_scale_and_a_row_a_prompt(sweep: Sweep) -> None:
    (axis,) = grid_picture(sweep, 4).axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1 (off)", "3", "6", "9"]
    assert [label.get_text() for label in axis.get_yticklabels()] == list(PROMPTS[:3])
    assert _texts(axis) == ["not finite"] * 3 + ["raised"] * 3


def test_a_cell_of_the_grid_is_the_picture_of_its_prompt_and_scale(sweep: Sweep) -> None:
    """The picture at s = 3 is lighter by 0.2 of [-1, 1], which is 25.5 of 255 levels."""
    (axis,) = grid_picture(sweep, 4).axes
    sheet = torch.from_numpy(axis.images[0].get_array().astype("int64"))
    gap = max(1, round(0.04 * 24))
    for i in range(3):
        rows = slice(i * (16 + gap), i * (16 + gap) + 16)
        off, three = sheet[rows, :24], sheet[rows, 24 + gap : 48 + gap]
        assert (three - off).double().mean() == pytest.approx(25.5, abs=0.6)
        batch, place = divmod(i, 2)
        noise = torch.randn(2 if batch == 0 else 1, 3, 2, 3, generator=torch.Generator().manual_seed(100_003 * batch))
        expected = ((0.05 * noise[place] + 0.1 + 1) / 2 * 255).repeat_interleave(8, 1).repeat_interleave(8, 2)
        assert (off - expected.permute(1, 2, 0)).abs().max() <= 0.51


def test_every_measure_has_a_panel_and_every_number_of_steps_a_line(sweep: Sweep) -> None:
    panels = [axis for axis in measures_picture(sweep).axes if axis.get_visible()]
    labels = [axis.get_ylabel().replace("\n", " ") for axis in panels]
    assert labels == [
        "score: match",
        "score: calm",
        "distance to unguided (RMS, share of range)",
        "values at the ends of the image range (share)",
        "colour: mean of max - min of R, G, B (share of range)",
        "state RMS, last / first",
    ]
    lines = panels[2].containers
    assert [line.get_label() for line in lines] == ["2 steps", "4 steps"]
    # Only the finite rows have points: 0.05 (s - 1) at s = 1 and 3.
    assert list(lines[0].lines[0].get_xdata()) == [1.0, 3.0]
    assert lines[0].lines[0].get_ydata() == pytest.approx([0.0, 0.1], abs=1e-7)


def test_the_states_have_a_panel_a_number_of_steps_and_a_line_a_scale(sweep: Sweep) -> None:
    figure = latents_picture(sweep)
    assert [axis.get_title() for axis in figure.axes] == ["2 steps", "4 steps"]
    assert [len(line.get_xdata()) for line in figure.axes[1].lines] == [5, 5]
    assert [line.get_label() for line in figure.axes[0].lines] == ["1 (off)", "3"]


def test_no_colours_meet_within_a_panel(sweep: Sweep) -> None:
    for axis in (*measures_picture(sweep).axes, *latents_picture(sweep).axes):
        colours = [line.get_color() for line in axis.lines if line.get_label()[0] != "_"]
        assert len(set(colours)) == len(colours)


def test_files_are_named_after_what_they_show(sweep: Sweep, tmp_path: Path) -> None:
    paths = write_pictures(sweep, tmp_path)
    assert [path.name for path in paths] == ["grid-2.png", "grid-4.png", "measures.png", "latents.png"]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in paths)


def test_a_grey_picture_a_dollar_and_a_single_step_are_drawn(tmp_path: Path) -> None:
    subject = toy(generate=lambda model, request: model.generate(request)[:, :1])
    settings = settings_for(subject, scales=[3], steps=[1], seeds=1, prompts=["for $5 and $6", "x" * 90])
    sweep = Campaign("toy", subject, settings, tmp_path / "out", timed=False).run()
    assert len(write_pictures(sweep, tmp_path)) == 3
    (axis,) = grid_picture(sweep, 1).axes
    assert axis.get_yticklabels()[0].get_text() == "for $5 and $6", "no formula"
    assert axis.get_yticklabels()[1].get_text().count("\n") == 3
