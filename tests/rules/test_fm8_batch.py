"""FM8 on toys whose rows, order or padding leak: the rule sees it, says where, and a careful near-miss passes."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from fmcheck.rules import select_rules
from fmcheck.run import Outcome, Session
from fmcheck.subjects.tiny import subject as tiny
from tests.rules.toy import CASE, SPEC, Codec, TextEncoder, Toy, Velocity, judge, pad, toy_subject

CODES = ["FM801", "FM802", "FM803", "FM804", "FM805", "FM806"]


def failed(outcome: Outcome, *parts: str) -> None:
    """The rule failed, and each part is in one of its findings."""
    assert outcome.status == "failed", f"{outcome.status}: {outcome.reason}"
    told = " | ".join(map(str, outcome.findings))
    for part in parts:
        assert part in told


def silent(outcome: Outcome, reason: str) -> None:
    assert outcome.status == "not informative"
    assert reason in outcome.reason


def with_parts(
    text: type[TextEncoder] = TextEncoder, velocity: type[Velocity] = Velocity, codec: type[Codec] = Codec
) -> type[Toy]:
    """A toy with other networks."""

    class Parts(Toy):
        def __init__(self) -> None:
            super().__init__()
            generator = torch.Generator().manual_seed(0)
            self.text_encoder, self.velocity, self.codec = text(generator), velocity(generator), codec(generator)
            self.eval()

    return Parts


@pytest.mark.parametrize("code", CODES)
def test_the_clean_toy_passes(code: str) -> None:
    outcome = judge(code)
    assert outcome.status == "passed"
    assert outcome.checks > 0


def test_the_tiny_model_passes_all_of_them() -> None:
    session = Session(tiny)
    for rule in select_rules(["FM80"]):
        outcome = session.judge(rule)
        assert (outcome.status, outcome.findings) == ("passed", ()), f"{rule}: {outcome.reason}"


# FM801: neighbours.


class StatisticsOverTheBatch(Velocity):
    def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
        return super().forward(x - 1e-6 * x.mean(0), log_snr, null)


class StatisticsInsideARow(Velocity):
    def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
        return super().forward(x - x.mean((1, 2, 3), keepdim=True), log_snr, null)


class CentredTexts(TextEncoder):
    def forward(self, input_ids: Tensor, attention_mask: Tensor, generator: torch.Generator) -> Tensor:
        z = super().forward(input_ids, attention_mask, generator)
        return z - z.mean(0)


class NormalisedStart(Toy):
    def initial_state(self, z: Tensor, height: int, width: int) -> Tensor:
        return super().initial_state(z / z.std(), height, width)


class ScaledByTheBatch(Toy):
    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        v = super().velocity_at(x, t, scale)
        return v / v.std()


class CommonBrightness(Codec):
    def decode(self, x: Tensor) -> Tensor:
        images = super().decode(x)
        return images - images.mean(0)


LEAKS = [
    (with_parts(velocity=StatisticsOverTheBatch), "first at the output of velocity[0]", "velocity mixes rows"),
    (with_parts(text=CentredTexts), "first at the output of text[0]", "the text encoder mixes rows"),
    (NormalisedStart, "first at the input of velocity[0]", "the initial state of a row is made from other rows"),
    (ScaledByTheBatch, "first at the input of velocity[1]", "the update of the state mixes rows"),
    (with_parts(codec=CommonBrightness), "first at the output of decode[0]", "decode mixes rows"),
]


@pytest.mark.parametrize(("model", "where", "cause"), LEAKS)
def test_a_leak_between_rows_is_located(model: type[Toy], where: str, cause: str) -> None:
    outcome = judge("FM801", model)
    failed(outcome, "row 0 of 3", "row 1 of 3", "row 2 of 3", where, cause, "allowed 0 (bitwise)")


def test_statistics_inside_a_row_are_no_leak() -> None:
    assert judge("FM801", with_parts(velocity=StatisticsInsideARow)).status == "passed"


class SpreadAlongTheWidth(Toy):
    """One gain a row, broadcast along the width where that has as many entries."""

    def initial_state(self, z: Tensor, height: int, width: int) -> Tensor:
        x = super().initial_state(z, height, width)
        gain = z.std(1)
        return x * (gain if len(x) == x.shape[-1] else gain[:, None, None, None])


def test_a_value_per_row_spread_along_the_width_shows_where_rows_and_width_are_equal() -> None:
    outcome = judge("FM801", SpreadAlongTheWidth)
    failed(outcome, "row 0 of 4", "first at the input of velocity[0]")
    assert len(outcome.findings) == 1


class SpreadInTheNetwork(Velocity):
    def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
        gain = x.std((1, 2, 3))
        rows, width = len(x) // 2, x.shape[-1]
        by_row = gain[:rows] if rows == width else gain[:, None, None, None]
        return super().forward(x * by_row, log_snr, null)


def test_the_diagnosis_names_the_broadcast_when_the_shapes_allow_it() -> None:
    failed(judge("FM801", with_parts(velocity=SpreadInTheNetwork)), "spread along height or width")


class UnmaskedPadding(TextEncoder):
    """Divides by the padded length, which is that of the longest prompt."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, generator: torch.Generator) -> Tensor:
        z = super().forward(input_ids, attention_mask, generator)
        return z * attention_mask.sum(1, keepdim=True) / attention_mask.shape[1]


