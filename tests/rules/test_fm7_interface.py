"""FM701 to FM704 and FM712 on toys with one fault of the interface each."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fmcheck.errors import DeclarationError
from fmcheck.plan import Plan
from fmcheck.run import check
from fmcheck.spec import FlowSpec
from fmcheck.subjects.tiny import subject as tiny
from tests.rules.toy import CASE, SPEC, Toy, judge, toy_subject

UNIT_RANGE = FlowSpec(**{**vars(SPEC), "image_range": (0.0, 1.0)})


def finishing(change: Any) -> type[Toy]:
    """A toy whose pictures are changed at the very end."""

    class Changed(Toy):
        def finish(self, images: Tensor) -> Any:
            return change(images)

    return Changed


# FM701.


class FailsUnguided(Toy):
    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        if scale == 0:
            raise NameError("name 'v_uncond' is not defined")
        return super().velocity_at(x, t, scale)


class FailsInTraining(Toy):
    def train_target(self, x0: Tensor, x1: Tensor) -> Tensor:
        raise RuntimeError("the size of tensor a must match")


class WrongTensorFirst(Toy):
    def log_snr(self, t: Tensor, rows: int) -> Tensor:
        return super().log_snr(t, rows)[:, None]


class WronglyDeclared(Toy):
    def edges(self, num_steps: int) -> Tensor:
        raise DeclarationError("num_steps: the table says otherwise")


def test_a_crash_of_one_branch_is_named_with_its_line() -> None:
    outcome = judge("FM701", FailsUnguided)
    assert [f.run for f in outcome.findings] == ["unguided", "unguided-crowd"]
    finding = outcome.findings[0]
    assert finding.message == ("a valid case must run, but generate raised NameError: name 'v_uncond' is not defined")
    assert finding.where.startswith("run unguided, test_fm7_interface.py:")
    assert finding.where.endswith(" in velocity_at")
    assert finding.severity == "error"
    assert finding.diagnosis is None


def test_a_crash_of_the_loss_is_found() -> None:
    findings = judge("FM701", FailsInTraining).findings
    assert [f.run for f in findings] == ["loss"]
    assert "loss raised RuntimeError" in findings[0].message


def test_a_wrong_tensor_before_the_crash_is_its_cause() -> None:
    finding = judge("FM701", WrongTensorFirst).findings[0]
    assert "velocity[0]" in finding.where
    assert (finding.diagnosis or "").startswith("velocity.time: wrong rank")


def test_a_wrong_declaration_is_not_the_models_fault() -> None:
    with pytest.raises(DeclarationError, match="the table says otherwise"):
        judge("FM701", WronglyDeclared)


# FM702.

SHAPES = [
    (lambda images: torch.cat([images, images]), "both guidance halves are returned"),
    (lambda images: images.movedim(1, -1), "channels last"),
    (lambda images: images.mT, "height and width are exchanged"),
    (lambda images: images[:1], "only the first prompt has a picture"),
    (lambda images: images[0], None),
    (
        lambda images: images.numpy(),
        "no tensor in what was returned; let the subject's generate return a torch tensor [B, channels, H, W]",
    ),
]


@pytest.mark.parametrize(("change", "cause"), SHAPES, ids=["halves", "last", "transposed", "first", "one", "numpy"])
def test_wrong_shapes_are_told_apart(change: Any, cause: str | None) -> None:
    outcome = judge("FM702", finishing(change))
    assert outcome.status == "failed"
    assert cause is None or cause in {f.diagnosis for f in outcome.findings}


def test_the_shape_message_shows_both_shapes() -> None:
    finding = judge("FM702", finishing(lambda images: torch.cat([images, images]))).findings[0]
    assert finding.message == "generate returned f32[6,3,64,64], expected [3, 3, 64, 64]"


def test_a_latent_is_recognised() -> None:
    class Undecoded(Toy):
        def finish(self, images: Tensor) -> Tensor:
            return torch.zeros(len(images), 4, images.shape[2] // 8, images.shape[3] // 8)

    assert {f.diagnosis for f in judge("FM702", Undecoded).findings} == {"a latent, never decoded"}


def test_a_square_transposed_picture_shows_in_the_runs_that_are_not_square() -> None:
    outcome = judge("FM702", finishing(lambda images: images.mT))
    square = {"base", "unguided", "other-scale", "one-step", "more-steps"}
    assert {f.run for f in outcome.findings} == {wish.name for wish in Plan(toy_subject()).plain} - square


# FM703.


def test_grey_levels_are_recognised() -> None:
    finding = judge("FM703", finishing(lambda images: (images + 1) * 127.5)).findings[0]
    assert finding.diagnosis == "grey levels from 0 to 255"
    assert finding.message.endswith("declared range -1 to 1")
    assert finding.ratio is not None
    assert finding.ratio > 1


def test_an_unmapped_range_is_recognised() -> None:
    causes = {f.diagnosis for f in judge("FM703", spec=UNIT_RANGE).findings}
    assert causes == {"pictures in [-1, 1] that were never mapped to [0, 1]"}


def test_an_unclamped_decoder_is_recognised() -> None:
    finding = judge("FM703", finishing(lambda images: images * 1.5)).findings[0]
    assert (finding.diagnosis or "").startswith("the decoder's output is neither clamped nor squashed")


def test_a_rounding_beyond_the_limit_is_allowed_and_reported_as_ratio() -> None:
    def touch(images: Tensor) -> Tensor:
        images[..., 0, 0] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
        return images

    outcome = judge("FM703", finishing(touch))
    assert outcome.status == "passed"
    assert outcome.ratio is not None
    assert 0 < outcome.ratio < 1


def test_a_mapped_range_passes() -> None:
    assert judge("FM703", finishing(lambda images: (images + 1) / 2), spec=UNIT_RANGE).status == "passed"


def test_one_colour_is_a_warning() -> None:
    outcome = judge("FM703", finishing(lambda images: images * 0 + 0.5))
    assert outcome.status == "passed"
    assert {(f.severity, f.message) for f in outcome.findings if f.run == "base"} == {
        ("warning", "3 of 3 pictures are a single colour")
    }


def test_saturation_of_every_picture_is_a_warning() -> None:
    outcome = judge("FM703", finishing(torch.sign))
    assert outcome.status == "passed"
    message = "at least 12288 of 12288 values of every picture are exactly -1 or 1"
    assert (message, "warning") in {(f.message, f.severity) for f in outcome.findings}


def test_saturation_of_one_picture_is_none() -> None:
    def first(images: Tensor) -> Tensor:
        return torch.cat([images[:1].sign(), images[1:]]) if len(images) > 1 else images

    assert not judge("FM703", finishing(first)).findings


def test_nan_pictures_are_left_to_fm109() -> None:
    outcome = judge("FM703", finishing(lambda images: images * torch.nan))
    assert outcome.status == "not informative"
    assert "FM109" in outcome.reason


def test_bytes_are_left_to_fm704() -> None:
    outcome = judge("FM703", finishing(lambda images: images.byte()))
    assert outcome.status == "not informative"
    assert "FM704" in outcome.reason


# FM704.


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float64], ids=str)
def test_other_dtypes_are_refused(dtype: torch.dtype) -> None:
    finding = judge("FM704", finishing(lambda images: images.to(dtype))).findings[0]
    assert finding.message.endswith("expected float32")
    assert (finding.diagnosis is not None) == (dtype == torch.uint8)


def test_the_dtype_of_the_case_is_right_too() -> None:
    half = judge("FM704", finishing(lambda images: images.bfloat16()), dtypes=("float32", "bfloat16"))
    assert {f.run for f in half.findings}.isdisjoint({"bfloat16"})
    assert half.findings
    only = judge(
        "FM704",
        finishing(lambda images: images.bfloat16()),
        dtypes=("bfloat16",),
        case=CASE.but(dtype="bfloat16"),
    )
    assert only.status == "passed"


def test_pictures_with_their_graph_are_a_warning() -> None:
    class KeepsTheGraph(Toy):
        generate = Toy.generate.__wrapped__  # type: ignore[attr-defined]

    outcome = judge("FM704", KeepsTheGraph)
    assert outcome.status == "passed"
    assert {(f.severity, f.message) for f in outcome.findings} == {
        ("warning", "the result requires grad; it is still tied to its graph")
    }
    assert judge("FM703", KeepsTheGraph).status == "passed"


# FM712.


class Rounds(Toy):
    def initial_state(self, z: Tensor, height: int, width: int) -> Tensor:
        return super().initial_state(z, height // 8 * 8, width // 8 * 8)


class ChecksHeightOnly(Toy):
    def initial_state(self, z: Tensor, height: int, width: int) -> Tensor:
        return super().initial_state(z, height, width // 8 * 8)


def test_silent_rounding_is_found_on_both_axes() -> None:
    outcome = judge("FM712", Rounds)
    assert [f.message for f in outcome.findings] == [
        "65x64 (height off by one) is no multiple of 8, but generate returned f32[3,3,64,64]",
        "64x68 (width off by half a cell) is no multiple of 8, but generate returned f32[3,3,64,64]",
    ]
    assert {f.diagnosis for f in outcome.findings} == {"the size is silently rounded down"}


def test_an_axis_that_is_not_validated_is_found() -> None:
    assert ["width" in f.message for f in judge("FM712", ChecksHeightOnly).findings] == [True]


def test_every_size_is_possible_at_a_multiple_of_one() -> None:
    outcome = judge("FM712", spec=FlowSpec(latent_channels=4, downsampling=1))
    assert outcome.status == "not informative"
    assert outcome.reason == "every size is possible at a size multiple of 1"


# All of FM7 on clean subjects.


@pytest.mark.parametrize("subject", [toy_subject(), tiny], ids=["toy", "tiny"])
def test_fm7_is_silent_on_clean_subjects(subject: Any) -> None:
    report = check(subject, select=["FM7"])
    assert {o.rule.code: o.status for o in report.outcomes if o.status != "passed"} == {}
    assert not report.findings
    assert not [note for o in report.outcomes for note in o.notes]
