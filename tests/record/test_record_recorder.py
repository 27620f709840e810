"""The trace says what happened: which calls, with what, what came back, who drew, what was born, what went wrong."""

import random
import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from fmcheck.errors import DeclarationError, NotInformative
from fmcheck.record.disturb import Disturbance, InjectedFault, change_argument, change_input, change_output, raise_in
from fmcheck.subject import Point
from tests.record.conftest import STATE, TIMES, draw_numpy, run, toy_model


def _loop(model: Any, request: Any) -> torch.Tensor:
    x = STATE.clone()
    for _ in range(request.num_steps):
        x = x + model.velocity(x, TIMES)
    return x


def test_calls_are_noted_in_order_with_copies_of_what_passed() -> None:
    trace = run(toy_model(), _loop)
    assert [call.name for call in trace.calls] == ["velocity[0]", "velocity[1]"]
    first, second = trace.calls
    assert torch.equal(first.inputs["x"], STATE)
    assert torch.equal(first.inputs["time"], TIMES)
    assert first.inputs["null"] is None
    assert torch.equal(first.output, STATE * 0.5)
    assert torch.equal(second.inputs["x"], STATE * 1.5)
    assert torch.equal(trace.result, STATE * 2.25)
    assert (trace.error, trace.draws, trace.born, trace.warnings) == (None, [], [], [])


def test_later_changes_in_place_do_not_reach_the_trace() -> None:
    def generate(model: Any, request: Any) -> torch.Tensor:
        x = STATE.clone()
        v = model.velocity(x, TIMES)
        x.zero_()
        v.zero_()
        return x

    call = run(toy_model(), generate).calls[0]
    assert torch.equal(call.inputs["x"], STATE)
    assert torch.equal(call.output, STATE * 0.5)
    assert call.mutated == []


def test_a_picture_that_passes_through_unchanged_is_copied_once() -> None:
    model = toy_model(decode=lambda x: x + 1)
    model.generate = lambda: model.decode(STATE)
    trace = run(model, lambda m, _: m.generate(), decode="decode", entry="generate")
    decoded, made = trace.of("decode")[0].output, trace.of("generate")[0].output
    assert decoded is made is trace.result
    assert torch.equal(made, STATE + 1)


@pytest.mark.parametrize("write", [lambda x: x.mul_(2), lambda x: x.data.mul_(2), lambda x: x.numpy().__imul__(2)])
def test_a_picture_that_is_written_to_on_the_way_is_two(write: Any) -> None:
    model = toy_model(decode=lambda x: x + 1)

    def generate() -> torch.Tensor:
        image = model.decode(STATE)
        write(image)
        return image

    model.generate = generate
    trace = run(model, lambda m, _: m.generate(), decode="decode", entry="generate")
    assert torch.equal(trace.of("decode")[0].output, STATE + 1)
    assert torch.equal(trace.of("generate")[0].output, (STATE + 1) * 2)


def test_a_network_that_answers_in_one_buffer_is_copied_at_every_call() -> None:
    buffer = torch.zeros_like(STATE)

    def velocity(x: torch.Tensor, time: torch.Tensor, null: Any = None) -> torch.Tensor:
        buffer.data.copy_(x * 0.5)
        return buffer

    first, second = run(toy_model(velocity=velocity), _loop).of("velocity")
    assert torch.equal(first.output, STATE * 0.5)
    assert torch.equal(second.output, STATE * 0.75)


def test_the_result_is_kept_as_it_came_out() -> None:
    returned = STATE.clone()
    trace = run(toy_model(), lambda _, __: returned)
    returned.zero_()
    assert torch.equal(trace.result, STATE)
    assert trace.returned is returned


def test_inputs_that_a_call_changes_in_place_are_named() -> None:
    model = toy_model(velocity=lambda x, time, null=None: x.add_(1))
    assert run(model, _loop).calls[0].mutated == ["x"]