class RoundingByLength(TextEncoder):
    """As kernels do: another padded length, another rounding."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, generator: torch.Generator) -> Tensor:
        z = super().forward(input_ids, attention_mask, generator)
        return z * (1 + 1e-7 * attention_mask.shape[1])


def to_longest(model: Any, prompts: list[str]) -> Mapping[str, Tensor]:
    inputs = toy_subject().tokenize(model, prompts)
    longest = int(inputs["attention_mask"].sum(1).max())
    return {name: value[:, :longest] for name, value in inputs.items()}


def test_padding_to_the_longest_prompt_is_a_leak_only_when_it_is_seen() -> None:
    failed(judge("FM801", with_parts(text=UnmaskedPadding), tokenize=to_longest), "half of the digits are asked for")
    outcome = judge("FM801", with_parts(text=RoundingByLength), tokenize=to_longest)
    assert outcome.status == "passed"
    assert outcome.ratio is not None
    assert 0 < outcome.ratio < 1


class DeafText(TextEncoder):
    """Ignores its prompt."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, generator: torch.Generator) -> Tensor:
        return super().forward(torch.ones_like(input_ids), torch.ones_like(attention_mask), generator)


@pytest.mark.parametrize(
    ("model", "case", "reason"),
    [
        (Toy, CASE.with_batch(1), "a single row"),
        (with_parts(text=DeafText), CASE, "other prompts change nothing"),
    ],
)
def test_neighbours_that_cannot_show_are_not_informative(model: type[Toy], case: Any, reason: str) -> None:
    silent(judge("FM801", model, case=case), reason)


class OneSizeOnly(Toy):
    def initial_state(self, z: Tensor, height: int, width: int) -> Tensor:
        if height != width:
            raise ValueError("one size only")
        return super().initial_state(z, height, width)


def test_a_refused_size_does_not_silence_the_rule() -> None:
    outcome = judge("FM801", OneSizeOnly)
    assert (outcome.status, outcome.checks) == ("passed", 3)


# FM802: NaN.


class WeightZero(Toy):
    """A leak whose weight happens to be zero: no ordinary prompt shows it."""

    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        return super().velocity_at(x, t, scale) + 0 * x.sum(0)


class NeighbourReplacesNan(Toy):
    """Puts a constant in rows where a neighbour is broken."""

    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        v = super().velocity_at(x, t, scale)
        return v if bool(v.isfinite().all()) else v + 1.0


