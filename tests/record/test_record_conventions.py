"""Conventions of released pipelines and the one reading they come to: tokens, lists of rows, guidance at times."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from fmcheck.case import Case
from fmcheck.errors import NotInformative
from fmcheck.flow import pack, time_edges, to_decoder
from fmcheck.record.disturb import answer_instead
from fmcheck.record.reading import Reading
from fmcheck.spec import FlowSpec
from fmcheck.subject import Point
from tests.record.conftest import run

CASE = Case(prompts=("a", "b", "c"), height=8, width=12, num_steps=4, guidance_scale=1.5)
LATENT = torch.randn(3, 2, 4, 6, generator=torch.Generator().manual_seed(3))


def spec_of(**changes: Any) -> FlowSpec:
    fields = {"grid": "uniform", "evaluation_point": "left", "time_argument": "t", "guidance_layout": "separate"}
    sizes = {"latent_channels": 2, "downsampling": 2, "image_channels": 1, "initial_state": "noise"}
    return FlowSpec(**{**fields, **sizes, **changes})


def velocity(x: Tensor, time: Tensor, null: Tensor | None = None) -> Tensor:
    t = time.reshape(-1, *(1,) * (x.dim() - 1))
    return torch.cos(3 * x) + t if null is None else x * (1 + t)


def read(generate: Any, spec: FlowSpec, model: Any = None, **parts: Any) -> Reading:
    model = model or SimpleNamespace(velocity=velocity, decode=lambda x: x[:, :1])
    trace = run(model, generate, decode="decode", spec=spec, case=CASE, **parts)
    assert trace.error is None, trace.error
    assert not [mismatch for call in trace.calls for mismatch in call.mismatches if call.role == "velocity"]
    return Reading(trace, spec)


def integrate(x: Tensor, spec: FlowSpec, combined: Any) -> Tensor:
    edges = time_edges(CASE.num_steps, spec).float()
    for k in range(CASE.num_steps):
        x = x + (edges[k + 1] - edges[k]) * combined(x, edges[k].repeat(len(x)))
    return x


def both(model: Any, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return model.velocity(x, t), model.velocity(x, t, torch.ones(len(x), dtype=torch.bool))


@pytest.mark.parametrize("scale", [1.0, (0.5, 2.0)])
@pytest.mark.parametrize("frames", [None, 1])
@pytest.mark.parametrize("patch", [1, 2])
def test_the_latent_that_is_decoded_is_read_as_the_packed_state(patch, frames, scale):
    shift = 0.25 if scale == 1.0 else (0.25, -0.5)
    spec = spec_of(token_patch=patch, latent_frames=frames, latent_scale=scale, latent_shift=shift)
    ends = []

    def generate(model: Any, request: Any) -> Tensor:
        start = LATENT if frames is None else LATENT.unsqueeze(2)
        tokens = integrate(pack(start, spec), spec, lambda x, t: guided(*both(model, x, t)))
        ends.append(tokens)
        latent = unpacked(tokens, start, patch)
        return model.decode(to_decoder(latent, spec))

    reading = read(generate, spec)
    assert reading.final is not None
    torch.testing.assert_close(reading.final.float(), ends[0], rtol=0, atol=2e-6)
    for move in reading.moves:
        assert move.coefficients.dt == pytest.approx(0.25, abs=1e-5)
        assert move.coefficients.weight == pytest.approx(1.5, abs=1e-4)


def guided(c: Tensor, u: Tensor) -> Tensor:
    return 2.5 * c - 1.5 * u


def unpacked(tokens: Tensor, like: Tensor, p: int) -> Tensor:
    """Written for itself, as a pipeline does: fold the squares back, one by one."""
    latent = torch.empty_like(like)
    w = like.shape[-1]
    for i in range(tokens.shape[1]):
        y, x = p * (i // (w // p)), p * (i % (w // p))
        latent[..., y : y + p, x : x + p] = tokens[:, i].reshape(*like.shape[:-2], p, p)
    return latent


def test_guidance_in_an_interval_has_its_weight_there_and_none_elsewhere():
    spec = spec_of(guidance_interval=(0.2, 0.6))

    def combined(model: Any, x: Tensor, t: Tensor) -> Tensor:
        return guided(*both(model, x, t)) if 0.2 <= float(t[0]) <= 0.6 else model.velocity(x, t)

    reading = read(lambda model, _: model.decode(integrate(LATENT, spec, lambda x, t: combined(model, x, t))), spec)
    assert [move.weight for move in reading.moves] == [0, 1.5, 1.5, 0]
    assert [move.uncond is None for move in reading.moves] == [True, False, False, True]
    weights = [move.coefficients.weight for move in reading.moves if move.uncond is not None]
    assert weights == pytest.approx([1.5, 1.5], abs=1e-4)


@pytest.mark.parametrize(
    "declared", [{"guidance_rescale": 0.7}, {"guidance_norm": "row"}, {"guidance_norm": "last_axis"}]
)
def test_rescaled_guidance_moves_along_the_declared_combination(declared):
    spec = spec_of(**declared)

    def rescale(c: Tensor, u: Tensor) -> Tensor:
        p = guided(c, u)
        if "guidance_rescale" in declared:
            share = c.flatten(1).std(dim=1) / p.flatten(1).std(dim=1)
            return p * (0.7 * share + 0.3).reshape(-1, 1, 1, 1)
        axes = (1, 2, 3) if declared["guidance_norm"] == "row" else (3,)
        return p * (c.square().sum(axes, keepdim=True) / p.square().sum(axes, keepdim=True)).sqrt()

    reading = read(
        lambda model, _: model.decode(integrate(LATENT, spec, lambda x, t: rescale(*both(model, x, t)))), spec
    )
    for move in reading.moves:
        assert move.coefficients.dt == pytest.approx(0.25, rel=1e-4)
        assert move.coefficients.weight == pytest.approx(1.5, rel=1e-3)


def listed(x: list[Tensor], time: Tensor) -> tuple[list[Tensor], dict]:
    return [row * t + 1 for row, t in zip(x, time, strict=True)], {}


def test_rows_in_a_list_are_read_as_one_state():
    """As Z-Image's transformer takes and returns them."""
    spec = spec_of(guidance_layout="cond_first")
    model = SimpleNamespace(velocity=listed, decode=lambda x: x[:, :1])
    point = Point("velocity", arguments={"null": None}, output=0)

    def generate(model: Any, _: Any) -> Tensor:
        return model.decode(integrate(LATENT, spec, lambda x, t: torch.stack(model.velocity(list(x), t)[0])))

    reading = read(generate, spec, model, velocity=point)
    assert torch.equal(reading.initial, LATENT)
    assert reading.effective_dt == pytest.approx([0.25] * 4, abs=1e-6)


def test_an_answer_in_place_of_a_list_is_a_list():
    spec = spec_of(guidance_layout="cond_first")
    model = SimpleNamespace(velocity=listed, decode=lambda x: x[:, :1])
    point = Point("velocity", arguments={"null": None}, output=0)
    returned = []

    def generate(model: Any, _: Any) -> Tensor:
        returned.append(model.velocity(list(LATENT), torch.zeros(3)))
        return LATENT[:, :1]

    one = answer_instead("one", "velocity", lambda inputs, like: torch.ones_like(like))
    run(model, generate, velocity=point, spec=spec, case=CASE, disturbances=(one,))
    assert isinstance(returned[0][0], list)
    assert torch.equal(torch.stack(returned[0][0]), torch.ones_like(LATENT))
    assert returned[0][1] == {}


@pytest.mark.parametrize("solver", ["other", "stochastic"])
def test_steps_of_a_method_without_a_formula_say_nothing(solver):
    spec = spec_of(solver=solver)
    reading = read(lambda m, _: m.decode(integrate(LATENT, spec, lambda x, t: guided(*both(m, x, t)))), spec)
    assert len(reading.evaluations) == 4
    with pytest.raises(NotInformative, match=f"the solver is declared as '{solver}'"):
        _ = reading.moves
