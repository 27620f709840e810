"""FM4 on hand-written pipelines whose initial state is not the text latent."""

import warnings

import pytest
import torch
from torch import Tensor, nn

from fmcheck.case import Case
from tests.rules.loops import CHANNELS, Pipeline, but, caught, clean, failing, judge, outcomes, silent

Size = tuple[int, int, int]


class ChannelsLast(Pipeline):
    def initial(self, z: Tensor, size: Size) -> Tensor:
        c, h, w = size
        return z.reshape(len(z), h, w, c).permute(0, 3, 1, 2).contiguous()


class Transposed(Pipeline):
    def initial(self, z: Tensor, size: Size) -> Tensor:
        c, h, w = size
        return z.reshape(len(z), c, w, h).transpose(2, 3).contiguous()


class Rounded(Pipeline):
    def initial(self, z: Tensor, size: Size) -> Tensor:
        return super().initial(z, size).bfloat16().float()


class Scaled(Pipeline):
    def initial(self, z: Tensor, size: Size) -> Tensor:
        return 1.01 * super().initial(z, size)


class Noised(Pipeline):
    def initial(self, z: Tensor, size: Size) -> Tensor:
        x = super().initial(z, size)
        return x + 1e-3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))


class OtherRows(Pipeline):
    def initial(self, z: Tensor, size: Size) -> Tensor:
        return super().initial(z, size).roll(1, 0)


class Random(Pipeline):
    def initial(self, z: Tensor, size: Size) -> Tensor:
        return torch.randn((len(z), *size), generator=torch.Generator().manual_seed(1))


class Projected(Pipeline):
    """A freshly initialised layer in place of the reshape, rebuilt whenever the size changes."""

    layer: nn.Linear | None = None

    def initial(self, z: Tensor, size: Size) -> Tensor:
        if self.layer is None or self.layer.in_features != z.shape[1]:
            self.layer = nn.Linear(z.shape[1], z.shape[1])
        return self.layer(z).reshape(len(z), *size)


class BatchNormed(Pipeline):
    def initial(self, z: Tensor, size: Size) -> Tensor:
        x = super().initial(z, size)
        return x - x.mean(0, keepdim=True)


class Fixed(Pipeline):
    """A text latent of one length, stretched to other sizes with a warning."""

    LENGTH = CHANNELS * 16
    quiet = False

    def text(self, prompts: list[str], generator: torch.Generator, size: Size) -> Tensor:
        return super().text(prompts, generator, (CHANNELS, 4, 4))

    def initial(self, z: Tensor, size: Size) -> Tensor:
        c, h, w = size
        if c * h * w == self.LENGTH:
            return super().initial(z, size)
        if not self.quiet:
            warnings.warn("the text latent has another size: resizing", UserWarning, stacklevel=2)
        return torch.nn.functional.interpolate(z.reshape(-1, c, 4, 4), size=(h, w), mode="bilinear")


class Quiet(Fixed):
    quiet = True


def test_a_correct_loop_passes_and_needs_no_fallback() -> None:
    for code, outcome in outcomes(["FM401", "FM402", "FM403", "FM404", "FM405"]).items():
        if code == "FM402":
            silent(outcome, "the text latent fills the state")
        else:
            clean(outcome)


def test_a_fallback_that_warns_passes() -> None:
    for outcome in outcomes(["FM401", "FM402", "FM403", "FM404", "FM405"], Fixed).values():
        clean(outcome)


STARTS = [
    (ChannelsLast, "unpacked in (h w c) order"),
    (Transposed, "height and width are exchanged"),
    (Rounded, "the latent is rounded to bfloat16"),
    (Scaled, "the latent is multiplied by 1.01"),
    (Noised, "something is added, or it is projected"),
    (OtherRows, "row 0 starts at the latent of row 2"),
    (Random, "nothing in common with the text latent"),
]


@pytest.mark.parametrize(("pipeline", "cause"), STARTS, ids=[p.__name__ for p, _ in STARTS])
def test_a_wrong_start_is_named(pipeline: type[Pipeline], cause: str) -> None:
    caught(judge("FM401", pipeline), cause, "largest difference")


def test_a_scaled_start_trips_its_rule_alone() -> None:
    assert set(failing(Scaled)) == {"FM401"}


def test_a_projection_born_at_inference_is_seen_by_three_rules() -> None:
    found = failing(Projected)
    assert set(found) == {"FM401", "FM403", "FM404"}
    caught(found["FM403"], "2 parameters or buffers were born during sampling", "Linear.weight [48, 48]")
    caught(found["FM404"], "rebuilt when the size changes")


def test_a_silent_fallback_is_caught() -> None:
    caught(judge("FM402", Quiet), "the text latent has 48 numbers and the state needs 18, but nothing warned")


def test_rows_mixed_on_the_way_to_the_state_are_caught() -> None:
    caught(judge("FM405", BatchNormed), "row 0 changes when the prompts of the other rows change")


def test_a_batch_of_one_has_no_neighbours() -> None:
    # other_size may have more rows than the native case: here its latent is two cells wide.
    case = Case(prompts=("one",), height=8, width=8)
    assert judge("FM405", case=case).status in ("passed", "not informative")


def test_noise_starts_and_missing_text_points_say_so() -> None:
    silent(judge("FM401", spec=but(initial_state="noise")), "the flow starts at noise")
    assert judge("FM401", text=None).status == "skipped"
