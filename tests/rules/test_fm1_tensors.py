"""FM1 on toys with one wrong tensor each: the right rule names it, and no other rule of the family does."""

from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from fmcheck import session
from fmcheck.errors import NotInformative
from fmcheck.plan import Run
from fmcheck.rules import get_rule, select_rules
from fmcheck.run import Finding, Session, check
from fmcheck.subject import Point
from fmcheck.subjects.tiny import subject as tiny
from fmcheck.tensors import ANNOTATIONS
from tests.rules.toy import CASE, SPEC, Codec, TextEncoder, Toy, Velocity, judge, toy_subject


def failing(model: type[Toy], **overrides: Any) -> dict[str, list[Finding]]:
    """The findings of FM1 on a toy, by code."""
    made = Session(toy_subject(model, **overrides))
    outcomes = [made.judge(rule) for rule in select_rules(["FM1"])]
    return {o.rule.code: list(o.findings) for o in outcomes if o.findings}


def base_run(model: type[Toy] = Toy) -> Run:
    made = Session(toy_subject(model))
    return made.run(made.plan.base)


# Time.


class TimeColumn(Toy):
    def log_snr(self, t: Tensor, rows: int) -> Tensor:
        return super().log_snr(t, rows)[:, None]


class TimeScalar(Toy):
    def log_snr(self, t: Tensor, rows: int) -> Tensor:
        return 4 - 8 * t


