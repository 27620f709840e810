"""FM9 on toys whose training departs from inference: the rule sees it and names the mistake; other conventions pass."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor

from fmcheck.record.training import TrainingReading
from fmcheck.rules import select_rules
from fmcheck.rules.fm9_explain import distance_to_law, explain_times
from fmcheck.run import Outcome, Session
from fmcheck.spec import FlowSpec
from fmcheck.subjects.tiny import subject as tiny
from fmcheck.tolerance import SHARE, binomial_range, exchange_shows, ks_critical
from tests.rules.toy import SPEC, Toy, Velocity, judge, toy_subject

CODES = ["FM901", "FM902", "FM903", "FM904", "FM905", "FM906", "FM907"]
KEEP = 1 - SPEC.sigma_min


class Trainee(Toy):
    """The toy's training loss in still smaller pieces."""

    def source(self, z: Tensor, images: Tensor) -> Tensor:
        return self.initial_state(z, *images.shape[2:])

    def end(self, images: Tensor) -> Tensor:
        return self.codec.encode(images)

    def prepared(self, images: Tensor) -> Tensor:
        return images

    def argument(self, t: Tensor) -> Tensor:
        return 4 - 8 * t

    def told_null(self, null: Tensor) -> Tensor | None:
        return null

    def predicted(self, x: Tensor, argument: Tensor, null: Tensor | None) -> Tensor:
        return self.velocity(x, argument, null)

    def penalty(self, v: Tensor, target: Tensor) -> Tensor:
        return F.mse_loss(v, target)

    def training_loss(
        self, images: Tensor, input_ids: Tensor, attention_mask: Tensor, generator: torch.Generator
    ) -> Any:
        images = self.prepared(images)
        x0 = self.source(self.text_encoder(input_ids, attention_mask, generator), images)
        with torch.no_grad():
            x1 = self.end(images)
        t = self.train_times(len(x0), generator)
        null, x1 = self.train_null(x1, generator)
        v = self.predicted(self.train_path(x0, x1, t), self.argument(t), self.told_null(null))
        return self.penalty(v, self.train_target(x0, x1))


def trainee(**methods: Any) -> type[Trainee]:
    """A trainee with methods replaced."""
    return type("Changed", (Trainee,), methods)


def with_velocity(velocity: type[Velocity], **methods: Any) -> type[Trainee]:
    """A trainee with another network."""

    class Other(trainee(**methods)):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.velocity = velocity(torch.Generator().manual_seed(0))
            self.eval()

    return Other


def spec(**changes: Any) -> FlowSpec:
    return replace(SPEC, **changes)


def failed(outcome: Outcome, *parts: str) -> None:
    """The rule failed, and each part is in one of its findings."""
    assert outcome.status == "failed", f"{outcome.status}: {outcome.reason}"
    told = " | ".join(map(str, outcome.findings))
    for part in parts:
        assert part in told


def silent(outcome: Outcome, reason: str) -> None:
    assert outcome.status == "not informative", outcome.findings
    assert reason in outcome.reason


def passed(*codes: str, model: type[Toy] = Trainee, **changes: Any) -> None:
    session = Session(toy_subject(model, **changes))
    for rule in select_rules(codes or CODES):
        outcome = session.judge(rule)
        assert (outcome.status, outcome.findings) == ("passed", ()), f"{rule}: {outcome.reason} {outcome.findings}"


@pytest.mark.parametrize("model", [Toy, Trainee])
def test_the_clean_toys_pass(model: type[Toy]) -> None:
    passed(model=model)


def test_the_tiny_model_passes_all_of_them() -> None:
    session = Session(tiny)
    for rule in select_rules(["FM9"]):
        outcome = session.judge(rule)
        assert (outcome.status, outcome.findings) == ("passed", ()), f"{rule}: {outcome.reason}"
        assert outcome.checks > 0
    assert session.calls == 2, "FM908 reads the mask of one sampling run, FM909 makes one; a loss costs no picture"


# Conventions that are not mistakes.


