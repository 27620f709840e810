"""The picture of a finding: which quantity it shows, what is marked, how far beyond its bound."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from fmcheck.outcome import Finding
from fmcheck.pictures import style
from fmcheck.plots.draw_finding import draw_finding
from fmcheck.plots.finding import Page, finding_page
from fmcheck.rules import get_rule
from fmcheck.session import Session
from fmcheck.subjects.load import load_subject
from tests.plots.conftest import PNG
from tests.rules.toy import Toy, toy_subject


def page_of(code: str, subject: Any) -> Page:
    session = Session(subject)
    session.run(session.plan.base)
    outcome = session.judge(get_rule(code))
    assert outcome.findings
    return finding_page(session, outcome.rule, outcome.findings)


def toy_page(code: str, model: type[Toy]) -> Page:
    return page_of(code, toy_subject(model))


class TwiceGuided(Toy):
    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        return super().velocity_at(x, t, 2 * scale)


def test_guidance_shows_the_scale_that_was_used() -> None:
    page = toy_page("FM203", TwiceGuided)
    scale, size = page.panels
    # `cond_plus` with w = 2.5 is u + 3.5 (c - u); with twice that it is 6.
    assert scale.expected == pytest.approx([3.5] * 4)
    assert scale.observed == pytest.approx([6.0] * 4, abs=1e-3)
    assert scale.marked == (0, 1, 2, 3)
    assert all(abs(a - b) > 0.01 for a, b in zip(size.expected, size.observed, strict=True))
    assert page.message.startswith("the loop behaves as u + 6")
    assert "run base" in page.shown


class LateClip(Toy):
    """Clips the state in the last two steps of four."""

    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        velocity = super().velocity_at(x, t, scale)
        return velocity if float(t) < 0.5 else velocity.clamp(-0.5, 0.5)


def test_only_reported_steps_are_marked() -> None:
    page = toy_page("FM501", LateClip)
    state, error = page.panels
    assert state.x == (1, 2, 3, 4)
    # The last step is another rule's.
    assert state.marked == (2,)
    assert error.is_error
    assert [used > allowed for used, allowed in zip(error.observed, error.expected, strict=True)] == [
        False,
        False,
        True,
        True,
    ]


def test_the_last_step_is_that_of_what_is_decoded() -> None:
    page = toy_page("FM601", LateClip)
    assert page.panels[0].marked == (3,)


class Halves(Toy):
    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        batch = len(x)
        x_cat = torch.cat([x, x + 0.25])
        cond, uncond = self.velocity(x_cat, self.log_snr(t, 2 * batch), self.null(2 * batch, batch)).chunk(2)
        return (1 + scale) * cond - scale * uncond


def test_halves_show_how_far_apart_the_states_are() -> None:
    (panel,) = toy_page("FM202", Halves).panels
    assert panel.observed == pytest.approx([0.25] * 4, abs=1e-6)
    assert panel.expected == (0, 0, 0, 0)
    assert panel.marked == (0, 1, 2, 3)


def test_null_flags_show_rows_and_calls() -> None:
    page = page_of("FM201", load_subject("mutant:null_indicator_off_by_one"))
    assert page.flags is not None
    assert page.flags.batch == 3
    assert page.flags.expected == ((0, 0, 0, 1, 1, 1),) * 4
    assert page.flags.observed[0] != page.flags.expected[0]
    assert page.bars == ()


class RowTimes(Toy):
    def log_snr(self, t: Tensor, rows: int) -> Tensor:
        return super().log_snr(t, rows) - 0.08 * torch.arange(rows)


def test_rows_at_several_times_show_their_range() -> None:
    told, spread = toy_page("FM308", RowTimes).panels
    assert spread.observed == pytest.approx([0.05] * 4, abs=1e-6)
    assert [a - b for a, b in zip(told.low, told.high, strict=True)] == pytest.approx([0.4] * 4, abs=1e-5)


class Uniform(Toy):
    def edges(self, num_steps: int) -> Tensor:
        return torch.linspace(0, 1, num_steps + 1)


def test_a_grid_shows_its_lengths_and_edges() -> None:
    lengths, edges = toy_page("FM303", Uniform).panels
    assert lengths.observed == pytest.approx([0.25] * 4, abs=1e-6)
    assert edges.observed == pytest.approx([0, 0.25, 0.5, 0.75, 1], abs=1e-6)
    assert edges.expected[2] == pytest.approx(0.5)


def test_bars_are_the_worst_of_every_run() -> None:
    session = Session(toy_subject(Uniform))
    outcome = session.judge(get_rule("FM303"))
    page = finding_page(session, outcome.rule, outcome.findings)
    worst: dict[str, float] = {}
    for finding in outcome.findings:
        assert finding.ratio is not None
        worst[finding.run] = max(worst.get(finding.run, 0.0), finding.ratio)
    ratios = [bar.used / bar.allowed for bar in page.bars]
    assert ratios == pytest.approx(sorted(worst.values(), reverse=True)[:6])
    assert page.count == len(outcome.findings)


def test_a_finding_of_a_rule_that_compares_runs_shows_the_one_that_it_names() -> None:
    page = toy_page("FM504", Uniform)
    assert page.where == "run oracle-sine-4-steps"
    assert "run oracle-sine-4-steps" in page.shown
    assert [panel.title for panel in page.panels] == ["Step sizes", "Time argument: log_snr = 4 - 8 t"]


def test_a_rule_about_no_steps_shows_no_panel() -> None:
    rule = get_rule("FM708")
    finding = Finding(code="FM708", name=rule.name, severity="error", message="argument is dead", where="run x")
    page = finding_page(Session(toy_subject()), rule, [finding])
    assert (page.panels, page.flags, page.bars, page.shown) == ((), None, (), "")
    assert page.places == ("run x",)


class Unreadable(Toy):
    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        rows = 3 * len(x)
        return self.velocity(torch.cat([x] * 3), self.log_snr(t, rows), self.null(rows, len(x)))[: len(x)]


def test_a_run_that_cannot_be_read_shows_no_panel() -> None:
    session = Session(toy_subject(Unreadable))
    outcome = session.judge(get_rule("FM300"))
    assert finding_page(session, get_rule("FM307"), outcome.findings).panels == ()


@pytest.mark.parametrize(("used", "allowed"), [(math.nan, 1e-6), (math.inf, 0.0), (0.0, 0.0), (3.0, 1e-6)])
def test_any_numbers_can_be_drawn(used: float, allowed: float, tmp_path: Any) -> None:
    rule = get_rule("FM708")
    text = "a $long$ message with {braces}, `code` and _underscores_ " * 9
    finding = Finding(
        code="FM708",
        name=rule.name,
        severity="warning",
        message=text,
        where="row 2",
        used=used,
        allowed=allowed,
        ratio=used / allowed if allowed else math.inf,
        diagnosis=text,
    )
    page = finding_page(Session(toy_subject()), rule, [finding] * 3)
    path = tmp_path / "a.png"
    draw_finding(page).savefig(path)
    assert path.read_bytes().startswith(PNG)


class Capped(Toy):
    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        return super().velocity_at(x, t, min(scale, 4.0))


def test_the_run_that_is_drawn_is_the_one_that_the_finding_names() -> None:
    page = toy_page("FM207", Capped)
    assert "run large-guidance" in page.where
    assert "run large-guidance" in page.shown
    scale = page.panels[0]
    assert scale.observed == pytest.approx([5.0] * len(scale.x), abs=1e-2)
    assert scale.marked


def test_labels_on_log_axes_are_no_formulas() -> None:
    pytest.importorskip("matplotlib")
    with style():
        made = draw_finding(toy_page("FM207", Capped))
        made.canvas.draw()
    axes = [axis for panel in made.axes for axis in (panel.xaxis, panel.yaxis)]
    labels = [label.get_text() for axis in axes for label in axis.get_ticklabels()]
    assert any(re.fullmatch(r"1e[+-]\d\d", label) for label in labels)
    assert not [label for label in labels if "$" in label]
