"""FM8 on toys that depend on how they are run: every rule sees it and says where, and a careful near-miss passes."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmcheck.outcome import Outcome
from fmcheck.rules import get_rule
from fmcheck.session import Session
from fmcheck.subjects.tiny import subject as tiny
from tests.rules.loops import caught, clean, silent
from tests.rules.toy import CASE, CHANNELS, SPEC, Codec, Toy, Velocity, judge, toy_subject

CODES = ["FM813", "FM814", "FM815", "FM816", "FM817", "FM818", "FM819", "FM820"]


def told(outcome: Outcome, *parts: str) -> None:
    """The rule says each part, in findings that may be warnings."""
    text = " | ".join(map(str, outcome.findings))
    assert text, f"{outcome.status}: {outcome.reason}"
    for part in parts:
        assert part in text, text


class Attending(Velocity):
    """A network with products and an attention over its cells, in the dtype of its weights."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__(generator)
        self.mix = nn.Linear(CHANNELS, CHANNELS)
        with torch.no_grad():
            self.mix.weight.copy_(torch.randn(CHANNELS, CHANNELS, generator=generator) / 2)
            self.mix.bias.zero_()

    def attend(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x, x, x)

    def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
        cells = self.mix(x.to(self.mix.weight.dtype).movedim(1, -1).flatten(1, 2))
        mixed = self.attend(cells.unsqueeze(1)).squeeze(1).transpose(1, 2).reshape(x.shape)
        return (super().forward(x.to(self.weight.dtype), log_snr, null) + mixed).to(self.weight.dtype)


def with_network(network: type[Velocity] = Attending, codec: type[Codec] = Codec, base: type[Toy] = Toy) -> type[Toy]:
    class Other(base):
        def __init__(self) -> None:
            super().__init__()
            generator = torch.Generator().manual_seed(3)
            self.velocity, self.codec = network(generator), codec(generator)
            self.eval()

    return Other


def low_precision(model: type[Toy]) -> Outcome:
    def build(case: Any) -> Toy:
        made = model()
        made.velocity.to(case.torch_dtype)
        return made

    return judge("FM815", build=build, dtypes=("float32", "bfloat16"))


# Correct models.


def test_the_tiny_model_passes_and_uses_less_than_half_of_what_is_allowed() -> None:
    session = Session(tiny)
    for code in CODES:
        outcome = session.judge(get_rule(code))
        # Whether a product can be reduced, and whether one backend serves, is up to the machine.
        assert outcome.status == "passed" or code in ("FM819", "FM820"), f"{code}: {outcome.reason}"
        assert outcome.findings == ()
        assert (outcome.ratio or 0) < 0.5, code


def test_six_more_runs_are_all_that_the_rules_cost() -> None:
    session = Session(tiny)
    wishes = [session.plan.base, session.plan.fresh_base, session.plan.low_precision, session.plan.loss]
    for wish in wishes:
        session.run(wish)
    before = session.calls
    for code in CODES:
        session.judge(get_rule(code))
    assert session.calls - before == 6


@pytest.mark.parametrize("code", sorted(set(CODES) - {"FM815", "FM820"}))
def test_a_toy_with_products_and_attention_passes(code: str) -> None:
    clean(judge(code, with_network()))


def test_a_toy_in_low_precision_passes() -> None:
    clean(low_precision(with_network()))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("FM813", "autocast changes no bit"),
        ("FM814", "autocast changes no bit"),
        ("FM815", "declares no lower dtype"),
        ("FM819", "no attention backend (math) changes a bit"),
        ("FM820", "changes no bit of any recorded tensor"),
    ],
)
def test_a_toy_without_products_says_nothing(code: str, reason: str) -> None:
    silent(judge(code), reason)


# FM813, FM814: autocast.


class ForgetsUnderAutocast(Attending):
    def attend(self, x: Tensor) -> Tensor:
        return 3 * super().attend(x) if torch.is_autocast_enabled("cpu") else super().attend(x)


class TriesSomethingUnderAutocast(Attending):
    def attend(self, x: Tensor) -> Tensor:
        if torch.is_autocast_enabled("cpu"):
            raise RuntimeError("no bfloat16 here")
        return super().attend(x)


def test_a_branch_on_autocast_is_found_where_it_acts() -> None:
    caught(judge("FM813", with_network(ForgetsUnderAutocast)), "the output of velocity[0]", "under bfloat16 autocast")


def test_a_model_that_refuses_autocast_says_nothing() -> None:
    silent(judge("FM813", with_network(TriesSomethingUnderAutocast)), "no bfloat16 here")