def test_a_leak_of_weight_zero_shows_as_nan() -> None:
    assert judge("FM801", WeightZero).status == "passed"
    failed(judge("FM802", WeightZero), "NaN or infinite", "row 2 of 3", "the update of the state mixes rows")


def test_a_finite_change_by_a_broken_neighbour_shows() -> None:
    failed(judge("FM802", NeighbourReplacesNan), "changed when all other rows were filled with NaN")


class Refusing(Toy):
    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        v = super().velocity_at(x, t, scale)
        if not bool(v.isfinite().all()):
            raise ValueError("the velocity is not finite")
        return v


class Swallowing(Toy):
    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        return super().velocity_at(x, t, scale).nan_to_num()

    def initial_state(self, z: Tensor, height: int, width: int) -> Tensor:
        return super().initial_state(z.nan_to_num(), height, width)


class RowByRow(Toy):
    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        return torch.cat([super(RowByRow, self).velocity_at(row, t, scale) for row in x.split(1)])


@pytest.mark.parametrize(
    ("model", "case", "reason"),
    [
        (Refusing, CASE, "refuses NaN"),
        (Swallowing, CASE, "never reaches the state"),
        (RowByRow, CASE, "has not a row for every one of 3 prompts"),
        (Toy, CASE.with_batch(1), "a single row"),
    ],
)
def test_poison_that_cannot_show_is_not_informative(model: type[Toy], case: Any, reason: str) -> None:
    silent(judge("FM802", model, case=case), reason)


class Crashing(Toy):
    def finish(self, images: Tensor) -> Tensor:
        raise RuntimeError("out of order")


@pytest.mark.parametrize("code", CODES)
def test_a_crash_is_not_informative(code: str) -> None:
    silent(judge(code, Crashing), "out of order")


# FM803: order.


class RowNumber(Toy):
    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        return super().velocity_at(x, t, scale) + 0.01 * torch.arange(len(x))[:, None, None, None]


class SortedAndLeft(Toy):
    """Sorts the rows and forgets to put them back."""

    def initial_state(self, z: Tensor, height: int, width: int) -> Tensor:
        return super().initial_state(z[z.sum(1).argsort()], height, width)


class SortedAndRestored(Toy):
    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        order = x.sum((1, 2, 3)).argsort()
        return super().velocity_at(x[order], t, scale)[order.argsort()]


def test_the_order_of_prompts_shows_in_the_images() -> None:
    failed(judge("FM803", RowNumber), "a row's number or place has an effect", "largest change")
    failed(judge("FM803", SortedAndLeft), "the images stay in their order")
    assert judge("FM803", SortedAndRestored).status == "passed"


class FirstForAll(Toy):
    def finish(self, images: Tensor) -> Tensor:
        return images[:1].expand_as(images).clone()


@pytest.mark.parametrize(
    ("model", "changes", "reason"),
    [
        (Toy, {"case": CASE.with_batch(1)}, "nothing to permute"),
        (Toy, {"spec": SPEC.from_table({**SPEC.as_table(), "initial_state": "noise"})}, "starts at noise"),
        (FirstForAll, {}, "all rows have the same image"),
    ],
)
def test_an_order_that_cannot_show_is_not_informative(model: type[Toy], changes: dict[str, Any], reason: str) -> None:
    silent(judge("FM803", model, **changes), reason)


# FM804 and FM805: padding and masked tokens.


class MeanOverAll(TextEncoder):
    def forward(self, input_ids: Tensor, attention_mask: Tensor, generator: torch.Generator) -> Tensor:
        mean = self.words[input_ids].mean(1)
        return mean + 0.5 * torch.randn(mean.shape, generator=generator)


