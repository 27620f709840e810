"""A whole sweep on a pipeline whose numbers are known, stopped and gone on with, and on the tiny model."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from fmcheck import Request, Subject
from fmcheck.errors import DeclarationError
from fmcheck.judge import Judge
from fmcheck.subjects import load_subject
from fmcheck.sweep import Campaign, Settings, Sweep, settings_for
from fmcheck.sweep.settings import Key
from fmcheck.sweep.summary import Row
from tests.sweep.toys import PROMPTS, Toy, likes_03, noise_judge, toy

SCALES = (0.0, 1.0, 2.0, 3.0, 6.0)


def _settings(subject: Subject, **changes: object) -> Settings:
    return settings_for(subject, **{"scales": SCALES, "steps": [2, 4], "seeds": 2, **changes})  # type: ignore[arg-type]


def _swept(subject: Subject, folder: Path, *, fresh: bool = False, timed: bool = False, **changes: object) -> Sweep:
    return Campaign("toy", subject, _settings(subject, **changes), folder, fresh=fresh, timed=timed).run()


def _row(sweep: Sweep, steps: int, scale: float) -> Row:
    return next(row for row in sweep.rows if row.setting == (steps, scale))


def test_distances_are_those_of_the_closed_form(tmp_path: Path) -> None:
    """The picture is shifted by 0.1 (s - 1) from the one at s = 1, in a range of width 2."""
    sweep = _swept(toy(likes_03), tmp_path / "out")
    for row in sweep.rows:
        assert row.distance is not None
        assert row.distance.mean == pytest.approx(0.05 * abs(row.scale - 1), abs=1e-7)
        assert row.off == (row.scale == 1)


def test_states_on_the_way_are_those_of_the_closed_form(tmp_path: Path) -> None:
    """`x0 + 0.1 s k / K`, with the noise that the first generator gives."""
    subject = toy()
    sweep = _swept(subject, tmp_path / "out", seeds=1)
    x0 = 0.05 * torch.randn(2, 3, 2, 3, generator=torch.Generator().manual_seed(0))
    for k in range(5):
        expected = (x0 + 0.1 * 6 * k / 4).square().flatten(1).mean(1).sqrt()
        assert _row(sweep, 4, 6.0).norms[k] == pytest.approx(float(expected.mean()), rel=1e-6)  # type: ignore[index]
    assert _row(sweep, 4, 0.0).growth.mean == pytest.approx(1.0)  # type: ignore[union-attr]


def test_standard_errors_are_over_prompts_and_not_over_pictures(tmp_path: Path) -> None:
    """The judge takes 0.05 (i mod 4) from prompt i; the noise of the mean is 0.05 / sqrt(18), small beside it."""
    found = _row(_swept(toy(likes_03), tmp_path / "out"), 2, 1.0).scores["match"]
    offsets = torch.tensor([0.05 * (i % 4) for i in range(8)], dtype=torch.float64)
    assert len(found.prompts) == 8
    assert found.error == pytest.approx(float(offsets.std() / math.sqrt(8)), rel=0.25)
    assert found.mean == pytest.approx(0.8 - 0.2 - 0.075, abs=0.01)


def test_the_best_scale_is_found_and_an_equal_one_with_fewer_steps_preferred(tmp_path: Path) -> None:
    advice = _swept(toy(likes_03), tmp_path / "out").advice
    assert (advice.kind, advice.chosen) == ("recommended", (2, 3.0))
    assert {(c.steps, c.scale) for c in advice.comparisons if not c.worse} == {(2, 3.0), (4, 3.0)} - {advice.best}


def test_scores_without_meaning_give_no_recommendation(tmp_path: Path) -> None:
    advice = _swept(toy(noise_judge), tmp_path / "out").advice
    assert advice.kind == "cannot tell"
    assert advice.chosen is None


def test_without_a_judge_there_is_no_recommendation(tmp_path: Path) -> None:
    sweep = _swept(toy(), tmp_path / "out")
    assert sweep.advice.kind == "no judge"
    assert all(row.scores == {} for row in sweep.rows)


def test_an_unguided_run_is_added_and_is_no_candidate(tmp_path: Path) -> None:
    sweep = _swept(toy(likes_03), tmp_path / "out", scales=[3, 6])
    assert [(row.scale, row.added) for row in sweep.rows[:3]] == [(1.0, True), (3.0, False), (6.0, False)]
    assert {(c.steps, c.scale) for c in sweep.advice.comparisons} <= {(2, 3.0), (4, 3.0), (2, 6.0), (4, 6.0)}


class _Stopping:
    """A sampler that is killed at its n-th call."""

    def __init__(self, after: int) -> None:
        self.after, self.calls = after, 0

    def __call__(self, model: Toy, request: Request) -> torch.Tensor:
        self.calls += 1
        if self.calls > self.after:
            raise KeyboardInterrupt
        return model.generate(request)


def test_a_sweep_that_was_killed_goes_on_where_it_ended(tmp_path: Path) -> None:
    whole = _swept(toy(likes_03), tmp_path / "whole", batch=5)
    stopping = _Stopping(after=13)
    with pytest.raises(KeyboardInterrupt):
        _swept(toy(likes_03, generate=stopping), tmp_path / "out", batch=5)
    again = _Stopping(after=10_000)
    sweep = _swept(toy(likes_03, generate=again), tmp_path / "out", batch=5)
    runs = 2 * len(SCALES) * 2 * 2
    # The mildest and the most guided of the finished runs are made again: is the sampler still the same?
    assert (sweep.found_before, again.calls) == (13, runs - 13 + 2)
    assert sweep.rows == whole.rows
    assert sweep.advice == whole.advice
    third = _Stopping(after=2)
    assert _swept(toy(likes_03, generate=third), tmp_path / "out", batch=5).rows == whole.rows


def test_a_line_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    whole = _swept(toy(likes_03), tmp_path / "out")
    path = tmp_path / "out" / "entries.jsonl"
    text = path.read_text()
    path.write_text(text[:-40])
    calls = _Stopping(after=3)
    assert _swept(toy(likes_03, generate=calls), tmp_path / "out").rows == whole.rows
    assert calls.calls == 3
    assert path.read_text() == text


@pytest.mark.parametrize("left", [None, 0, 100])
def test_a_lost_or_half_written_picture_is_made_again(tmp_path: Path, left: int | None) -> None:
    whole = _swept(toy(likes_03), tmp_path / "out")
    path = whole.store.path_of(Key(2, 3.0, 1, 0))
    content = path.read_bytes()
    path.unlink()
    if left is not None:
        path.write_bytes(content[:left])
    calls = _Stopping(after=3)
    assert _swept(toy(likes_03, generate=calls), tmp_path / "out").rows == whole.rows
    assert path.read_bytes() == content


def test_a_sampler_that_has_changed_is_noticed(tmp_path: Path) -> None:
    _swept(toy(likes_03), tmp_path / "out")
    with pytest.raises(DeclarationError, match=r"differ by 2\.[56]\d* of 255 levels .RMS.. The sampler or the judge"):
        # 0.02 of a range of 2 are 2.55 of 255 levels.
        _swept(toy(likes_03, generate=lambda m, r: m.generate(r) + 0.02), tmp_path / "out", scales=[9])


def test_guidance_that_has_changed_is_noticed_though_unguided_pictures_are_the_same(tmp_path: Path) -> None:
    def stronger(model: Toy, request: Request) -> torch.Tensor:
        more = request.case.but(guidance_scale=1.2 * request.guidance_scale - 0.2)
        return model.generate(dataclasses.replace(request, case=more))

    _swept(toy(likes_03), tmp_path / "out")
    with pytest.raises(DeclarationError, match=r"scale 6, .*made again: the pictures differ by"):
        _swept(toy(likes_03, generate=stronger), tmp_path / "out", scales=[*SCALES, 9])


def test_a_judge_that_has_changed_is_noticed_where_no_picture_is_unguided(tmp_path: Path) -> None:
    """With embedded guidance every picture is kept in eight bits; equal ones have equal scores all the same."""
    spec = dataclasses.replace(toy().spec, guidance_layout="embedded")
    _swept(toy(likes_03).but(spec=spec), tmp_path / "out", scales=[2, 3])
    other = Judge(score=lambda p, i: {"match": torch.full((len(p),), 0.5)}, headline="match", prompts=PROMPTS)
    with pytest.raises(DeclarationError, match="have other scores now"):
        _swept(toy(other).but(spec=spec), tmp_path / "out", scales=[2, 3])


def test_a_judge_that_has_changed_is_noticed(tmp_path: Path) -> None:
    _swept(toy(likes_03), tmp_path / "out")
    stricter = Judge(score=noise_judge.score, headline="match", prompts=PROMPTS)
    with pytest.raises(DeclarationError, match="the same pictures have other scores now"):
        _swept(toy(stricter), tmp_path / "out")


def test_a_sampler_that_raises_by_now_is_noticed(tmp_path: Path) -> None:
    def broken(model: Toy, request: Request) -> torch.Tensor:
        raise ValueError("no more")

    _swept(toy(likes_03), tmp_path / "out")
    with pytest.raises(DeclarationError, match="made again: generate raised ValueError: no more"):
        _swept(toy(likes_03, generate=broken), tmp_path / "out")


def test_scales_steps_and_seeds_can_be_added_later(tmp_path: Path) -> None:
    _swept(toy(likes_03), tmp_path / "out", scales=[1, 3], steps=[2], seeds=1)
    later = _swept(toy(likes_03), tmp_path / "out")
    assert later.found_before == 2
    assert later.rows == _swept(toy(likes_03), tmp_path / "at once").rows


@pytest.mark.parametrize(
    ("subject", "changes", "said"),
    [
        (toy(likes_03, build=lambda case: Toy(push=0.2)), {}, "weights"),
        (toy(likes_03), {"size": (16, 32)}, "size [16, 24] there, [16, 32] here"),
        (toy(likes_03), {"count": 7}, "prompts"),
        (toy(likes_03), {"batch": 3}, "batch_size 8 there, 3 here"),
        (toy(), {"prompts": PROMPTS[:8]}, 'judge "match" there, null here'),
    ],
)
def test_another_sweep_is_refused_and_fresh_starts_over(
    tmp_path: Path, subject: Subject, changes: dict[str, object], said: str
) -> None:
    _swept(toy(likes_03), tmp_path / "out", scales=[3])
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(DeclarationError) as caught:
        _swept(subject, tmp_path / "out", scales=[3], **changes)
    assert said in str(caught.value)
    assert "--fresh" in str(caught.value)
    assert _swept(subject, tmp_path / "out", scales=[3], fresh=True, **changes).found_before == 0
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_a_file_and_a_folder_of_other_things_are_refused_even_with_fresh(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_text("")
    for fresh in (False, True):
        with pytest.raises(DeclarationError, match="expected a folder; found a file"):
            _swept(toy(), tmp_path / "file", fresh=fresh)
        with pytest.raises(DeclarationError, match="expected a new or empty folder"):
            _swept(toy(), tmp_path / "photos", fresh=fresh)
    assert (tmp_path / "photos" / "a.png").exists()


@pytest.mark.parametrize("content", ['{"editor": 1}', "[]", '{"schema": 1, "subj'])
def test_settings_of_another_program_are_left_alone_even_with_fresh(tmp_path: Path, content: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "mine.safetensors").write_text("precious")
    (tmp_path / "settings.json").write_text(content)
    for fresh in (False, True):
        with pytest.raises(DeclarationError, match=r"settings.json: not that of a sweep, or damaged; name another"):
            _swept(toy(), tmp_path, fresh=fresh)
    assert (tmp_path / "settings.json").read_text() == content
    assert (tmp_path / "images" / "mine.safetensors").exists()


def test_pictures_that_are_not_finite_mark_their_row_and_the_sweep_goes_on(tmp_path: Path) -> None:
    def broken(model: Toy, request: Request) -> torch.Tensor:
        images = model.generate(request)
        if request.guidance_scale == 6:
            images[1, 0, 0, 0] = math.nan
        return images

    sweep = _swept(toy(likes_03, generate=broken), tmp_path / "out")
    assert [(row.scale, row.bad, row.pictures) for row in sweep.rows if row.bad] == [(6.0, 2, 16)] * 2
    assert _row(sweep, 2, 6.0).scores == {}
    assert sweep.advice.chosen == (2, 3.0)


def test_a_scale_that_raises_is_a_row_with_its_reason_and_is_tried_again(tmp_path: Path) -> None:
    def broken(model: Toy, request: Request) -> torch.Tensor:
        if request.guidance_scale == 0:
            raise ValueError("divides by the scale")
        return model.generate(request)

    sweep = _swept(toy(likes_03, generate=broken), tmp_path / "out")
    assert _row(sweep, 2, 0.0).error == "generate raised ValueError: divides by the scale"
    assert sweep.advice.chosen == (2, 3.0)
    assert not any(row.error for row in _swept(toy(likes_03), tmp_path / "out").rows)


def test_a_run_whose_unguided_one_raised_is_made_again_with_it(tmp_path: Path) -> None:
    def broken(model: Toy, request: Request) -> torch.Tensor:
        if request.guidance_scale == 1:
            raise ValueError("divides by the scale less one")
        return model.generate(request)

    first = _swept(toy(likes_03, generate=broken), tmp_path / "out")
    assert _row(first, 2, 3.0).distance is None
    later = _swept(toy(likes_03), tmp_path / "out")
    assert later.rows == _swept(toy(likes_03), tmp_path / "at once").rows


@pytest.mark.parametrize("start", [0.0, 1e38])
def test_a_state_whose_growth_is_no_number_says_so(tmp_path: Path, start: float) -> None:
    """It starts at nothing, or overflows on the way to pictures that are clamped."""

    class Growing(Toy):
        def decode(self, x: torch.Tensor) -> torch.Tensor:
            return super().decode(x).clamp(-1, 1).nan_to_num(0.0)

        @torch.no_grad()
        def generate(self, request: Request) -> torch.Tensor:
            x, null = torch.full((len(request.prompts), 3, 2, 3), start), torch.zeros(len(request.prompts))
            for k in range(request.num_steps):
                x = x + 20 * start * self.velocity(x, null + k, null.bool()) + self.velocity(x, null + k, null.bool())
            return self.decode(x)

    row = _row(_swept(toy(build=lambda case: Growing()), tmp_path / "out", scales=[1]), 4, 1.0)
    assert row.growth is None
    assert row.no_norms == "it starts at 0 or overflows, so that its growth is no number"
    assert row.clipped is not None


def test_a_judge_that_draws_is_the_same_again_and_leaves_no_trace(tmp_path: Path) -> None:
    def score(prompts: Sequence[str], images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"match": torch.rand(len(prompts))}

    judge = Judge(score=score, headline="match", prompts=PROMPTS)
    before = torch.random.get_rng_state()
    first = _swept(toy(judge), tmp_path / "out")
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)
    assert _swept(toy(judge), tmp_path / "out").rows == first.rows


def test_weights_without_a_shape_yet_are_no_obstacle(tmp_path: Path) -> None:
    def build(case: object) -> Toy:
        model = Toy()
        model.unused = torch.nn.LazyLinear(3)
        return model

    assert _swept(toy(likes_03, build=build), tmp_path / "out", scales=[1, 3]).advice.chosen == (2, 3.0)


def test_a_subject_that_always_raises_is_a_wrong_declaration(tmp_path: Path) -> None:
    def broken(model: Toy, request: Request) -> torch.Tensor:
        raise ValueError("the state is nowhere")

    with pytest.raises(DeclarationError, match="every run raised; generate raised ValueError: the state is nowhere"):
        _swept(toy(generate=broken), tmp_path / "out")


def test_something_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match=r"expected images \[2, channels, H, W\]; found float32 \[2, 3\]"):
        _swept(toy(generate=lambda model, request: torch.zeros(2, 3)), tmp_path / "out")


def test_states_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    sweep = _swept(toy(generate=lambda m, r: torch.zeros(len(r.prompts), 3, 16, 24)), tmp_path / "out")
    assert all(row.growth is None and row.norms is None for row in sweep.rows)
    assert {row.no_norms for row in sweep.rows} == {"the velocity network was never called"}


def test_without_a_decoder_in_sight_the_last_state_is_missing(tmp_path: Path) -> None:
    row = _row(_swept(toy().but(decode=None), tmp_path / "out"), 4, 6.0)
    assert len(row.norms or []) == 4
    assert "enters no observed function" in row.no_norms


def test_a_judge_that_raises_stops_the_sweep_and_names_itself(tmp_path: Path) -> None:
    def score(prompts: object, images: torch.Tensor) -> dict[str, torch.Tensor]:
        raise KeyError("no such colour")

    judge = Judge(score=score, headline="match", prompts=PROMPTS)  # type: ignore[arg-type]
    with pytest.raises(DeclarationError, match="score raised KeyError"):
        _swept(toy(judge), tmp_path / "out")


def test_the_model_and_the_global_generators_are_left_as_found(tmp_path: Path) -> None:
    models: list[Toy] = []

    def build(case: object) -> Toy:
        models.append(Toy())
        return models[-1]

    def careless(model: Toy, request: Request) -> torch.Tensor:
        torch.rand(3)
        torch.set_grad_enabled(False)
        images = model.generate(request)
        with torch.no_grad():
            model.push.mul_(2)
        return images

    before = torch.random.get_rng_state()
    sweep = _swept(toy(likes_03, generate=careless, build=build), tmp_path / "out", timed=True)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.is_grad_enabled()
    assert [float(model.push.detach()) for model in models] == [pytest.approx(0.1)]
    assert _row(sweep, 2, 3.0).distance.mean == pytest.approx(0.1, abs=1e-7)  # type: ignore[union-attr]
    assert all(row.seconds is not None and row.seconds > 0 for row in sweep.rows)


def test_a_sampler_that_draws_from_the_global_generator_is_paired_too(tmp_path: Path) -> None:
    def generate(model: Toy, request: Request) -> torch.Tensor:
        noise = torch.randn(len(request.prompts), 3, request.height, request.width)
        model.generate(request)
        return 0.05 * noise + 0.1 * request.guidance_scale

    sweep = _swept(toy(generate=generate), tmp_path / "out")
    for row in sweep.rows:
        assert row.distance.mean == pytest.approx(0.05 * abs(row.scale - 1), abs=1e-7)  # type: ignore[union-attr]


def test_the_tiny_model_is_swept_in_its_own_convention(tmp_path: Path) -> None:
    """Guidance is off at 0, and grows away from it; the judge is a stub that likes the unguided pictures."""

    def score(prompts: object, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"calm": 1 - images.double().square().flatten(1).mean(1).clamp(0, 1)}

    prompts = ("a red circle", "a green square", "a blue cross", "a large white triangle")
    subject = load_subject("tiny").but(judge=Judge(score=score, headline="calm", prompts=prompts))  # type: ignore[arg-type]
    settings = settings_for(subject, scales=[0, 3, 6], steps=[2], size=(64, 64), seeds=2)
    sweep = Campaign("tiny", subject, settings, tmp_path / "out", timed=False).run()
    distances = [row.distance.mean for row in sweep.rows if row.distance is not None]
    assert distances[0] == 0 < distances[1] < distances[2]
    assert [row.off for row in sweep.rows] == [True, False, False]
    assert [len(row.norms or []) for row in sweep.rows] == [3, 3, 3]
    assert sweep.advice.best == (2, 0.0)