def test_two_roles_at_one_place_are_told_apart_by_their_arguments() -> None:
    class Codec(nn.Module):
        def forward(self, x: torch.Tensor, fn: str = "encode") -> torch.Tensor:
            return x + 1 if fn == "encode" else x - 1

    model = toy_model(ae=Codec())

    def generate(model: Any, request: Any) -> torch.Tensor:
        model.ae(STATE)
        model.ae(STATE, "sample")
        model.ae(STATE, fn="other")
        return model.ae(_loop(model, request), fn="decode")

    trace = run(
        model,
        generate,
        encode=Point("ae", when={"fn": "encode"}),
        sample=Point("ae", when={"fn": "sample"}),
        decode=Point("ae.forward", when={"fn": "decode"}),
    )
    assert [c.name for c in trace.calls] == ["encode[0]", "sample[0]", "velocity[0]", "velocity[1]", "decode[0]"]
    assert "forward" not in vars(model.ae)


def test_a_role_without_when_takes_what_the_others_leave() -> None:
    model = toy_model(ae=lambda x, fn: x)

    def generate(model: Any, request: Any) -> torch.Tensor:
        model.ae(STATE, "encode")
        return model.ae(STATE, "anything")

    trace = run(model, generate, decode="ae", encode=Point("ae", when={"fn": "encode"}))
    assert [c.name for c in trace.calls] == ["encode[0]", "decode[0]"]


def test_two_roles_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(DeclarationError) as caught:
        run(toy_model(ae=lambda x: x), _loop, sample="ae", decode="ae")
    assert str(caught.value) == (
        "observation points sample ('ae') and decode ('ae') are one and the same callable; "
        "tell their calls apart with Point(when={argument: value})"
    )


def test_a_call_that_calls_itself_on_chunks_is_one_call() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            if len(x) > 1:
                return torch.cat([self(part, time[:1]) for part in x.split(1)])
            return x * time.reshape(-1, 1, 1, 1)

    trace = run(toy_model(velocity=Net()), _loop)
    assert [len(call.inputs["x"]) for call in trace.of("velocity")] == [3, 3]


def test_calls_within_calls_are_noted_when_their_roles_differ() -> None:
    model = toy_model(decode=lambda x: x)
    model.velocity = lambda x, time: model.decode(x)
    trace = run(model, _loop, decode="decode")
    assert [c.name for c in trace.calls] == ["velocity[0]", "decode[0]", "velocity[1]", "decode[1]"]


def test_previews_the_last_one_is_the_output_and_the_result() -> None:
    def generate(model: Any, request: Any) -> Any:
        x = STATE.clone()
        for _ in range(3):
            x = x + model.velocity(x, TIMES)
            yield x

    model = toy_model()
    model.entry = lambda request: generate(model, request)
    trace = run(model, lambda m, request: m.entry(request), entry="entry")
    assert [c.name for c in trace.calls] == ["generate[0]", "velocity[0]", "velocity[1]", "velocity[2]"]
    assert torch.equal(trace.result, STATE * 1.5**3)
    assert torch.equal(trace.calls[0].output, trace.result)
    assert trace.error is None


def test_a_preview_generator_keeps_its_manners() -> None:
    log = []

    def previews(x: torch.Tensor) -> Any:
        try:
            log.append((yield x))
            try:
                yield x + 1
            except ValueError:
                log.append("thrown")
                yield x + 2
            return "returned"
        finally:
            log.append("closed")

    def generate(model: Any, request: Any) -> torch.Tensor:
        def outer() -> Any:
            return (yield from model.entry(STATE))

        generator = outer()
        next(generator)
        generator.send("sent")
        assert torch.equal(generator.throw(ValueError()), STATE + 2)
        with pytest.raises(StopIteration) as stop:
            next(generator)
        assert stop.value.value == "returned"
        half = model.entry(STATE)
        next(half)
        half.close()
        return STATE

    trace = run(toy_model(entry=previews), generate, entry="entry")
    assert trace.error is None
    assert log == ["sent", "thrown", "closed", "closed"]
    assert [call.error for call in trace.calls] == [None, None]