def t_first(self: Toy, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    return x0 + t[:, None, None, None] * (x1 - KEEP * x0)


def unscaled(images_to_latent: Any) -> Any:
    """The encoder's output in the decoder's units, brought to the flow's outside of it."""

    class Raw(Trainee):
        def __init__(self) -> None:
            super().__init__()
            encode = self.codec.encode
            self.codec.encode = lambda images: encode(images) / SPEC.latent_scale + SPEC.latent_shift

        def end(self, images: Tensor) -> Tensor:
            return images_to_latent(self.codec.encode(images))

    return Raw


def in_parts(self: Trainee, x: Tensor, argument: Tensor, null: Tensor) -> Tensor:
    halves = zip(x.chunk(2), argument.chunk(2), null.chunk(2), strict=True)
    return torch.cat([self.velocity(*half) for half in halves])


class ByName:
    """Loss terms as trainers return them."""

    def __init__(self, loss: Tensor) -> None:
        self.loss, self.log = loss, "fine"


SAME_MEANING = [
    ("another form of the path", trainee(train_path=t_first), {}),
    ("scale outside of the encoder", unscaled(lambda z: (z - SPEC.latent_shift) * SPEC.latent_scale), {}),
    ("network called on parts", trainee(predicted=in_parts), {}),
    ("absolute error", trainee(penalty=lambda _, v, target: F.l1_loss(v, target)), {}),
    ("Huber, summed", trainee(penalty=lambda _, v, target: F.huber_loss(v, target, reduction="sum")), {}),
    ("a loss a row", trainee(penalty=lambda _, v, target: (v - target).square().mean((1, 2, 3))), {}),
    ("a record of terms", trainee(penalty=lambda _, v, target: ByName(F.mse_loss(v, target))), {}),
    ("sigma", trainee(argument=lambda _, t: 1 - t), {"spec": spec(time_argument="sigma")}),
    ("timestep", trainee(argument=lambda _, t: 1000 * (1 - t)), {"spec": spec(time_argument="timestep")}),
    (
        "reverse velocity",
        trainee(train_target=lambda _, x0, x1: KEEP * x0 - x1),
        {"spec": spec(prediction="reverse_velocity")},
    ),
    ("x1", trainee(train_target=lambda _, x0, x1: x1), {"spec": spec(prediction="x1")}),
    ("x0", trainee(train_target=lambda _, x0, x1: x0), {"spec": spec(prediction="x0")}),
    ("True is conditional", trainee(told_null=lambda _, null: ~null), {"spec": spec(null_means_unconditional=False)}),
    (
        "uniform",
        trainee(train_times=lambda _, n, g: torch.rand(n, generator=g)),
        {"spec": spec(time_distribution="uniform")},
    ),
]


@pytest.mark.parametrize(("model", "changes"), [row[1:] for row in SAME_MEANING], ids=[row[0] for row in SAME_MEANING])
def test_other_conventions_pass(model: type[Toy], changes: dict[str, Any]) -> None:
    passed(model=model, **changes)


def test_a_state_in_low_precision_passes() -> None:
    class Coarse(Trainee):
        def train_path(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
            return super().train_path(x0, x1, t).bfloat16()

        def predicted(self, x: Tensor, argument: Tensor, null: Tensor | None) -> Tensor:
            return self.velocity(x, argument, null).float()

    passed("FM901", "FM903", "FM904", model=Coarse)


# FM901: the time that the network is told.

WRONG_ARGUMENTS = [
    (lambda _, t: 4 - 8 * (1 - t), "time is reversed"),
    (lambda _, t: t, "the network is told t, expected 4 - 8 t"),
    (lambda _, t: 1000 * (1 - t), "the network is told 1000 (1 - t)"),
    (lambda _, t: 4 - 8 * t.sqrt(), "the argument of sqrt(t)"),
    (lambda _, t: 4 - 7 * t, "the network is told 4 + -7 t"),
    (lambda _, t: torch.zeros_like(t), "every row is told the same time"),
    (lambda _, t: 4 - 8 * t.flip(0), "the rows are told each other's times"),
    (lambda _, t: 4 - 8 * (t * 1000).floor() / 1000, "rows disagree"),
    (lambda _, t: (4 - 8 * t).bfloat16().float(), "rows disagree"),
]


@pytest.mark.parametrize(("argument", "cause"), WRONG_ARGUMENTS)
def test_a_wrong_time_is_named(argument: Any, cause: str) -> None:
    model = trainee(argument=argument)
    failed(judge("FM901", model), cause, "the network is told t = ")
    passed("FM903", "FM904", model=model)


def test_swapped_ends_look_like_reversed_time() -> None:
    model = trainee(train_path=lambda _, x0, x1, t: t[:, None, None, None] * x0 + (1 - t[:, None, None, None]) * x1)
    failed(judge("FM901", model, spec=spec(sigma_min=0.0)), "time is reversed")


# FM903: the path.


def swapped(_: Toy, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    t = t[:, None, None, None]
    return (1 - KEEP * t) * x1 + t * x0


def no_sigma(_: Toy, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    t = t[:, None, None, None]
    return (1 - t) * x0 + t * x1


def cosine(_: Toy, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    angle = math.pi / 2 * t[:, None, None, None]
    return angle.cos() * x0 + angle.sin() * x1


def noisy(self: Toy, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
    return Toy.train_path(self, x0, x1, t) + 0.1 * torch.randn(x0.shape, generator=torch.Generator().manual_seed(1))


def all_exchanged(self: Toy, x1: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    null, _ = Toy.train_null(self, x1, generator)
    return null, x1.roll(1, 0)


def channels_last(self: Trainee, z: Tensor, images: Tensor) -> Tensor:
    x = self.initial_state(z, *images.shape[2:])
    return z.reshape(len(z), *x.shape[2:], x.shape[1]).movedim(-1, 1) if x[0].numel() == z[0].numel() else x


def turned(self: Trainee, z: Tensor, images: Tensor) -> Tensor:
    return self.initial_state(z, *images.shape[2:]).transpose(2, 3)


def other_encoder(self: Trainee, images: Tensor) -> Tensor:
    self.codec.encode(images)
    size = images.shape[-1] // 8
    return torch.randn(len(images), 4, size, size, generator=torch.Generator().manual_seed(2))


WRONG_PATHS = [
    ({"train_path": swapped}, "x0 and x1 are swapped"),
    ({"train_path": no_sigma}, "sigma_min is missing"),
    ({"train_path": cosine}, "variance preserving"),
    ({"train_path": noisy}, "something is added to the path: 0.1"),
    ({"train_null": all_exchanged}, "x1 belongs to another row: row 1 lies on the path to the image of row 0"),
    ({"source": channels_last}, "reshaped as (h, w, C)"),
    ({"source": turned}, "height and width of the text latent are exchanged"),
    ({"end": other_encoder}, "x1 of the path is not the output of the encode point"),
]


@pytest.mark.parametrize(("methods", "cause"), WRONG_PATHS)
def test_a_wrong_path_is_named(methods: dict[str, Any], cause: str) -> None:
    failed(judge("FM903", trainee(**methods)), cause, "conditional rows are not on the path")


@pytest.mark.parametrize(
    ("to_flow", "units"),
    [
        (lambda z: z * SPEC.latent_scale, "x1 * scale, without the shift"),
        (lambda z: z - SPEC.latent_shift, "x1 - shift, without the scale"),
        (lambda z: z / SPEC.latent_scale, "x1 / scale"),
    ],
)
def test_half_of_the_latent_units_is_off_the_path(to_flow: Any, units: str) -> None:
    for code in ("FM903", "FM906"):
        failed(judge(code, unscaled(to_flow)), f"in other units: {units}")


def test_the_decoders_units_are_off_the_path() -> None:
    model = trainee(end=lambda self, images: self.codec.sample(self.codec.encode(images)))
    for code in ("FM903", "FM906"):
        failed(judge(code, model), "x1 / scale + shift")


class Packed(Trainee):
    """An encoder that returns tokens `[B, h w, C]`, which the loss puts back into place."""

    def __init__(self) -> None:
        super().__init__()
        encode = self.codec.encode
        self.codec.encode = lambda images: encode(images).flatten(2).transpose(1, 2).contiguous()

    def end(self, images: Tensor) -> Tensor:
        side = images.shape[-1] // 8
        return self.codec.encode(images).transpose(1, 2).unflatten(2, (-1, side))


@pytest.mark.parametrize("code", ["FM903", "FM904", "FM909"])
def test_a_data_end_whose_numbers_stand_in_another_order_is_not_judged(code: str) -> None:
    silent(judge(code, Packed), "no output of the encode point has the shape of the state")


def test_units_of_the_encoder_are_named() -> None:
    outcome = judge("FM903", unscaled(lambda z: (z - SPEC.latent_shift) * SPEC.latent_scale + 0.01))
    failed(outcome, "(output of encode - 0.25) * 0.5")


def test_sigma_min_of_the_tiny_model_is_resolved() -> None:
    changed = tiny.but(spec=replace(tiny.spec, sigma_min=0.0))
    outcome = Session(changed).judge(select_rules(["FM903"])[0])
    failed(outcome, "not on the path")


# FM904: the target.

WRONG_TARGETS = [
    (lambda _, x0, x1: KEEP * x0 - x1, "the target has the opposite sign"),
    (lambda _, x0, x1: x1, "the data end x1"),
    (lambda _, x0, x1: x0, "the source end x0"),
    (lambda _, x0, x1: x1 - x0, "x1 - x0, without sigma_min"),
    (lambda _, x0, x1: 1.3 * (x1 - KEEP * x0), "away from the declared target"),
]


@pytest.mark.parametrize(("target", "cause"), WRONG_TARGETS)
def test_a_wrong_target_is_named(target: Any, cause: str) -> None:
    model = trainee(train_target=target)
    failed(judge("FM904", model), cause, "outputs away")
    passed("FM901", "FM903", model=model)


def test_a_velocity_where_the_data_end_is_declared_is_named() -> None:
    failed(judge("FM904", Trainee, spec=spec(prediction="x1")), "towards the velocity x1 - (1 - s_min) x0")


@pytest.mark.parametrize(
    ("methods", "reason"),
    [
        ({"penalty": lambda _, v, target: F.mse_loss(v, target).item()}, "no gradient"),
        ({"penalty": lambda _, v, target: F.mse_loss(v.detach(), target).requires_grad_()}, "does not depend on"),
        ({"penalty": lambda _, v, target: 0 * F.mse_loss(v, target)}, "zero everywhere"),
        ({"train_path": noisy}, "see FM903"),
        ({"penalty": lambda self, v, target: own_backward(self, v, target)}, "cannot be taken"),
    ],
)
def test_without_a_gradient_the_target_is_not_judged(methods: dict[str, Any], reason: str) -> None:
    silent(judge("FM904", trainee(**methods)), reason)


def own_backward(model: Toy, v: Tensor, target: Tensor) -> Tensor:
    loss = F.mse_loss(v.exp(), target)
    loss.backward()
    model.zero_grad()
    return loss


# Flows from noise: the source end is not observed.


class FromNoise(Trainee):
    def source(self, z: Tensor, images: Tensor) -> Tensor:
        x = self.initial_state(z, *images.shape[2:])
        return torch.randn(x.shape, generator=torch.Generator().manual_seed(3))

    def train_null(self, x1: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return super().train_null(x1, generator)[0], x1


NOISE = spec(initial_state="noise")


def test_from_noise_only_the_path_is_unknown() -> None:
    silent(judge("FM903", FromNoise, spec=NOISE), "starts at noise")
    passed("FM901", "FM902", "FM904", "FM905", "FM906", "FM907", model=FromNoise, spec=NOISE)


@pytest.mark.parametrize(("argument", "cause"), [row for row in WRONG_ARGUMENTS if "each other" not in row[1]])
def test_from_noise_a_wrong_time_shows(argument: Any, cause: str) -> None:
    model = type("Changed", (FromNoise,), {"argument": lambda self, t: argument(self, t)})
    failed(judge("FM901", model, spec=NOISE), cause)


def test_from_noise_another_path_shows_in_its_times() -> None:
    model = type("Changed", (FromNoise,), {"train_path": lambda self, x0, x1, t: cosine(self, x0, x1, t)})
    failed(judge("FM901", model, spec=NOISE), "rows disagree")


def test_a_loss_that_does_not_repeat_is_not_informative() -> None:
    calls = itertools.count()

    class Drifting(FromNoise):
        def argument(self, t: Tensor) -> Tensor:
            return super().argument(t) + next(calls)

    silent(judge("FM901", Drifting, spec=NOISE), "have different times")


def test_states_that_ignore_the_image_are_not_informative() -> None:
    model = type("Changed", (FromNoise,), {"train_path": lambda self, x0, x1, t: x0})
    silent(judge("FM901", model, spec=NOISE), "do not depend on what the encode point returns")


@pytest.mark.parametrize(("target", "cause"), WRONG_TARGETS[:3])
def test_from_noise_a_wrong_target_shows(target: Any, cause: str) -> None:
    model = type("Changed", (FromNoise,), {"train_target": target})
    failed(judge("FM904", model, spec=NOISE), cause, "solved from the state")


def test_sizes_that_need_a_projection_hide_the_path_only() -> None:
    case = toy_subject().case.but(height=32, width=32)
    silent(judge("FM903", case=case), "goes through a layer that no observation point shows")
    passed("FM901", "FM904", case=case)


def encoded_twice(self: Trainee, x: Tensor, argument: Tensor, null: Tensor) -> Tensor:
    return self.velocity(x, argument, null) + self.velocity(x, argument, null)


@pytest.mark.parametrize(
    ("methods", "reason"),
    [
        ({"predicted": encoded_twice}, "on [16, 16] rows for 16 training pairs"),
        ({"predicted": lambda *_: torch.ones(1, requires_grad=True)}, "never called the velocity network"),
    ],
)
@pytest.mark.parametrize("code", ["FM901", "FM902", "FM903", "FM904", "FM905"])
def test_calls_that_cannot_be_read_are_not_informative(code: str, methods: dict[str, Any], reason: str) -> None:
    outcome = judge(code, trainee(**methods, penalty=lambda _, v, target: v.sum()))
    silent(outcome, reason.replace("16", "1024") if code in ("FM902", "FM905") else reason)


# FM902: the law of the times.

WRONG_LAWS = [
    (lambda _, n, g: torch.rand(n, generator=g), "the times are uniform"),
    (lambda _, n, g: torch.sigmoid(0.5 + torch.randn(n, generator=g)), "logit-normal with mean 0.5"),
    (lambda _, n, g: torch.sigmoid(0.5 * torch.randn(n, generator=g)), "and std 0.5"),
    (lambda _, n, g: torch.randint(0, 10, (n,), generator=g) / 10 + 0.05, "drawn from 10 values only"),
    (lambda _, n, g: torch.sigmoid(torch.randn(n, generator=g)).clamp(0.35, 0.65), "times are clamped"),
    (lambda _, n, g: 2 * torch.rand(n, generator=g) - 0.5, "lie outside [0, 1]"),
]


@pytest.mark.parametrize(("times", "cause"), WRONG_LAWS)
def test_a_wrong_law_is_named(times: Any, cause: str) -> None:
    failed(judge("FM902", trainee(train_times=times)), cause, "Kolmogorov-Smirnov")


def test_logit_normal_where_uniform_is_declared_is_named() -> None:
    outcome = judge("FM902", Trainee, spec=spec(time_distribution="uniform"))
    failed(outcome, "are not uniform", "the times are logit-normal with mean")


def test_one_time_for_the_batch_is_a_warning() -> None:
    model = trainee(train_times=lambda _, n, g: torch.sigmoid(torch.randn(1, generator=g)).expand(n))
    outcome = judge("FM902", model)
    assert [finding.severity for finding in outcome.findings] == ["warning"]
    assert "share one time" in outcome.findings[0].message


def test_times_shared_by_groups_count_once() -> None:
    def shared(group: int) -> type[Trainee]:
        def times(_: Toy, n: int, g: torch.Generator) -> Tensor:
            return torch.sigmoid(torch.randn(max(1, n // group), generator=g)).repeat_interleave(group)[:n]

        return trainee(train_times=times)

    outcome = judge("FM902", shared(2))
    assert (outcome.status, outcome.checks) == ("passed", 1), "512 times are too few, only that they differ is judged"


def test_few_times_of_another_law_are_named_all_the_same() -> None:
    def narrow(_: Toy, n: int, g: torch.Generator) -> Tensor:
        return torch.sigmoid(0.5 + 0.5 * torch.randn(n // 2, generator=g)).repeat_interleave(2)[:n]

    failed(judge("FM902", trainee(train_times=narrow)), "the times of 512 training rows are not logit-normal")


def test_many_steps_of_an_integer_schedule_pass() -> None:
    class Steps(Velocity):
        def forward(self, x: Tensor, timestep: Tensor, null: Tensor) -> Tensor:
            return super().forward(x, 4 - 8 * (1 - timestep / 1000), null)

    model = with_velocity(Steps, argument=lambda _, t: (1000 * (1 - t)).round().long())
    passed("FM901", "FM902", "FM903", "FM904", model=model, spec=spec(time_argument="timestep"))


# FM905: null rows.


def with_probability(p: float) -> Any:
    def train_null(self: Toy, x1: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return torch.rand(len(x1), generator=generator) < p, x1

    return train_null


WRONG_NULLS = [
    ({"told_null": lambda _, null: ~null}, "the indicator is inverted: it marks the conditional rows"),
    (
        {"told_null": lambda _, null: torch.zeros_like(null)},
        "no row is ever unconditional; the network is in eval mode",
    ),
    ({"told_null": lambda _, null: torch.ones_like(null)}, "1024 of 1024 training rows"),
    ({"train_null": with_probability(0.2)}, "for a probability of 0.1"),
    ({"train_null": with_probability(0.03)}, "for a probability of 0.1"),
]


@pytest.mark.parametrize(("methods", "cause"), WRONG_NULLS)
def test_a_wrong_share_of_null_rows_is_named(methods: dict[str, Any], cause: str) -> None:
    failed(judge("FM905", trainee(**methods)), cause, "expected 55 to 157")


def test_an_indicator_that_is_not_passed_shows() -> None:
    class Deaf(Velocity):
        def forward(self, x: Tensor, log_snr: Tensor, null: Tensor | None = None) -> Tensor:
            return super().forward(x, log_snr, torch.zeros(len(x), dtype=torch.bool))

    model = with_velocity(Deaf, predicted=lambda self, x, argument, null: self.velocity(x, argument))
    failed(judge("FM905", model), "no null indicator is passed in training")


def exchanged_in(rows_of: Any) -> Any:
    """Exchanges images among other rows than the marked ones; the share of marked rows is right."""

    def train_null(self: Toy, x1: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        null = torch.rand(len(x1), generator=generator) < SPEC.null_probability
        rows = rows_of(null).nonzero().flatten()
        ends = x1.clone()
        ends[rows] = x1[rows.roll(1)]
        return null, ends

    return train_null


@pytest.mark.parametrize("rows_of", [lambda null: null.roll(1), lambda null: ~null & (torch.arange(len(null)) < 100)])
def test_images_exchanged_in_rows_that_are_not_marked_show(rows_of: Any) -> None:
    outcome = judge("FM905", trainee(train_null=exchanged_in(rows_of)))
    failed(outcome, "towards another row's image without being marked", "not the one by which images are exchanged")


def test_images_exchanged_in_the_marked_rows_pass() -> None:
    passed("FM905", model=trainee(train_null=exchanged_in(lambda null: null)))


def test_marked_rows_that_keep_their_images_are_a_warning() -> None:
    model = trainee(train_null=with_probability(0.1))
    outcome = judge("FM905", model)
    assert [finding.severity for finding in outcome.findings] == ["warning"]
    assert "the unconditional velocity learns the conditional one" in str(outcome.findings[0])


def test_images_exchanged_in_all_rows_are_left_to_the_path() -> None:
    model = trainee(train_null=all_exchanged)
    assert judge("FM905", model).status == "passed"
    assert judge("FM903", model).status == "failed"


def test_without_an_encode_point_only_the_share_is_judged() -> None:
    outcome = judge("FM905", encode=None)
    # Whether an indicator is passed; the share of marked rows, their times, their gradient, and that they are no block.
    assert (outcome.status, outcome.checks) == ("passed", 5)


def test_few_rows_may_all_stay_in_place_by_chance() -> None:
    for rows in range(1, 30):
        assert exchange_shows(rows) == (1 / math.factorial(rows) < SHARE)


def test_a_probability_of_zero_is_exact() -> None:
    none = trainee(train_null=with_probability(0.0))
    one = trainee(train_null=lambda _, x1, g: (torch.arange(len(x1)) == 0, x1))
    assert judge("FM905", none, spec=spec(null_probability=0.0)).status == "passed"
    failed(judge("FM905", one, spec=spec(null_probability=0.0)), "expected 0 to 0")


# FM906: the autoencoder.


def not_encoded(self: Trainee, images: Tensor) -> Tensor:
    return type(self.codec).__mro__[0].encode(_Other(self.codec), images)


class _Other:
    """Another object of the same weights, which no observation point sees."""

    def __init__(self, codec: Any) -> None:
        self.mix = codec.mix


WRONG_CODECS = [
    ({"end": not_encoded}, "never calls the encode point 'codec.encode'"),
    ({"end": other_encoder}, "the path ends at another latent than the encoded image"),
    ({"prepared": lambda _, images: images.flip(-1)}, "mirrored left to right"),
    ({"prepared": lambda _, images: images.transpose(-1, -2)}, "transposed"),
    ({"prepared": lambda _, images: images.roll(1, 0)}, "the rows are in another order: row 0 holds image 15"),
    (
        {"prepared": lambda _, images: F.pad(images, (8, 8, 8, 8))[..., 8:-8, 8:-8] * 0.5 - 1 / 3 * images.square()},
        "not the image",
    ),
    ({"end": lambda self, images: (self.codec.encode(images), self.codec.encode(images))[1]}, "[16, 16] rows"),
]


@pytest.mark.parametrize(("methods", "cause"), WRONG_CODECS)
def test_another_way_through_the_autoencoder_is_named(methods: dict[str, Any], cause: str) -> None:
    failed(judge("FM906", trainee(**methods)), cause)


def test_another_range_of_images_is_a_warning_unless_it_is_declared() -> None:
    model = trainee(prepared=lambda _, images: (images + 1) / 2)
    outcome = judge("FM906", model)
    assert [finding.severity for finding in outcome.findings] == ["warning"]
    assert "0.5 x image + 0.5" in str(outcome.findings[0])
    passed("FM906", model=model, spec=spec(decode_range=(0.0, 1.0)))


def test_images_of_another_size_are_an_error() -> None:
    cropped = trainee(prepared=lambda _, images: F.interpolate(images, scale_factor=0.5))
    failed(judge("FM906", cropped), "the loss was handed [3, 64, 64]")


def test_prompts_that_bypass_the_text_point_show() -> None:
    class Elsewhere(Trainee):
        def training_loss(
            self, images: Tensor, input_ids: Tensor, attention_mask: Tensor, generator: torch.Generator
        ) -> Any:
            inner, self.text_encoder.__dict__["forward"] = (
                self.text_encoder.forward,
                type(self.text_encoder).forward.__get__(self.text_encoder),
            )
            try:
                return super().training_loss(images, input_ids, attention_mask, generator)
            finally:
                self.text_encoder.__dict__["forward"] = inner

    failed(judge("FM906", Elsewhere), "never calls the text point 'text_encoder'")


def test_a_batch_of_null_rows_says_nothing_of_where_the_path_ends() -> None:
    """Their targets are permuted among themselves, so no row ends at its own image."""
    every = trainee(train_null=lambda self, x1, generator: (torch.ones(len(x1), dtype=torch.bool), x1.roll(1, 0)))
    passed("FM906", model=every, spec=spec(null_probability=0.9))
    # Of the encoder's calls something is still asked.
    mirrored = trainee(train_null=every.train_null, prepared=lambda _, images: images.flip(-1))
    failed(judge("FM906", mirrored, spec=spec(null_probability=0.9)), "mirrored left to right")


# FM907: randomness.


def global_times(self: Toy, rows: int, generator: torch.Generator) -> Tensor:
    return torch.sigmoid(torch.randn(rows))


def seeded_times(self: Toy, rows: int, generator: torch.Generator) -> Tensor:
    return torch.sigmoid(torch.randn(rows, generator=torch.Generator().manual_seed(0)))


def test_draws_from_another_generator_show() -> None:
    failed(
        judge("FM907", trainee(train_times=global_times)),
        "draws from torch",
        "run loss, after encode[0], before velocity[0]",
    )


def test_times_that_repeat_show() -> None:
    failed(judge("FM907", trainee(train_times=seeded_times)), "seeds 0 and 1 give the same training times")


def test_a_loss_that_knows_no_generator_gets_a_warning() -> None:
    class Plain(Toy):
        def plain_loss(self, images: Tensor) -> Tensor:
            x1 = self.codec.encode(images)
            t, x0 = torch.sigmoid(torch.randn(len(x1))), torch.randn_like(x1)
            null = torch.rand(len(x1)) < SPEC.null_probability
            v = self.velocity(self.train_path(x0, x1, t), 4 - 8 * t, null)
            return F.mse_loss(v, self.train_target(x0, x1))

    changes = {"loss": lambda model, request: model.plain_loss(request.images), "loss_entry": "plain_loss"}
    outcome = judge("FM907", Plain, spec=NOISE, **changes)
    assert {finding.severity for finding in outcome.findings} == {"warning"}


# The statistics themselves.


def test_the_distance_is_that_of_scipy() -> None:
    times = torch.sigmoid(0.3 + 1.4 * torch.randn(500, generator=torch.Generator().manual_seed(4), dtype=torch.float64))
    logit_normal = FlowSpec(grid_mean=0.3, grid_std=1.4)
    expected = stats.kstest(torch.logit(times).numpy(), stats.norm(0.3, 1.4).cdf).statistic
    assert distance_to_law(times, logit_normal, 0.0) == pytest.approx(expected, rel=1e-12)
    uniform = FlowSpec(time_distribution="uniform")
    assert distance_to_law(times, uniform, 0.0) == pytest.approx(
        stats.kstest(times.numpy(), "uniform").statistic, rel=1e-12
    )


def test_times_at_the_ends_and_beyond_have_a_distance() -> None:
    times = torch.tensor([0.0, 1.0, -1e-9, 1 + 1e-9] * 4, dtype=torch.float64)
    assert distance_to_law(times, FlowSpec(), 1e-6) == pytest.approx(0.5)


def test_rounding_of_the_times_never_adds_to_the_distance() -> None:
    times = torch.rand(300, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    uniform = FlowSpec(time_distribution="uniform")
    exact = distance_to_law(times, uniform, 0.0)
    for error in (1e-4, 1e-3):
        shaken = times + error * (2 * torch.rand(300, dtype=torch.float64) - 1)
        assert distance_to_law(shaken, uniform, error) <= exact


@pytest.mark.parametrize("samples", [512, 1024, 5000])
def test_the_critical_distance_keeps_its_share_of_the_budget(samples: int) -> None:
    chance = stats.kstwo.sf(ks_critical(samples), samples)
    assert chance <= SHARE
    assert chance > SHARE / 3, "not needlessly wide"


@pytest.mark.parametrize(("samples", "probability"), [(1024, 0.1), (1024, 0.5), (16, 0.1), (1024, 0.001), (64, 0.9)])
def test_the_range_of_counts_is_that_of_scipy(samples: int, probability: float) -> None:
    low, high = binomial_range(samples, probability)
    share, law = SHARE, stats.binom(samples, probability)
    assert law.cdf(low - 1) <= share / 2 < law.cdf(low)
    assert law.sf(high) <= share / 2 < law.sf(high - 1)
    for count in (low, high):
        interval = stats.binomtest(count, samples).proportion_ci(1 - share, method="exact")
        assert interval.low <= probability <= interval.high
    for count in (low - 1, high + 1):
        if 0 <= count <= samples:
            interval = stats.binomtest(count, samples).proportion_ci(1 - share, method="exact")
            assert not interval.low <= probability <= interval.high


def test_certain_counts_are_exact() -> None:
    assert binomial_range(100, 0.0) == (0, 0)
    assert binomial_range(100, 1.0) == (100, 100)


def test_right_times_are_not_called_wrong() -> None:
    generator = torch.Generator().manual_seed(6)
    for _ in range(200):
        times = torch.sigmoid(torch.randn(1024, generator=generator)).double()
        assert distance_to_law(times, FlowSpec(), 0.0) <= ks_critical(1024)


def test_an_unknown_law_is_described() -> None:
    times = torch.cat([torch.full((300,), 0.2), torch.full((300,), 0.8)]).double() + torch.linspace(0, 0.1, 600)
    assert explain_times(times, FlowSpec()).startswith("no known law; fitted logit-normal")


# The reading.


def test_the_reading_has_the_ends_the_state_and_the_gradient() -> None:
    session = Session(toy_subject())
    run = session.run(session.plan.loss)
    reading = TrainingReading(run.trace, SPEC)
    assert reading.state.shape == reading.x0.shape == reading.gradient.shape == (16, 4 * 8 * 8)
    assert reading.line.end.name == "the output of encode"
    on = reading.conditional
    assert torch.allclose(reading.line.time[on], reading.told[on], atol=1e-6)
    assert torch.allclose(reading.implied_x0(reading.line.end)[on], reading.x0[on], atol=1e-4)
    x1 = reading.line.end.rows
    expected = 2 * (reading.output - (x1 - KEEP * reading.x0)) / reading.output.numel()
    assert torch.allclose(reading.gradient[on], expected[on], atol=1e-9)


def test_only_a_loss_keeps_live_tensors() -> None:
    session = Session(toy_subject())
    base, loss = session.run(session.plan.base), session.run(session.plan.loss)
    assert all(call.live is None for call in base.trace.calls)
    assert all(call.live is not None and call.live.requires_grad for call in loss.trace.of("velocity"))
    assert base.trace.images is None
    assert loss.trace.images is not None
    assert loss.trace.images.shape == (16, 3, 64, 64)


def test_the_loss_can_be_judged_twice() -> None:
    session = Session(toy_subject())
    first, second = itertools.repeat(select_rules(["FM904"])[0], 2)
    assert session.judge(first).status == session.judge(second).status == "passed"