class TimeOfHalf(Toy):
    def log_snr(self, t: Tensor, rows: int) -> Tensor:
        return super().log_snr(t, rows // 2)


class TimeNumber(Toy):
    def log_snr(self, t: Tensor, rows: int) -> Any:
        return float(4 - 8 * t)


class TimeColumnInTraining(Toy):
    def train_log_snr(self, t: Tensor) -> Tensor:
        return super().train_log_snr(t)[:, None]


class TimeDouble(Toy):
    def log_snr(self, t: Tensor, rows: int) -> Tensor:
        return super().log_snr(t, rows).double()


class TimeHalf(Toy):
    def log_snr(self, t: Tensor, rows: int) -> Tensor:
        return super().log_snr(t, rows).bfloat16()


class TimeInteger(Toy):
    def log_snr(self, t: Tensor, rows: int) -> Tensor:
        return super().log_snr(t, rows).long()


class TimeRounded(Toy):
    def log_snr(self, t: Tensor, rows: int) -> Tensor:
        return super().log_snr(t, rows).bfloat16().float()


class FlowTimeRounded(Toy):
    def log_snr(self, t: Tensor, rows: int) -> Tensor:
        return super().log_snr(t.half().float(), rows)


# Null indicator.


class NullOfHalf(Toy):
    def null(self, rows: int, batch: int) -> Tensor:
        return super().null(rows, batch)[:batch]


class NullColumn(Toy):
    def null(self, rows: int, batch: int) -> Tensor:
        return super().null(rows, batch)[:, None]


class NullFloat(Toy):
    def null(self, rows: int, batch: int) -> Tensor:
        return super().null(rows, batch).float()


# State and velocity.


class StateTransposed(Toy):
    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        return super().velocity_at(x.mT, t, scale).mT


class StateTokens(Toy):
    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        return super().velocity_at(x.flatten(2).mT, t, scale).mT.reshape(x.shape)


class WithVelocity(Toy):
    """A toy whose network's output is changed by `wrong`."""

    def __init__(self) -> None:
        super().__init__()
        outer = type(self)

        class Wrong(Velocity):
            def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Any:
                return outer.wrong(super().forward(x, log_snr, null))

        self.velocity = Wrong(torch.Generator().manual_seed(0)).eval()

    @staticmethod
    def wrong(v: Tensor) -> Any:
        raise NotImplementedError


class VelocityOneChannel(WithVelocity):
    @staticmethod
    def wrong(v: Tensor) -> Tensor:
        return v.mean(1, keepdim=True)


class VelocityWithVariance(WithVelocity):
    @staticmethod
    def wrong(v: Tensor) -> Tensor:
        return torch.cat([v, v], dim=1)


class VelocityText(WithVelocity):
    @staticmethod
    def wrong(v: Tensor) -> str:
        return "a velocity"


# Text latent and codec.


class TextFeatures(Toy):
    def __init__(self) -> None:
        super().__init__()

        class Features(TextEncoder):
            def forward(self, input_ids: Tensor, attention_mask: Tensor, generator: torch.Generator) -> Tensor:
                return super().forward(input_ids, attention_mask, generator)[:, None]

        self.text_encoder = Features(torch.Generator().manual_seed(0))


class WithCodec(Toy):
    codec_class: type[Codec]

    def __init__(self) -> None:
        super().__init__()
        self.codec = self.codec_class(torch.Generator().manual_seed(0))


class SampleMoments(WithCodec):
    class codec_class(Codec):
        def sample(self, x: Tensor) -> Tensor:
            return torch.cat([super().sample(x)] * 2, dim=1)

        def decode(self, x: Tensor) -> Tensor:
            return super().decode(x[:, :4])


class DecodeChannelsLast(WithCodec):
    class codec_class(Codec):
        def decode(self, x: Tensor) -> Tensor:
            return super().decode(x).movedim(1, -1)

    def finish(self, images: Tensor) -> Tensor:
        return images.movedim(-1, 1)


class DecodeTooLarge(WithCodec):
    class codec_class(Codec):
        def decode(self, x: Tensor) -> Tensor:
            return super().decode(x).repeat_interleave(2, dim=-1)

    def finish(self, images: Tensor) -> Tensor:
        return images[..., ::2]


class BothHalves(Toy):
    def finish(self, images: Tensor) -> Tensor:
        return torch.cat([images, images])


DEFECTS = [
    (TimeColumn, "FM101", "axes were added for broadcasting"),
    (TimeScalar, "FM101", "one number for the whole batch"),
    (TimeOfHalf, "FM101", "made for the B prompts"),
    (TimeNumber, "FM101", "a Python number"),
    (TimeColumnInTraining, "FM101", "axes were added for broadcasting"),
    (TimeDouble, "FM102", "without a cast"),
    (TimeHalf, "FM102", "cast to the dtype of the weights"),
    (TimeInteger, "FM102", "lose the fraction"),
    (TimeRounded, "FM102", "rounded to that dtype"),
    (FlowTimeRounded, "FM102", "rounded to that dtype"),
    (NullOfHalf, "FM103", "made for the B prompts"),
    (NullColumn, "FM103", "axes were added for broadcasting"),
    (NullFloat, "FM103", "numbers instead of flags"),
    (StateTransposed, "FM104", "height and width are exchanged"),
    (VelocityOneChannel, "FM105", "the update would broadcast"),
    (VelocityWithVariance, "FM105", "a learned variance"),
    (VelocityText, "FM105", "Point.output"),
    (TextFeatures, "FM106", None),
    (SampleMoments, "FM106", "mean and log-variance"),
    (DecodeChannelsLast, "FM107", "channels last"),
    (DecodeTooLarge, "FM107", None),
    (BothHalves, "FM107", "both guidance halves"),
]


@pytest.mark.parametrize(("model", "code", "cause"), DEFECTS, ids=lambda value: getattr(value, "__name__", None))
def test_one_rule_names_the_tensor_and_the_cause(model: type[Toy], code: str, cause: str | None) -> None:
    found = failing(model)
    if model is StateTransposed:
        # The network's output follows its input.
        found.pop("FM105")
    if model is SampleMoments:
        assert {f.message.split(":")[0] for f in found["FM106"]} == {"sample.output", "decode.x"}
    assert set(found) == {code}
    assert all(f.severity == "error" for f in found[code])
    if cause is not None:
        assert any(cause in (f.diagnosis or "") for f in found[code]), [f.diagnosis for f in found[code]]


def test_tokens_are_named_where_an_image_is_declared() -> None:
    """The toy network raises on them, and the input is judged all the same."""
    findings = judge("FM104", StateTokens).findings
    assert findings
    assert "tokens instead of an image" in (findings[0].diagnosis or "")


def test_the_message_gives_call_expectation_and_finding() -> None:
    finding = judge("FM101", TimeColumn).findings[0]
    assert finding.message == "velocity.time: wrong rank: expected Float32[N=6], found f32[6,1] (bound so far: N=6)"
    assert finding.where == "run base, velocity[0]"


def test_a_column_in_training_is_found_in_the_loss_alone() -> None:
    findings = judge("FM101", TimeColumnInTraining).findings
    assert {f.run for f in findings} == {"loss"}
    assert "expected Float32[N=16], found f32[16,1]" in findings[0].message


def test_a_declared_annotation_replaces_the_house_rule() -> None:
    class Columns(TimeColumn, TimeColumnInTraining):
        pass

    assert judge("FM101", Columns, annotations={"velocity.time": Float[Tensor, "N 1"]}).status == "passed"
    assert ANNOTATIONS["velocity.time"] is not None, "the vocabulary itself is as it was"


# FM102: rounding.


def test_rounding_names_the_coarsest_dtype() -> None:
    messages = [f.message for f in judge("FM102", TimeRounded).findings]
    assert messages[0] == "all 4 float32 times are numbers of bfloat16 (argument), and those of the grid are not"
    assert any("of float16 (flow time)" in f.message for f in judge("FM102", FlowTimeRounded).findings)


def test_one_step_says_nothing_about_rounding() -> None:
    """Its only time is 1/2, which every dtype has: dtype checks remain, the rounding check does not count."""
    outcome = judge("FM102", TimeRounded)
    assert outcome.status == "failed"
    assert "one-step" not in {f.run for f in outcome.findings}


class UniformGrid(Toy):
    def edges(self, num_steps: int) -> Tensor:
        return torch.linspace(0, 1, num_steps + 1)


def test_another_grid_is_not_called_rounded() -> None:
    """A uniform grid of 4 steps has bfloat16 times; that it is not the declared grid is FM303's business."""
    assert judge("FM102", UniformGrid).status == "passed"


def test_a_declared_uniform_grid_is_not_called_rounded() -> None:
    outcome = judge("FM102", UniformGrid, spec=SPEC.__class__(**{**vars(SPEC), "grid": "uniform"}))
    assert outcome.status == "passed"


# FM108.


def test_a_tensor_elsewhere_is_named() -> None:
    run = base_run()
    run.trace.of("velocity")[1].devices["velocity.time"] = "meta"
    wrong = [c for c in get_rule("FM108").function(run) if not c.holds]
    assert [(c.message, c.where) for c in wrong] == [("velocity.time is on meta, expected cpu", "velocity[1]")]


def test_images_of_the_entry_may_be_anywhere() -> None:
    run = base_run()
    run.trace.of("generate")[0].devices["generate.output"] = "meta"
    assert all(c.holds for c in get_rule("FM108").function(run))


# FM109.


class NaNFromTheThirdCall(Toy):
    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        return super().velocity_at(torch.where(t > 0.5, x / 0 * 0, x), t, scale)


class NaNDecoder(WithCodec):
    class codec_class(Codec):
        def decode(self, x: Tensor) -> Tensor:
            images = super().decode(x)
            images[1] = torch.nan
            return images


class InfiniteTime(Toy):
    def log_snr(self, t: Tensor, rows: int) -> Tensor:
        return super().log_snr(t, rows) / (t > 0.2)


class HiddenByClamp(NaNDecoder):
    def finish(self, images: Tensor) -> Tensor:
        return images.nan_to_num()


def test_only_the_origin_of_nan_is_reported() -> None:
    findings = [f for f in judge("FM109", NaNFromTheThirdCall).findings if f.run == "base"]
    assert [f.message for f in findings] == [
        "velocity[2].x holds 1536 values of 1536 that are NaN or infinite; every tensor before it is finite"
    ]
    assert findings[0].where == "run base, all 6 rows"
    assert findings[0].diagnosis == "made on the way to velocity"


def test_nan_made_in_the_decoder_names_the_row() -> None:
    finding = next(f for f in judge("FM109", NaNDecoder).findings if f.run == "base")
    assert finding.message.startswith("decode[0].output holds 12288 values of 36864")
    assert finding.where == "run base, rows 1 of 3"
    assert finding.diagnosis == "made inside decode"


def test_an_infinite_time_argument_is_named() -> None:
    finding = judge("FM109", InfiniteTime).findings[0]
    assert finding.message.startswith("velocity[0].time")
    assert finding.diagnosis == "the end of the path was mapped to an infinite time argument"


def test_nan_that_is_tidied_away_is_still_found() -> None:
    assert judge("FM109", HiddenByClamp).status == "failed"


def test_minus_infinity_in_an_attention_mask_is_right() -> None:
    run = base_run()
    mask = torch.zeros(3, 12)
    mask[:, 6:] = -torch.inf
    run.trace.of("text")[0].inputs["attention_mask"] = mask
    assert all(c.holds for c in get_rule("FM109").function(run))
    mask[0, 0] = torch.nan
    assert not all(c.holds for c in get_rule("FM109").function(run))


# FM110.


class DoubleStep(Toy):
    def integrate(self, x: Tensor, num_steps: int, scale: float, generator: torch.Generator) -> Tensor:
        edges = self.edges(num_steps)
        for k, dt in enumerate(edges.diff().double()):
            x = x + dt.reshape(1, 1, 1, 1) * self.velocity_at(x, (edges[k] + edges[k + 1]) / 2, scale)
        return x


class DoubleDecoder(WithCodec):
    class codec_class(Codec):
        def decode(self, x: Tensor) -> Tensor:
            return super().decode(x).double()


def test_only_the_origin_of_float64_is_reported() -> None:
    findings = [f for f in judge("FM110", DoubleStep).findings if f.run == "base"]
    assert [f.message for f in findings] == ["velocity[1].x is f64[6,4,8,8], and the case asks for float32"]
    assert findings[0].diagnosis == "a float64 step size or grid promoted the state"


def test_float64_from_the_decoder_is_its_own() -> None:
    assert {f.diagnosis for f in judge("FM110", DoubleDecoder).findings} == {"made inside decode"}


def test_a_float64_case_may_have_float64() -> None:
    outcome = judge("FM110", DoubleDecoder, case=CASE.but(dtype="float64"), dtypes=("float64",))
    assert outcome.status == "not informative"
    assert outcome.reason == "the case asks for float64"


# Clean subjects, and what cannot be judged.


def test_fm1_is_silent_on_the_clean_toy() -> None:
    report = check(toy_subject(), select=["FM1"])
    assert {o.status for o in report.outcomes} == {"passed"}
    assert not report.findings


def test_fm1_is_silent_on_the_tiny_model() -> None:
    report = check(tiny, select=["FM1"])
    assert {o.status for o in report.outcomes} == {"passed"}
    assert not report.findings


def test_without_an_indicator_the_rule_is_skipped() -> None:
    point = Point("velocity", arguments={"null": None})
    outcome = judge("FM103", velocity=point)
    assert outcome.status == "skipped"
    assert outcome.reason == "the subject declares no 'velocity.null'"


def test_without_other_points_there_is_no_latent_to_judge() -> None:
    nothing = dict.fromkeys(("text", "encode", "sample", "decode"))
    outcome = judge("FM106", **nothing)
    assert outcome.status == "not informative"
    assert outcome.reason.startswith("nothing passed as text.output or encode.output")


def test_with_checks_switched_off_the_family_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "checks_enabled", lambda: False)
    assert judge("FM101", TimeColumn).status == "skipped"


def test_a_run_without_velocity_calls_is_not_informative() -> None:
    run = base_run()
    run.trace.calls.clear()
    for code in ("FM101", "FM103", "FM104"):
        with pytest.raises(NotInformative, match="nothing passed as velocity"):
            list(get_rule(code).function(run))


def test_integers_are_no_state() -> None:
    class IntegerState(Toy):
        def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
            return super().velocity_at(x.long(), t, scale)

    findings = judge("FM104", IntegerState).findings
    assert "wrong dtype" in findings[0].message
    assert findings[0].diagnosis == "integers where a floating tensor was declared"
