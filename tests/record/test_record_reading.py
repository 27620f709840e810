"""One reading for every way to write the loop: halves, parts, branches, stages and conventions fall away.

Every loop below integrates one and the same pair of velocities, known in closed form, with one and the same
arithmetic; so its reading must be the reference's, bit for bit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from fmcheck.case import Case
from fmcheck.errors import NotInformative
from fmcheck.flow import evaluation_times, time_edges
from fmcheck.record.reading import Reading
from fmcheck.spec import FlowSpec
from fmcheck.subject import Point
from tests.record.conftest import STATE, run, toy_model

WEIGHT = 1.5
B = len(STATE)


def conditional(x: Tensor, t: Tensor) -> Tensor:
    return (1 + t) * x + 1


def unconditional(x: Tensor, t: Tensor) -> Tensor:
    return t - x / 2


def network(x: Tensor, time: Any, null: Tensor | None = None, *, label: str = "cond") -> Tensor:
    """Tells the branches by the indicator, else by a label that fmcheck is told nothing of."""
    t = torch.as_tensor(time).reshape(-1, *(1,) * (x.dim() - 1))
    if null is None:
        null = torch.full((len(x),), label == "uncond") if label != "both" else _second_half(len(x))
    return torch.where(null.reshape(-1, 1, 1, 1), unconditional(x, t), conditional(x, t))


def _second_half(rows: int) -> Tensor:
    return torch.arange(rows) >= rows // 2


def _times(t: Tensor, rows: int) -> Tensor:
    return t.reshape(1).repeat(rows)


# How a loop evaluates both velocities of all rows at one time: `shape(call, x, t) -> conditional, unconditional`.


def doubled(call: Any, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return call(torch.cat([x, x]), _times(t, 2 * len(x)), _second_half(2 * len(x))).chunk(2)


def doubled_without_indicator(call: Any, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return call(torch.cat([x, x]), _times(t, 2 * len(x)), label="both").chunk(2)


def doubled_one_time_for_all(call: Any, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return call(torch.cat([x, x]), float(t), _second_half(2 * len(x))).chunk(2)


def doubled_unconditional_first(call: Any, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    return call(torch.cat([x, x]), _times(t, 2 * len(x)), ~_second_half(2 * len(x))).chunk(2)[::-1]


def separate(call: Any, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    time, none = _times(t, len(x)), torch.zeros(len(x), dtype=torch.bool)
    return call(x, time, none), call(x, time, ~none)


def separate_without_indicator(call: Any, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    time = _times(t, len(x))
    return call(x, time), call(x, time, label="uncond")


def separate_unconditional_first(call: Any, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    time = _times(t, len(x))
    u = call(x, time, label="uncond")
    return call(x, time), u


def _in_parts(shape: Callable[..., Any], size: int) -> Callable[..., Any]:
    def parts(call: Any, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        both = [shape(call, part, t) for part in x.split(size)]
        return torch.cat([c for c, _ in both]), torch.cat([u for _, u in both])

    return parts


def all_conditional_parts_first(call: Any, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    time = _times(t, 1)
    c = torch.cat([call(part, time) for part in x.split(1)])
    return c, torch.cat([call(part, time, label="uncond") for part in x.split(1)])


SHAPES: dict[str, tuple[Callable[..., Any], str]] = {
    "doubled": (doubled, "cond_first"),
    "doubled, no indicator": (doubled_without_indicator, "cond_first"),
    "doubled, one time": (doubled_one_time_for_all, "cond_first"),
    "doubled, unconditional first": (doubled_unconditional_first, "uncond_first"),
    "doubled in rows": (_in_parts(doubled, 1), "cond_first"),
    "doubled in rows, no indicator": (_in_parts(doubled_without_indicator, 1), "cond_first"),
    "doubled in unequal parts": (_in_parts(doubled, 2), "cond_first"),
    "doubled in parts, unconditional first": (_in_parts(doubled_unconditional_first, 2), "uncond_first"),
    "separate": (separate, "separate"),
    "separate, no indicator": (separate_without_indicator, "separate"),
    "separate, unconditional first": (separate_unconditional_first, "separate_uncond_first"),
    "separate in rows": (_in_parts(separate, 1), "separate"),
    "separate in unequal parts, no indicator": (_in_parts(separate_without_indicator, 2), "separate"),
    "separate, all conditional parts first": (all_conditional_parts_first, "separate"),
    "separate in rows, unconditional first": (_in_parts(separate_unconditional_first, 1), "separate_uncond_first"),
}


@dataclass
class Seen:
    """What the reference saw: one evaluation."""

    x: Tensor
    t: float
    c: Tensor
    u: Tensor


def integrate(x: Tensor, spec: FlowSpec, steps: int, evaluate: Callable[..., Any], weight: float) -> Tensor:
    """Euler, midpoint or Heun; Heun's last step is an Euler step, as k-diffusion does it."""
    edges = time_edges(steps, spec).float()
    times = evaluation_times(edges, spec)

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        c, u = evaluate(x, t)
        return (1 + weight) * c - weight * u if weight else c

    for k in range(steps):
        dt = edges[k + 1] - edges[k]
        v = velocity(x, times[k, 0])
        if spec.solver == "midpoint":
            v = velocity(x + dt / 2 * v, times[k, 1])
        elif spec.solver == "heun" and k + 1 < steps:
            v = (v + velocity(x + dt * v, times[k, 1])) / 2
        x = x + dt * v
    return x


