"""Cases in which something rightly has no effect, on a pipeline whose branches differ by the prompt alone.

It starts at noise; `u + s (c - u)` with an empty prompt as the null one and no flag, states in units of their own,
Euler from the left.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmcheck import Case, FlowSpec, Point, Request, Subject
from fmcheck.outcome import Outcome
from fmcheck.rules import get_rule
from fmcheck.run import Session

SCALE, SHIFT = 0.7, 0.2
CASE = Case(prompts=("a red cat", "two dogs in the snow", "sky"), height=64, width=96, num_steps=4, guidance_scale=3.0)


class Painter(nn.Module):
    """Everything in a few lines, all of it correct."""

    told = 1.0  # of the time

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            self.words, self.net = nn.Embedding(256, 8), nn.Conv2d(8, 8, 3, padding=1)
            self.down, self.up = nn.Conv2d(3, 8, 8, stride=8), nn.ConvTranspose2d(8, 3, 8, stride=8)

    def read(self, prompts: Sequence[str]) -> Tensor:
        return torch.stack([self.words(torch.tensor(list(p.encode()), dtype=torch.int64)).sum(0) for p in prompts])

    def velocity(self, x: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        return torch.tanh(self.net(x) + sigma.reshape(-1, 1, 1, 1)) + 0.3 * torch.tanh(text)[:, :, None, None] * x

    def decode(self, x: Tensor) -> Tensor:
        return torch.tanh(self.up(x))

    @torch.no_grad()
    def paint(
        self, prompts: Sequence[str], height: int, width: int, steps: int, scale: float, generator: torch.Generator
    ) -> Tensor:
        text, rows = self.read([*([""] * len(prompts)), *prompts]), len(prompts)
        x = torch.randn(rows, 8, height // 8, width // 8, generator=generator)
        sigmas = torch.linspace(1, 0, steps + 1, dtype=torch.float64).float()
        for k in range(steps):
            v = self.velocity(torch.cat([x, x]), self.told * sigmas[k].expand(2 * rows), text)
            uncond, cond = v.chunk(2)
            x = x + (sigmas[k + 1] - sigmas[k]) * (uncond + scale * (cond - uncond))
        return self.decode(x / SCALE + SHIFT)

    def loss(self, request: Request) -> Tensor:
        assert request.images is not None
        x1 = (self.down(request.images) - SHIFT) * SCALE
        noise = torch.randn(x1.shape, generator=request.generator)
        sigma = torch.rand(len(x1), generator=request.generator)
        x = torch.lerp(x1, noise, sigma[:, None, None, None])
        return F.mse_loss(self.velocity(x, sigma, self.read(request.prompts)), noise - x1)


def painter(model: type[Painter] = Painter, **case: Any) -> Subject:
    return Subject(
        name="painter",
        build=lambda case: model().to(case.device, case.torch_dtype),
        generate=lambda m, r: m.paint(r.prompts, **r.keywords(steps="num_steps", scale="guidance_scale")),
        loss=lambda m, r: m.loss(r),
        velocity=Point("velocity", arguments={"null": None}),
        encode="down",
        decode="decode",
        entry="paint",
        spec=FlowSpec(
            time_argument="sigma",
            prediction="reverse_velocity",
            evaluation_point="left",
            grid="uniform",
            guidance_formula="uncond_plus",
            guidance_layout="uncond_first",
            initial_state="noise",
            latent_scale=SCALE,
            latent_shift=SHIFT,
            latent_channels=8,
            downsampling=8,
            sigma_min=0.0,
            time_distribution="uniform",
            null_probability=0.0,
        ),
        case=CASE.but(**case),
    )


def outcome(code: str, subject: Subject) -> Outcome:
    return Session(subject).judge(get_rule(code))


def silent(code: str, subject: Subject) -> Outcome:
    found = outcome(code, subject)
    assert not found.findings, [str(finding) for finding in found.findings]
    return found


@pytest.mark.parametrize("code", ["FM203", "FM204", "FM307", "FM504", "FM708", "FM806", "FM816"])
def test_the_painter_is_right(code: str) -> None:
    assert silent(code, painter()).status == "passed"


def test_of_the_unconditional_branch_alone_no_prompt_is_asked() -> None:
    """At s = 0 the result is u, which is what the formula says."""
    subject = painter(guidance_scale=0.0)
    assert "unconditional branch" in silent("FM806", subject).reason
    assert silent("FM708", subject).status == "passed"


class Deaf(Painter):
    def read(self, prompts: Sequence[str]) -> Tensor:
        return super().read(["the same for all"] * len(prompts))


def test_a_prompt_that_is_lost_is_found_at_any_other_scale() -> None:
    assert outcome("FM806", painter(Deaf, guidance_scale=0.5)).findings
    assert outcome("FM708", painter(Deaf)).findings
    found = outcome("FM204", painter(Deaf)).findings
    assert "both branches get the same condition" in str(found[0])


@pytest.mark.parametrize("prompts", [("",), ("", "  ")])
def test_where_all_prompts_are_empty_there_is_nothing_to_guide(prompts: tuple[str, ...]) -> None:
    assert "every prompt is empty" in silent("FM204", painter(prompts=prompts)).reason
    silent("FM708", painter(prompts=prompts))


class ScaleIgnored(Painter):
    def paint(self, *args: Any, scale: float, **kwargs: Any) -> Tensor:  # type: ignore[override]
        return super().paint(*args, scale=2.0, **kwargs)


def test_with_one_prompt_that_is_not_empty_an_ignored_scale_is_found() -> None:
    assert outcome("FM708", painter(ScaleIgnored, prompts=("", "a cat"))).findings
    assert outcome("FM204", painter(ScaleIgnored, prompts=("", "a cat"))).findings


@pytest.mark.parametrize("steps", [1, 2])
def test_an_end_that_is_recovered_through_scale_and_shift_has_their_rounding(steps: int) -> None:
    """The shift is larger than what the state is left with, and one step rounds hardly at all."""
    silent("FM504", painter(num_steps=steps))


class Zeroed(Painter):
    def velocity(self, x: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        return 0 * super().velocity(x, sigma, text)


def test_one_difference_at_the_end_has_not_come_little_by_little() -> None:
    """A network of zeros hands on no error, and the sum of the loss is taken in another order over another layout."""
    silent("FM816", painter(Zeroed))


class ToldThousands(Painter):
    told = 1000.0


def test_a_time_outside_of_the_path_is_guided_all_the_same() -> None:
    subject = painter(ToldThousands)
    assert outcome("FM307", subject).findings
    for code in ("FM203", "FM207"):
        silent(code, subject)