class SoftMask(TextEncoder):
    """A mask that leaves a millionth of the weight."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor, generator: torch.Generator) -> Tensor:
        weight = attention_mask + 1e-6 * (1 - attention_mask)
        mean = (self.words[input_ids] * weight[..., None]).sum(1) / weight.sum(1, keepdim=True)
        return mean + 0.5 * torch.randn(mean.shape, generator=generator)


def test_padding_without_a_mask_shows() -> None:
    failed(judge("FM804", with_parts(text=MeanOverAll)), "three more padding tokens a row", "row 1 of 3")


def test_padding_that_changes_only_the_last_digits_passes() -> None:
    assert judge("FM804", with_parts(text=RoundingByLength)).status == "passed"


def test_padding_that_never_arrives_is_not_informative() -> None:
    silent(judge("FM804", pad=lambda model, inputs, extra: inputs), "with the same length")


@pytest.mark.parametrize("text", [MeanOverAll, SoftMask])
def test_tokens_under_the_mask_show(text: type[TextEncoder]) -> None:
    failed(
        judge("FM805", with_parts(text=text)), "tokens under its mask were replaced", "first at the output of text[0]"
    )


def full_length(model: Any, prompts: list[str]) -> Mapping[str, Tensor]:
    return {k: v[:, :3] for k, v in toy_subject().tokenize(model, prompts).items()}


def test_without_padding_nothing_is_under_a_mask() -> None:
    silent(judge("FM805", tokenize=full_length), "no token under a mask differs")


@pytest.mark.parametrize(("code", "part"), [("FM804", "pad"), ("FM805", "masked"), ("FM805", "tokenize")])
def test_what_the_subject_does_not_offer_is_skipped(code: str, part: str) -> None:
    outcome = judge(code, **{part: None}) if part != "tokenize" else judge(code, tokenize=None, text=None)
    assert outcome.status == "skipped"
    assert part in outcome.reason


def test_the_toy_really_pads() -> None:
    inputs = toy_subject().tokenize(None, ["a red circle"])
    assert pad(None, inputs, 3)["input_ids"].shape[1] == inputs["input_ids"].shape[1] + 3
    assert torch.equal(F.pad(inputs["input_ids"], (0, 3)), pad(None, inputs, 3)["input_ids"])


# FM806: prompts without effect.


class NoText(Toy):
    """The state starts at something that no prompt reaches, other in every row."""

    def initial_state(self, z: Tensor, height: int, width: int) -> Tensor:
        rows = torch.linspace(-1, 1, len(z))[:, None].expand_as(z)
        return super().initial_state(rows, height, width)


class FirstPrompt(TextEncoder):
    def forward(self, input_ids: Tensor, attention_mask: Tensor, generator: torch.Generator) -> Tensor:
        z = super().forward(input_ids, attention_mask, generator)
        return z[:1].expand_as(z).clone()


def test_a_prompt_without_effect_shows() -> None:
    failed(judge("FM806", with_parts(text=DeafText)), "the same, bit for bit", "answers the same for both prompts")
    failed(judge("FM806", NoText), "the text latent differs, but does not reach the image")
    failed(judge("FM806", with_parts(text=DeafText), text=None, spec=SPEC), "row 0 of 3", "row 2 of 3")


def test_rows_that_share_one_image_show() -> None:
    failed(judge("FM806", with_parts(text=FirstPrompt)), "rows 0 and 1 have different prompts and the same image")


def test_equal_prompts_may_give_equal_images() -> None:
    case = CASE.but(prompts=("a red circle",) * 3)
    outcome = judge("FM806", with_parts(text=FirstPrompt), case=case)
    assert not any("have different prompts" in finding.message for finding in outcome.findings)


def test_a_single_row_has_nothing_to_be_told_apart_from() -> None:
    silent(judge("FM806", case=CASE.with_batch(1)), "a single row")


def test_the_runs_are_shared() -> None:
    session = Session(toy_subject())
    for rule in select_rules(["FM80"]):
        session.judge(rule)
    # base, a neighbour and a poison run a row, permuted, padded, masked, cut short, two of another size, two of nine
    # rows, and two with other times.
    assert session.calls == 1 + 3 + 3 + 4 + 2 + 2 + 2