def reference(spec: FlowSpec, steps: int, weight: float) -> tuple[list[Seen], Tensor]:
    seen: list[Seen] = []

    def evaluate(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(Seen(x, float(t), conditional(x, t), unconditional(x, t)))
        return seen[-1].c, seen[-1].u

    return seen, integrate(STATE, spec, steps, evaluate, weight)


def read(shape: Callable[..., Any], spec: FlowSpec, *, weight: float = WEIGHT, steps: int = 3) -> Reading:
    """Record the loop of a shape, decode included, and read it."""
    model = toy_model(velocity=network, decode=lambda x: x)

    def generate(model: Any, request: Any) -> Tensor:
        x = integrate(STATE, spec, steps, lambda x, t: shape(model.velocity, x, t), weight)
        return model.decode(x)

    case = Case(prompts=("a", "b", "c"), height=4, width=6, num_steps=steps, guidance_scale=weight)
    trace = run(model, generate, decode="decode", spec=spec, case=case)
    assert trace.error is None
    return Reading(trace, spec)


def _spec(layout: str = "separate", **changes: Any) -> FlowSpec:
    grid = {"grid": "uniform", "evaluation_point": "left", "time_argument": "t"}
    sizes = {"latent_channels": 2, "downsampling": 2, "image_channels": 1}
    return FlowSpec(**{**grid, **sizes, "guidance_layout": layout, **changes})


def assert_same(reading: Reading, seen: list[Seen], end: Tensor) -> None:
    assert len(reading.evaluations) == len(seen)
    for found, wanted in zip(reading.evaluations, seen, strict=True):
        assert torch.equal(found.x_cond, wanted.x)
        assert torch.equal(found.x_uncond, wanted.x)
        assert torch.equal(found.v_cond, wanted.c.double())
        assert torch.equal(found.v_uncond, wanted.u.double())
        assert found.time_rows.tolist() == [wanted.t] * (2 * B)
        assert found.velocity_dtype == torch.float32
    assert torch.equal(reading.initial, STATE)
    assert torch.equal(reading.final, end)
    assert sorted(n for e in reading.evaluations for n in e.calls) == list(range(len(reading.trace.of("velocity"))))


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_of_loop_has_the_reading_of_the_reference(name: str, solver: str) -> None:
    shape, layout = SHAPES[name]
    spec = _spec(layout, solver=solver)
    reading = read(shape, spec)
    assert_same(reading, *reference(spec, 3, WEIGHT))
    stages = {"euler": [1, 1, 1], "midpoint": [2, 2, 2], "heun": [2, 2, 1]}[solver]
    assert list(map(len, reading.steps)) == stages
    assert reading.guided
    assert reading.unreadable is None


@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
def test_moves_tell_step_size_and_weight(solver: str) -> None:
    spec = _spec("cond_first", solver=solver)
    reading = read(doubled, spec)
    assert reading.effective_dt == pytest.approx([1 / 3] * 3, rel=1e-5)
    for move in reading.moves:
        assert move.coefficients.dt == pytest.approx(1 / 3, rel=1e-5)
        assert move.coefficients.weight == pytest.approx(WEIGHT, rel=1e-5)
    stages = {
        "euler": [(0, 1.0)] * 3,
        "midpoint": [(0, 0.5), (1, 1.0)] * 3,
        "heun": [*[(0, 1.0), (1, 1.0)] * 2, (0, 1.0)],
    }
    assert [(move.stage, move.fraction) for move in reading.moves] == stages[solver]
    assert [move.last for move in reading.full_moves] == [False, False, True]
    assert [move.step for move in reading.full_moves] == [0, 1, 2]


UNGUIDED: dict[str, Callable[..., Any]] = {
    "plain": lambda call, x, t: (call(x, _times(t, B)), None),
    "in rows": lambda call, x, t: (torch.cat([call(part, t.reshape(1)) for part in x.split(1)]), None),
    "with an indicator": lambda call, x, t: (call(x, _times(t, B), torch.zeros(B, dtype=torch.bool)), None),
}


@pytest.mark.parametrize("layout", ["cond_first", "uncond_first", "separate", "separate_uncond_first"])
@pytest.mark.parametrize("solver", ["euler", "midpoint", "heun"])
@pytest.mark.parametrize("name", UNGUIDED)
def test_without_guidance_there_is_one_branch(name: str, solver: str, layout: str) -> None:
    spec = _spec(layout, solver=solver)
    reading = read(UNGUIDED[name], spec, weight=0.0)
    seen, end = reference(spec, 3, 0.0)
    assert not reading.guided
    assert len(reading.evaluations) == len(seen)
    for found, wanted in zip(reading.evaluations, seen, strict=True):
        assert torch.equal(found.x_cond, wanted.x)
        assert torch.equal(found.v_cond, wanted.c.double())
        assert found.x_uncond is None
        assert found.v_uncond is None
        assert found.time_rows.tolist() == [wanted.t] * B
    assert torch.equal(reading.final, end)
    assert reading.effective_dt == pytest.approx([1 / 3] * 3, rel=1e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_both_branches_may_be_evaluated_at_the_neutral_scale_too(name: str) -> None:
    shape, layout = SHAPES[name]
    spec = _spec(layout)
    reading = read(shape, spec, weight=0.0)
    seen, end = reference(spec, 3, 0.0)
    assert not reading.guided
    assert [float(e.time) for e in reading.evaluations] == [s.t for s in seen]
    assert all(torch.equal(e.v_cond, s.c.double()) for e, s in zip(reading.evaluations, seen, strict=True))
    assert torch.equal(reading.final, end)


TIME_MAPS = {
    "log_snr": lambda t: 4 - 8 * t,
    "t": lambda t: t,
    "sigma": lambda t: 1 - t,
    "timestep": lambda t: 1000 - 1000 * t,
}


@pytest.mark.parametrize("argument", TIME_MAPS)
def test_times_are_read_back_from_the_argument(argument: str) -> None:
    spec = _spec("cond_first", time_argument=argument)

    def told(call: Any, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return doubled(lambda x, time, null: call(x, TIME_MAPS[argument](time), null), x, t)

    assert [e.time for e in read(told, spec).evaluations] == pytest.approx([0, 1 / 3, 2 / 3], abs=1e-6)


def test_integer_time_steps_are_times() -> None:
    spec = _spec("cond_first", time_argument="timestep")

    def told(call: Any, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return doubled(lambda x, time, null: call(x, (1000 - 1000 * time).round().long(), null), x, t)

    assert [e.time for e in read(told, spec).evaluations] == pytest.approx([0, 0.333, 0.667], abs=1e-9)


def test_an_indicator_may_mark_the_conditional_rows() -> None:
    spec = _spec("separate", null_means_unconditional=False)

    def generate(model: Any, request: Any) -> Tensor:
        def evaluate(x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
            time, yes = _times(t, len(x)), torch.ones(len(x), dtype=torch.bool)
            return model.velocity(x, time, yes), model.velocity(x, time, ~yes)

        return model.decode(integrate(STATE, spec, 3, evaluate, WEIGHT))

    case = Case(prompts=("a", "b", "c"), height=4, width=6, num_steps=3, guidance_scale=WEIGHT)
    model = toy_model(velocity=lambda x, time, null: network(x, time, ~null), decode=lambda x: x)
    reading = Reading(run(model, generate, decode="decode", spec=spec, case=case), spec)
    assert_same(reading, *reference(spec, 3, WEIGHT))


@pytest.mark.parametrize("prediction", ["velocity", "reverse_velocity", "x1", "x0"])
def test_predictions_become_velocities(prediction: str) -> None:
    spec = _spec("separate", prediction=prediction, evaluation_point="midpoint")
    ends = {
        "velocity": lambda v, x, t: v,
        "reverse_velocity": lambda v, x, t: -v,
        "x1": lambda v, x, t: x + (1 - t) * v,
        "x0": lambda v, x, t: x - t * v,
    }

    def predicted(x: Tensor, time: Tensor, null: Tensor | None = None, *, label: str = "cond") -> Tensor:
        return ends[prediction](network(x, time, null, label=label), x, time.reshape(-1, 1, 1, 1))

    def generate(model: Any, request: Any) -> Tensor:
        return [*map(model.velocity, *zip(*_requests(spec), strict=True))][-1]

    case = Case(prompts=("a", "b", "c"), height=4, width=6, num_steps=3, guidance_scale=0.0)
    trace = run(toy_model(velocity=predicted), generate, spec=spec, case=case)
    for evaluation, (x, time) in zip(Reading(trace, spec).evaluations, _requests(spec), strict=True):
        wanted = conditional(x, time.reshape(-1, 1, 1, 1)).double()
        assert torch.allclose(evaluation.v_cond, wanted, rtol=1e-5, atol=1e-5)


def _requests(spec: FlowSpec) -> Iterator[tuple[Tensor, Tensor]]:
    for t in evaluation_times(time_edges(3, spec).float(), spec).flatten():
        yield STATE + t, _times(t, B)


def test_packed_tokens_are_states_too() -> None:
    spec = _spec("cond_first")
    tokens = STATE.flatten(1).reshape(B, 6, 2)

    def generate(model: Any, request: Any) -> Tensor:
        x = tokens
        for k in range(2):
            c, u = model.velocity(torch.cat([x, x]), torch.full((2 * B,), k / 2)).chunk(2)
            x = x + 0.5 * ((1 + WEIGHT) * c - WEIGHT * u)
        return model.decode(x)

    model = toy_model(velocity=lambda x, time: x + _second_half(len(x)).reshape(-1, 1, 1), decode=lambda x: x)
    case = Case(prompts=("a", "b", "c"), height=4, width=6, num_steps=2, guidance_scale=WEIGHT)
    reading = Reading(run(model, generate, decode="decode", spec=spec, case=case), spec)
    assert [move.coefficients.weight for move in reading.moves] == pytest.approx([WEIGHT] * 2)
    assert reading.effective_dt == pytest.approx([0.5, 0.5])


# What cannot be read says why.


def _unreadable(body: Callable[..., Any], *, weight: float = WEIGHT, layout: str = "cond_first", **point: Any) -> str:
    spec = _spec(layout)
    case = Case(prompts=("a", "b", "c"), height=4, width=6, num_steps=1, guidance_scale=weight)
    model = toy_model(velocity=lambda x, time=None, null=None: x[:1] if time == "short" else x)
    trace = run(model, lambda m, r: body(m.velocity), spec=spec, case=case, velocity=Point("velocity", point))
    reading = Reading(trace, spec)
    with pytest.raises(NotInformative) as caught:
        len(reading.evaluations)
    assert reading.unreadable == str(caught.value)
    for attribute in ("moves", "initial", "effective_dt"):
        with pytest.raises(NotInformative):
            getattr(reading, attribute)
    return str(caught.value)


T3 = torch.zeros(B)
UNREADABLE: dict[str, tuple[Callable[..., Any], str]] = {
    "no call": (lambda call: STATE, "the velocity network was never called"),
    "no time": (lambda call: call(STATE), "velocity[0] was passed no time argument"),
    "wrong number of times": (lambda call: call(STATE, torch.zeros(2)), "velocity[0]: 2 times for 3 rows"),
    "a time that is no number": (lambda call: call(STATE, "soon"), "velocity[0]: its time is no number"),
    "no state": (lambda call: call("x", T3), "velocity[0]: its state is no tensor with rows"),
    "no rows": (lambda call: call(torch.zeros(()), T3), "velocity[0]: its state is no tensor with rows"),
    "other rows": (
        lambda call: call(STATE, "short"),
        "velocity[0]: its state and velocity are not tensors of one shape",
    ),
    "too few rows": (
        lambda call: call(STATE[:2], T3[:2]),
        "velocity[0] has 2 rows; the calls do not add up to evaluations of 3 conditional and 3 unconditional rows "
        "in the layout 'cond_first'",
    ),
    "three branches": (
        lambda call: call(STATE.repeat(3, 1, 1, 1), torch.zeros(9)),
        "velocity[0] has 9 rows; the calls do not add up to evaluations of 3 conditional and 3 unconditional rows "
        "in the layout 'cond_first' (3 guidance branches? Only two can be declared)",
    ),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_says_why(name: str) -> None:
    body, sentence = UNREADABLE[name]
    assert _unreadable(body) == sentence


@pytest.mark.parametrize("layout", ["cond_first", "separate"])
@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("rows", [1, 2])
def test_prompts_may_be_integrated_one_part_after_the_other(rows: int, solver: str, layout: str) -> None:
    spec = _spec(layout, solver=solver)
    shape = doubled if layout == "cond_first" else separate_without_indicator
    state = torch.cat([STATE, STATE[:1] + 1])

    def generate(model: Any, request: Any) -> Tensor:
        ends = [
            integrate(part, spec, 3, lambda x, t: shape(model.velocity, x, t), WEIGHT) for part in state.split(rows)
        ]
        return model.decode(torch.cat(ends))

    case = Case(prompts=("a", "b", "c", "d"), height=4, width=6, num_steps=3, guidance_scale=WEIGHT)
    model = toy_model(velocity=network, decode=lambda x: x)
    reading = Reading(run(model, generate, decode="decode", spec=spec, case=case), spec)
    assert [e.time for e in reading.evaluations] == [e.t for e in reference(spec, 3, WEIGHT)[0]]
    assert torch.equal(reading.initial, state)
    assert [sorted(set(e.time_rows.tolist())) for e in reading.evaluations] == [[e.time] for e in reading.evaluations]
    assert torch.equal(
        torch.cat([e.x_cond for e in reading.evaluations]), torch.cat([e.x_uncond for e in reading.evaluations])
    )
    assert reading.effective_dt == pytest.approx([1 / 3] * 3, rel=1e-5)


# The end of the loop.


def _final(spec: FlowSpec, finish: Callable[..., Any], **points: Any) -> Reading:
    def generate(model: Any, request: Any) -> Tensor:
        return finish(model, STATE + model.velocity(STATE, T3))

    case = Case(prompts=("a", "b", "c"), height=4, width=6, num_steps=1, guidance_scale=0.0)
    model = toy_model(velocity=network, sample=lambda x: x / 2 + 1, decode=lambda x: x)
    return Reading(run(model, generate, spec=spec, case=case, **points), spec)


def test_the_final_state_is_what_enters_sample() -> None:
    spec = _spec(latent_scale=2.0, latent_shift=1.0)
    reading = _final(spec, lambda m, x: m.decode(m.sample(x)), sample="sample", decode="decode")
    assert torch.equal(reading.final, STATE + conditional(STATE, torch.zeros(())))


def test_without_sample_the_final_state_is_recovered_from_what_enters_decode() -> None:
    spec = _spec(latent_scale=2.0, latent_shift=1.0)
    reading = _final(spec, lambda m, x: m.decode(x / 2 + 1), decode="decode")
    assert torch.allclose(reading.final, (STATE + conditional(STATE, torch.zeros(()))).double())


def test_parts_that_enter_the_decoder_are_put_together() -> None:
    reading = _final(_spec(), lambda m, x: torch.cat([*map(m.decode, x.split(1))]), decode="decode")
    assert torch.equal(reading.final, STATE + conditional(STATE, torch.zeros(())))


def test_an_end_that_cannot_be_seen_costs_the_last_move_only() -> None:
    reading = _final(_spec(), lambda m, x: x)
    assert reading.final is None
    assert reading.moves == []
    assert len(reading.evaluations) == 1


def test_a_decoder_given_both_halves_does_not_show_the_final_state() -> None:
    reading = _final(_spec(), lambda m, x: m.decode(torch.cat([x, x])), decode="decode")
    assert reading.final is None
    assert len(reading.terminal_input) == 2 * B
