"""FM705, FM706, FM707 and FM716 on toys that draw from the wrong place or at the wrong time."""

import random

import numpy as np
import pytest
import torch
from torch import Tensor

from fmcheck.rules import get_rule
from fmcheck.run import Session
from tests.rules.toy import TextEncoder, Toy, judge, toy_subject


class WithText(Toy):
    """A toy whose text latent is the mean plus `noise(shape, generator)`."""

    def __init__(self) -> None:
        super().__init__()
        noise = self.noise

        class Noisy(TextEncoder):
            def forward(self, input_ids: Tensor, attention_mask: Tensor, generator: torch.Generator) -> Tensor:
                mean = super().forward(input_ids, attention_mask, torch.Generator().manual_seed(7))
                return mean + noise(mean.shape, generator)

        self.text_encoder = Noisy(torch.Generator().manual_seed(0))

    def noise(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        raise NotImplementedError


class NoNoise(WithText):
    def noise(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        return torch.zeros(shape)


class GlobalNoise(WithText):
    def noise(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        return torch.randn(shape)


class PythonNoise(WithText):
    def noise(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        return torch.full(shape, random.random()) + torch.randn(shape, generator=generator)


class NumpyNoise(WithText):
    def noise(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        return torch.tensor(np.random.rand(), dtype=torch.float32) + torch.randn(shape, generator=generator)  # noqa: NPY002


class ThrownAway(WithText):
    def noise(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        return 0 * torch.randn(shape, generator=generator)


class ForkedNoise(WithText):
    """Draws from the global generator, seeded from the caller's, and puts everything back."""

    def noise(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator.initial_seed())
            return torch.randn(shape)


class IgnoresItsStart(Toy):
    def integrate(self, x: Tensor, num_steps: int, scale: float, generator: torch.Generator) -> Tensor:
        super().integrate(x, num_steps, scale, generator)
        return torch.zeros_like(x)


class OwnSeed(Toy):
    def initial_state(self, z: Tensor, height: int, width: int) -> Tensor:
        torch.manual_seed(0)
        return super().initial_state(z, height, width)


class NoiseInLoop(Toy):
    def integrate(self, x: Tensor, num_steps: int, scale: float, generator: torch.Generator) -> Tensor:
        edges = self.edges(num_steps)
        for k, dt in enumerate(edges.diff()):
            x = x + dt * self.velocity_at(x, (edges[k] + edges[k + 1]) / 2, scale)
            x = x + 0 * torch.randn(x.shape, generator=generator)
        return x


class RandomTimes(Toy):
    def integrate(self, x: Tensor, num_steps: int, scale: float, generator: torch.Generator) -> Tensor:
        for _ in range(num_steps):
            x = x + self.velocity_at(x, torch.rand((), generator=generator), scale) / num_steps
        return x


class DropoutOn(Toy):
    def integrate(self, x: Tensor, num_steps: int, scale: float, generator: torch.Generator) -> Tensor:
        self.velocity.train()
        try:
            return super().integrate(x, num_steps, scale, generator)
        finally:
            self.velocity.eval()


class NoiseAroundTheLoop(Toy):
    """Noise on the initial state and on the decoder's input: right, as far as the loop goes."""

    def integrate(self, x: Tensor, num_steps: int, scale: float, generator: torch.Generator) -> Tensor:
        x = x + 0.1 * torch.randn(x.shape, generator=generator)
        x = super().integrate(x, num_steps, scale, generator)
        return x + 0.1 * torch.randn(x.shape, generator=generator)


# FM705.


def test_a_pipeline_without_noise_ignores_the_seed() -> None:
    finding = judge("FM705", NoNoise).findings[0]
    assert finding.message == "seeds 0 and 1 give the same pictures, bit for bit"
    assert finding.where == "runs base and other-seed"
    assert finding.diagnosis == "nothing is drawn at all"


def test_global_noise_ignores_the_seed() -> None:
    finding = judge("FM705", GlobalNoise).findings[0]
    assert finding.diagnosis == "noise is drawn from the global generator (torch) instead"


def test_numbers_that_are_thrown_away_are_recognised() -> None:
    assert "thrown away" in (judge("FM705", ThrownAway).findings[0].diagnosis or "")


def test_a_loop_that_ignores_its_start_is_recognised() -> None:
    finding = judge("FM705", IgnoresItsStart).findings[0]
    assert finding.diagnosis == "the initial states differ, and the loop does not use them"


def test_a_seed_that_acts_by_another_road_is_honoured() -> None:
    assert judge("FM705", ForkedNoise).status == "passed"


def test_nan_pictures_say_nothing_about_the_seed() -> None:
    class AllNaN(Toy):
        def finish(self, images: Tensor) -> Tensor:
            return images * torch.nan

    assert judge("FM705", AllNaN).status == "not informative"


# FM706.


def test_global_noise_is_foreign() -> None:
    findings = judge("FM706", GlobalNoise).findings
    by_run = {f.where: f for f in findings}
    assert by_run["run base"].message == "1 draws from global generators; the first from torch inside text[0]"
    last = by_run["runs base and other-global-rng"]
    assert last.message.startswith("the pictures change with the state of the global random generators")
    assert last.diagnosis == "drawn from torch inside text[0]"


@pytest.mark.parametrize("part", ["sample", "decode"])
def test_the_part_of_the_autoencoder_that_draws_is_named(part: str) -> None:
    class Dithering(Toy):
        def __init__(self) -> None:
            super().__init__()
            clean = getattr(self.codec, part)
            setattr(self.codec, part, lambda x: clean(x) + 1e-3 * torch.randn(x.shape[0], 1, 1, 1))

    finding = judge("FM706", Dithering).findings[0]
    assert f"the first from torch inside {part}[0]" in finding.message
    assert finding.diagnosis is not None
    assert finding.diagnosis.startswith(f"inside codec.{part}: a random call without generator=")


def test_python_and_numpy_noise_is_foreign() -> None:
    for model, source in ((PythonNoise, "python"), (NumpyNoise, "numpy")):
        findings = judge("FM706", model).findings
        assert f"from {source} inside text[0]" in findings[0].message
        assert any("the pictures change" in f.message for f in findings)


def test_reseeding_the_global_generator_is_foreign() -> None:
    assert judge("FM706", OwnSeed).status == "failed"


def test_the_rule_also_sees_runs_that_raised() -> None:
    class DrawsAndFails(GlobalNoise):
        def edges(self, num_steps: int) -> Tensor:
            raise RuntimeError("no grid")

    outcome = judge("FM706", DrawsAndFails)
    assert outcome.status == "failed"
    assert outcome.checks > 1


# FM707.


def test_a_global_generator_that_moved_is_named() -> None:
    assert {f.message for f in judge("FM707", GlobalNoise).findings} == {
        "global random generators moved during the run: torch"
    }
    assert "python" in judge("FM707", PythonNoise).findings[0].message
    assert "numpy" in judge("FM707", NumpyNoise).findings[0].message
    assert judge("FM707", OwnSeed).status == "failed"


def test_a_global_generator_that_was_put_back_is_as_found() -> None:
    assert judge("FM707", ForkedNoise).status == "passed"


# FM716.


def test_noise_in_the_loop_is_found_even_without_effect() -> None:
    outcome = judge("FM716", NoiseInLoop)
    finding = next(f for f in outcome.findings if f.run == "base")
    assert finding.message == "3 draws during the loop; the first from caller after velocity[0], before velocity[1]"
    assert finding.diagnosis == "random times, or noise added to the state"


def test_random_times_are_found_but_for_the_first() -> None:
    """The first time is drawn before the first evaluation, where noise is right: one step shows nothing."""
    assert "one-step" not in {f.run for f in judge("FM716", RandomTimes).findings}
    assert judge("FM716", RandomTimes).status == "failed"


def test_dropout_is_found_inside_the_network_also_in_one_step() -> None:
    findings = judge("FM716", DropoutOn).findings
    assert "one-step" in {f.run for f in findings}
    assert {f.diagnosis for f in findings} == {"the network draws: dropout, or noise of its own"}
    assert findings[0].message == "4 draws during the loop; the first from torch inside velocity[0]"


def test_noise_before_and_after_the_loop_is_allowed() -> None:
    assert judge("FM716", NoiseAroundTheLoop).status == "passed"


def test_the_clean_toy_passes_every_one_of_them() -> None:
    session = Session(toy_subject())
    for code in ("FM705", "FM706", "FM707", "FM716"):
        outcome = session.judge(get_rule(code))
        assert (outcome.status, len(outcome.findings)) == ("passed", 0)
        assert outcome.checks