def test_an_error_within_a_preview_is_noted() -> None:
    def previews() -> Any:
        yield STATE
        raise RuntimeError("late")

    trace = run(toy_model(entry=previews), lambda m, r: m.entry(), entry="entry")
    assert str(trace.error) == "late"
    assert trace.calls[0].error is trace.error


def test_a_generator_without_previews_has_no_result() -> None:
    trace = run(toy_model(), lambda model, request: (x for x in ()))
    assert (trace.result, trace.error) == (None, None)


def test_an_error_is_noted_where_it_left_a_call_and_as_the_end_of_the_run() -> None:
    def breaks(x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        raise ValueError("no")

    trace = run(toy_model(velocity=breaks), _loop)
    assert str(trace.error) == "no"
    assert trace.calls[0].error is trace.error
    assert trace.result is None


def test_mismatches_are_noted_and_not_raised() -> None:
    def generate(model: Any, request: Any) -> torch.Tensor:
        return model.velocity(STATE, TIMES[:, None].double())

    call = run(toy_model(), generate).calls[0]
    assert [(m.tensor, m.aspect) for m in call.mismatches] == [("velocity.time", "rank")]
    assert call.devices == {"velocity.x": "cpu", "velocity.time": "cpu", "velocity.output": "cpu"}


def test_a_latent_of_another_height_in_the_second_step() -> None:
    def generate(model: Any, request: Any) -> torch.Tensor:
        model.velocity(STATE, TIMES)
        return model.velocity(STATE[:, :, :1], TIMES)

    first, second = run(toy_model(), generate).calls
    assert first.mismatches == []
    assert [str(m) for m in second.mismatches] == [
        "velocity.x: wrong shape: expected Float[N,C=2,h=2,w=3], found f32[3,2,1,3] (bound so far: C=2 h=2 w=3)",
        "velocity.output: wrong shape: expected Float[N=3,C=2,h=2,w=3], found f32[3,2,1,3] "
        "(bound so far: C=2 h=2 w=3 N=3)",
    ]


# Randomness.

SOURCES = {
    "torch": lambda request: torch.randn(1),
    "caller": lambda request: torch.randn(1, generator=request.generator),
    "python": lambda request: random.random(),
    "numpy": lambda request: draw_numpy(),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("place", "where", "last"),
    [
        ("before", "before the first observed call, before velocity[0]", None),
        ("inside", "inside velocity[0]", "velocity[0]"),
        ("between", "after velocity[0], before velocity[1]", "velocity[0]"),
        ("after", "after velocity[1]", "velocity[1]"),
    ],
)
def test_draws_are_noticed_and_attributed(source: str, place: str, where: str, last: str | None) -> None:
    def at(here: str, request: Any) -> None:
        if here == place:
            SOURCES[source](request)

    def generate(model: Any, request: Any) -> torch.Tensor:
        at("before", request)
        inside = iter([True, False])
        model.velocity = lambda x, time: (at("inside", request) if next(inside) else None, x)[1]
        x = model.call(STATE, TIMES)
        at("between", request)
        x = model.call(x, TIMES)
        at("after", request)
        return x

    model = toy_model()
    model.call = lambda x, time: model.velocity(x, time)
    trace = run(model, generate, velocity="call")
    assert [(d.source, d.where, d.last_call) for d in trace.draws] == [(source, where, last)]
    assert trace.rng_changes == ([] if source == "caller" else [source])


def test_draws_after_the_last_inner_call_belong_to_it() -> None:
    model = toy_model()

    def entry(request: Any) -> torch.Tensor:
        x = model.velocity(STATE, TIMES)
        return x + torch.randn(1)

    model.entry = entry
    trace = run(model, lambda m, request: m.entry(request), entry="entry")
    assert [(d.where, d.last_call) for d in trace.draws] == [("after velocity[0], inside generate[0]", "velocity[0]")]


def test_disturbing_the_global_generators_is_no_draw() -> None:
    trace = run(toy_model(), _loop, disturb_rng=5)
    assert trace.draws == []
    assert trace.rng_changes == []


def test_disturbed_generators_differ_from_the_undisturbed_ones() -> None:
    def generate(model: Any, request: Any) -> torch.Tensor:
        return torch.stack([torch.rand(()), torch.tensor(random.random()), torch.tensor(draw_numpy())])

    plain, again = run(toy_model(), generate).result, run(toy_model(), generate).result
    disturbed = run(toy_model(), generate, disturb_rng=5).result
    assert torch.equal(plain, again), "every run starts from the state as found"
    assert not (plain == disturbed).any()


def test_a_thread_that_calls_a_point_is_noted_too() -> None:
    def generate(model: Any, request: Any) -> torch.Tensor:
        thread = threading.Thread(target=model.velocity, args=(STATE, TIMES))
        thread.start()
        thread.join()
        return STATE

    assert [call.name for call in run(toy_model(), generate).calls] == ["velocity[0]"]


# Births.


def test_parameters_and_buffers_born_anywhere_are_named() -> None:
    def generate(model: Any, request: Any) -> torch.Tensor:
        model.net.late = nn.Linear(2, 3)
        nn.LayerNorm(4, bias=False)
        model.net.register_buffer("table", torch.zeros(5))
        model.net.register_buffer("nothing", None)
        model.net.weight = nn.Parameter(torch.ones(7))
        return STATE

    model = toy_model(net=nn.Linear(1, 1))
    assert run(model, generate).born == [
        "Linear.weight [3, 2]",
        "Linear.bias [3]",
        "LayerNorm.weight [4]",
        "Linear.table [5]",
        "Linear.weight [7]",
    ]


def test_a_cache_in_a_registered_buffer_is_no_birth() -> None:
    model = toy_model(net=nn.BatchNorm1d(2))

    def generate(model: Any, request: Any) -> torch.Tensor:
        model.net.running_mean = torch.ones(2)
        return STATE

    trace = run(model, generate)
    assert trace.born == []
    assert trace.model_changes == ["net.running_mean changed its values"]


# Modes.


@pytest.mark.parametrize(
    ("layer", "acts"),
    [(nn.Dropout(0.5), True), (nn.Dropout(0.0), False), (nn.BatchNorm2d(2), True), (nn.LayerNorm(2), False)],
    ids=["dropout", "dropout of nothing", "batch norm", "layer norm"],
)
def test_layers_that_act_in_train_mode(layer: nn.Module, acts: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def velocity(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            return x

    model = toy_model(net=Net().train(), call=None)

    def generate(model: Any, request: Any) -> torch.Tensor:
        model.net.velocity(STATE, TIMES)
        model.net.eval()
        return model.net.velocity(STATE, TIMES)

    first, second = run(model, generate, velocity="net.velocity").calls
    assert (first.training, first.dropout) == (True, acts)
    assert (second.training, second.dropout) == (False, False)
    assert model.net.training, "put back as found"


def test_grad_recording_is_noted() -> None:
    def generate(model: Any, request: Any) -> torch.Tensor:
        model.velocity(STATE, TIMES)
        with torch.no_grad():
            return model.velocity(STATE, TIMES)

    assert [call.grad for call in run(toy_model(), generate).calls] == [True, False]


# Disturbances.


def test_a_fault_reaches_the_loop_and_can_be_swallowed_there() -> None:
    trace = run(toy_model(), _loop, disturbances=(raise_in("velocity"),))
    assert isinstance(trace.error, InjectedFault)
    assert trace.calls[0].error is trace.error
    assert trace.disturbed

    def swallows(model: Any, request: Any) -> torch.Tensor:
        try:
            return _loop(model, request)
        except RuntimeError:
            return STATE

    trace = run(toy_model(), swallows, disturbances=(raise_in("velocity"),))
    assert trace.error is None
    assert isinstance(trace.calls[0].error, InjectedFault)


def test_an_output_is_changed_for_the_loop_and_in_the_trace() -> None:
    seen: list[dict] = []

    def negate(inputs: dict, v: torch.Tensor) -> torch.Tensor:
        seen.append(inputs)
        return -v

    trace = run(toy_model(), _loop, disturbances=(change_output("negated", "velocity", negate),))
    assert torch.equal(trace.result, STATE * 0.25)
    assert torch.equal(trace.calls[0].output, STATE * -0.5)
    assert list(seen[0]) == ["x", "time", "null"]


def test_an_input_is_changed_for_the_network_and_the_trace_holds_what_the_loop_passed() -> None:
    change = change_input("time + 1", "velocity", lambda inputs: {"time": inputs["time"] + 1})
    trace = run(toy_model(), _loop, disturbances=(change,))
    assert torch.equal(trace.result, STATE * 2.5**2)
    assert torch.equal(trace.calls[0].inputs["time"], TIMES)
    assert trace.calls[0].mutated == [], "exchanging an input is not changing it in place"


def test_an_argument_of_the_entry_is_changed_even_where_the_subject_left_it_at_its_default() -> None:
    model = toy_model(entry=lambda scale, *, offset=0.0: STATE * scale + offset)
    for name, expected in (("scale", STATE * 3), ("offset", STATE * 2 + 3)):
        change = change_argument(f"{name} = 3", name, 3)
        trace = run(model, lambda m, request: m.entry(2), entry="entry", disturbances=(change,))
        assert torch.equal(trace.result, expected)


@pytest.mark.parametrize("swallows", [False, True])
def test_an_argument_that_the_entry_does_not_have(swallows: bool) -> None:
    def generate(model: Any, request: Any) -> Any:
        try:
            return model.entry()
        except Exception:
            if not swallows:
                raise
            return STATE

    model, change = toy_model(entry=lambda: STATE), change_argument("x", "steps", 1)
    with pytest.raises(NotInformative, match="argument 'steps' was not passed"):
        run(model, generate, entry="entry", disturbances=(change,))


def test_disturbances_leave_other_roles_alone_and_compare_by_name() -> None:
    assert run(toy_model(), _loop, disturbances=(raise_in("decode"),)).error is None
    assert change_output("a", "velocity", lambda i, v: v) == change_output("a", "velocity", lambda i, v: -v)
    assert change_output("a", "velocity", lambda i, v: v) != change_output("b", "velocity", lambda i, v: v)
    assert Disturbance("a", "velocity") != Disturbance("a", "decode")


def test_two_recorders_nested() -> None:
    model, inner = toy_model(), []

    def outer(model: Any, request: Any) -> torch.Tensor:
        inner.append(run(model, _loop))
        return _loop(model, request)

    before = dict(vars(model))
    trace = run(model, outer)
    assert vars(model) == before
    assert len(inner[0].calls) == 2
    assert [call.name for call in trace.calls] == [f"velocity[{i}]" for i in range(4)]


def test_a_model_that_copies_itself_runs_its_copy() -> None:
    import copy

    net = nn.Conv2d(2, 2, 1)

    def generate(model: Any, request: Any) -> torch.Tensor:
        twin = copy.deepcopy(model.net)
        nn.init.zeros_(twin.weight)
        nn.init.zeros_(twin.bias)
        return twin(STATE)

    trace = run(SimpleNamespace(net=net), generate, velocity=Point("net", {"time": None}))
    assert torch.equal(trace.result, torch.zeros(3, 2, 2, 3))
    assert trace.calls == []