class UpdatedByAProduct(Toy):
    def integrate(self, x: Tensor, num_steps: int, scale: float, generator: torch.Generator) -> Tensor:
        edges = self.edges(num_steps)
        for k in range(num_steps):
            v = self.velocity_at(x, (edges[k] + edges[k + 1]) / 2, scale)
            x = self.add(x, edges[k + 1] - edges[k], v)
        return x

    def add(self, x: Tensor, dt: Tensor, v: Tensor) -> Tensor:
        step = (dt * torch.eye(x.shape[-1])).expand(len(x), -1, -1)
        return torch.baddbmm(x.flatten(1, 2), v.float().flatten(1, 2), step).reshape(x.shape).float()


class UpdatedOutsideOfAutocast(UpdatedByAProduct):
    def add(self, x: Tensor, dt: Tensor, v: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return super().add(x, dt, v)


def test_an_update_that_autocast_rounds_is_a_warning() -> None:
    outcome = judge("FM814", with_network(base=UpdatedByAProduct))
    told(outcome, "is representable in bfloat16", "its update is a matrix product")
    assert {finding.severity for finding in outcome.findings} == {"warning"}


def test_an_update_outside_of_autocast_passes() -> None:
    clean(judge("FM814", with_network(base=UpdatedOutsideOfAutocast)))


def test_a_state_in_the_networks_dtype_is_a_choice() -> None:
    spec = type(SPEC)(**{**vars(SPEC), "state_dtype": "network"})
    silent(judge("FM814", with_network(base=UpdatedByAProduct), spec=spec), "a state in the network's dtype")


# FM815: low precision.


class ForgetsInBfloat16(Attending):
    def attend(self, x: Tensor) -> Tensor:
        return 2 * super().attend(x) if x.dtype == torch.bfloat16 else super().attend(x)


def test_a_path_for_low_precision_is_found() -> None:
    caught(low_precision(with_network(ForgetsInBfloat16)), "in bfloat16: the output of velocity[0]", "allowed 0.088")


def test_a_model_of_other_weights_says_nothing() -> None:
    def build(case: Any) -> Toy:
        made = with_network()()
        if case.dtype == "bfloat16":
            torch.nn.init.ones_(made.velocity.mix.weight)
        made.velocity.to(case.torch_dtype)
        return made

    outcome = judge("FM815", build=build, dtypes=("float32", "bfloat16"))
    silent(outcome, "in bfloat16 on cpu has other weights: velocity.mix.weight is not the native one, rounded")


# FM816: memory format.


class Viewed(Velocity):
    def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
        return super().forward(x.view(len(x), -1).view(x.shape), log_snr, null)


class Reshaped(Velocity):
    def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
        return super().forward(x.reshape(len(x), -1).view(x.shape), log_snr, null)


class AsItLies(Codec):
    def _read(self, x: Tensor) -> Tensor:
        return x.as_strided(x.shape, torch.empty(x.shape).stride())


class DecodesAsItLies(AsItLies):
    def decode(self, x: Tensor) -> Tensor:
        return super().decode(self._read(x))


class EncodesAsItLies(AsItLies):
    def encode(self, image: Tensor) -> Tensor:
        return super().encode(self._read(image))


def test_a_view_of_the_callers_tensor_is_a_warning() -> None:
    outcome = judge("FM816", with_network(Viewed))
    told(outcome, "are refused: generate raised RuntimeError: view", "at velocity[0]", "`.reshape` takes any")
    assert [finding.severity for finding in outcome.findings] == ["warning"]
    clean(judge("FM816", with_network(Reshaped)))


@pytest.mark.parametrize(("codec", "where"), [(DecodesAsItLies, "decode[0]"), (EncodesAsItLies, "encode[0]")])
def test_memory_that_is_read_in_its_order_is_an_error(codec: type[Codec], where: str) -> None:
    caught(judge("FM816", with_network(codec=codec)), f"with channels last in memory: the output of {where}")


def test_a_model_without_images_in_memory_says_nothing() -> None:
    class Packed(Velocity):
        def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
            shape = (len(x), CHANNELS, 8, -1)
            return super().forward(x.reshape(shape), log_snr, null).flatten(1)

    class PackedToy(with_network(Packed)):
        def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
            return super().velocity_at(x.flatten(1), t, scale).reshape(x.shape)

    points = {"sample": None, "decode": None, "encode": None, "loss": None, "loss_entry": None}
    silent(judge("FM816", PackedToy, **points), "no input of network or autoencoder has four axes")


# FM817: parts.


class CentredOverTheBatch(Velocity):
    def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
        return super().forward(x - 0.1 * x.mean(0), log_snr, null)


class DecodesByTheBrightest(Codec):
    def decode(self, x: Tensor) -> Tensor:
        return super().decode(x) / len(x)


def test_what_depends_on_the_whole_batch_is_found() -> None:
    caught(judge("FM817", with_network(CentredOverTheBatch)), "in two parts of the batch: the output of velocity[0]")
    caught(judge("FM817", with_network(codec=DecodesByTheBrightest)), "the output of decode[0]")


def test_a_single_row_cannot_be_cut() -> None:
    silent(judge("FM817", case=CASE.with_batch(1)), "a single row")


# FM818: inference mode.


class FasterWithoutAutograd(Velocity):
    def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
        v = super().forward(x, log_snr, null)
        return torch.nextafter(v, v + 1) if torch.is_inference_mode_enabled() else v


class RefusesInferenceMode(Velocity):
    def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
        with torch.enable_grad():
            y = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(y.sum(), y)
        return super().forward(x * gradient, log_snr, null)


class FillsATable(Velocity):
    """Keeps what it has made; under inference mode that is a tensor which no gradient passes."""

    def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
        if getattr(self, "table", None) is None or self.table.shape != x.shape[1:]:
            self.table = torch.ones(x.shape[1:])
        return super().forward(x * self.table, log_snr, null)


def test_a_bit_that_inference_mode_changes_is_found() -> None:
    caught(judge("FM818", with_network(FasterWithoutAutograd)), "the output of velocity[0]", "allowed 0 (bitwise)")


def test_an_exception_under_inference_mode_is_a_finding() -> None:
    caught(judge("FM818", with_network(RefusesInferenceMode)), "under inference mode generate raised RuntimeError")


def test_tables_made_under_inference_mode_do_not_reach_the_other_rules() -> None:
    session = Session(toy_subject(with_network(FillsATable)))
    clean(session.judge(get_rule("FM818")))
    assert session.run(session.plan.loss).failure is None


def test_without_no_grad_the_reference_is_made_without_gradients() -> None:
    class Recording(Toy):
        generate = Toy.generate.__wrapped__

    session = Session(toy_subject(Recording))
    clean(session.judge(get_rule("FM818")))
    assert "no_grad" in session.wanted


# FM819: attention.


class ByHandUnderMath(Attending):
    def attend(self, x: Tensor) -> Tensor:
        if torch.backends.cuda.flash_sdp_enabled():
            return super().attend(x)
        return (x @ x.transpose(-1, -2)).softmax(-1) @ x


class RefusesMath(Attending):
    def attend(self, x: Tensor) -> Tensor:
        if not torch.backends.cuda.flash_sdp_enabled():
            raise RuntimeError("No available kernel. Aborting execution.")
        return super().attend(x)


def test_attention_by_hand_without_its_scale_is_found() -> None:
    caught(judge("FM819", with_network(ByHandUnderMath)), "with attention backend math: the output of velocity[0]")


def test_a_backend_that_cannot_serve_is_left_out() -> None:
    outcome = judge("FM819", with_network(RefusesMath))
    silent(outcome, "no attention backend (none serves) changes a bit")
    assert outcome.notes == (
        "attention backend math is left out: generate raised RuntimeError: No available kernel. Aborting execution.",
    )


# FM820: reduced products.


class ReducedByHand(Toy):
    """Rounds as a machine with reduced products does, where those are allowed."""

    in_update = False

    def velocity_at(self, x: Tensor, t: Tensor, scale: float) -> Tensor:
        v = super().velocity_at(x, t, scale)
        return self.reduced(v) if self.in_update else v

    def reduced(self, tensor: Tensor) -> Tensor:
        short = torch.get_float32_matmul_precision() != "highest"
        return tensor.bfloat16().float() if short else tensor


class ReducedNetwork(Velocity):
    def forward(self, x: Tensor, log_snr: Tensor, null: Tensor) -> Tensor:
        return ReducedByHand.reduced(None, super().forward(x, log_snr, null))


class ReducedUpdate(ReducedByHand):
    in_update = True


def test_products_may_be_reduced_in_the_network_and_not_in_the_update() -> None:
    clean(judge("FM820", with_network(ReducedNetwork)))
    caught(judge("FM820", ReducedUpdate), "with reduced products", "the update is a matrix product", "step 0 of 4")


def test_one_step_has_no_update_between_two_calls_but_a_last_state() -> None:
    clean(judge("FM814", with_network(), case=CASE.but(num_steps=1)))
