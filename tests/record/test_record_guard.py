"""`fmcheck.wrap`: a wrapped model fails at the offending call, says what came and why, and is otherwise itself."""

import copy
import gc
import pickle
import threading
import timeit
import warnings
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import jaxtyping
import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

import fmcheck
from fmcheck.errors import DeclarationError, TensorMismatch
from fmcheck.record.guard import Guard, wrap
from fmcheck.record.recorder import record
from fmcheck.spec import FlowSpec
from fmcheck.subject import Point, Request
from fmcheck.subjects.tiny import subject as tiny
from fmcheck.tiny import build

CASE = tiny.case.with_batch(2).but(num_steps=3, height=128, width=256)


class Net(nn.Module):
    """Velocity network of a made-up code base."""

    def forward(self, x: Tensor, log_snr: Tensor, null: Tensor | None = None) -> Tensor:
        return x * 0.5


class Pipeline:
    """Three steps; `before(step, x, log_snr, null)` may spoil what the network is handed."""

    def __init__(self) -> None:
        self.net = Net()
        self.before = lambda step, *tensors: tensors

    def generate(self, prompts: list[str], height: int = 8, width: int = 12) -> Tensor:
        x = torch.zeros(len(prompts), 4, height // 2, width // 2)
        for step in range(3):
            rows = 2 * len(x)
            tensors = torch.cat([x, x]), torch.zeros(rows), torch.arange(rows) >= len(x)
            v = self.net(*self.before(step, *tensors))
            x = x + v[: len(x)]
        return self.decode(x)

    def decode(self, x: Tensor) -> Tensor:
        return x[:, :3].repeat_interleave(2, 2).repeat_interleave(2, 3)

    def previews(self, prompts: list[str]) -> Any:
        x = torch.zeros(len(prompts), 4, 4, 6)
        for step in range(3):
            x = x + self.net(*self.before(step, x, torch.zeros(len(x)), None))
            yield x

    def loss(self, x: Tensor) -> Tensor:
        return self.net(x, torch.zeros(len(x))).mean()


SPEC = FlowSpec(latent_channels=4, downsampling=2)
PLACES: dict[str, Any] = {"entry": "generate", "velocity": "net", "decode": "decode"}


def guarded(**changes: Any) -> tuple[Pipeline, Guard]:
    pipeline = Pipeline()
    return pipeline, wrap(pipeline, **{"spec": SPEC, **PLACES, **changes})


def failure(before: Any, **changes: Any) -> str:
    """The message of the run that `before` spoils, generate() of 8 x 12 pixels for two prompts."""
    pipeline, _ = guarded(**changes)
    pipeline.before = before
    with pytest.raises(TensorMismatch) as caught:
        pipeline.generate(["a", "b"])
    return str(caught.value)


SLIPS = {
    "log_snr [2B, 1]": (
        lambda k, x, t, n: (x, t[:, None], n),
        "velocity.time of net: wrong rank in velocity[0] of generate\n"
        "  expected  Float32[N=4]\n"
        "  found     f32[4,1]\n"
        "  bound     N=4 by velocity.x of this call\n"
        "  cause     pass a 1-D tensor: log_snr.flatten()",
    ),
    "one time for all rows": (
        lambda k, x, t, n: (x, t[0], n),
        "velocity.time of net: wrong rank in velocity[0] of generate\n"
        "  expected  Float32[N=4]\n"
        "  found     f32[]\n"
        "  bound     N=4 by velocity.x of this call\n"
        "  cause     pass one entry a row: log_snr.expand(4)",
    ),
    "a number for the time": (
        lambda k, x, t, n: (x, 0.5, n),
        "velocity.time of net: wrong type in velocity[0] of generate\n"
        "  expected  Float32[N=4]\n"
        "  found     float\n"
        "  cause     pass one entry a row: torch.full((4,), log_snr, device=x.device)",
    ),
    "B times for 2B rows": (
        lambda k, x, t, n: (x, t[:2], n),
        "velocity.time of net: wrong shape in velocity[0] of generate\n"
        "  expected  Float32[N=4]\n"
        "  found     f32[2]\n"
        "  bound     N=4 by velocity.x of this call\n"
        "  cause     x holds both guidance halves, log_snr only one: torch.cat([log_snr, log_snr])",
    ),
    "2B flags for B rows": (
        lambda k, x, t, n: (x[:2], t[:2], n),
        "velocity.null of net: wrong shape in velocity[0] of generate\n"
        "  expected  Bool[N=2]\n"
        "  found     bool[4]\n"
        "  bound     N=2 by velocity.x of this call\n"
        "  cause     null has the rows of both guidance halves, x of one",
    ),
    "float64 time": (
        lambda k, x, t, n: (x, t.double(), n),
        "velocity.time of net: wrong dtype in velocity[0] of generate\n"
        "  expected  Float32[N=4]\n"
        "  found     f64[4]\n"
        "  cause     float64 usually comes in with a NumPy array or a Python scalar: log_snr.float()",
    ),
    "bfloat16 time": (
        lambda k, x, t, n: (x, t.bfloat16(), n),
        "velocity.time of net: wrong dtype in velocity[0] of generate\n"
        "  expected  Float32[N=4]\n"
        "  found     bf16[4]\n"
        "  cause     bfloat16 does not keep neighbouring times apart: compute log_snr in float32, outside autocast",
    ),
    "flags as numbers": (
        lambda k, x, t, n: (x, t, n.float()),
        "velocity.null of net: wrong dtype in velocity[0] of generate\n"
        "  expected  Bool[N=4]\n"
        "  found     f32[4]\n"
        "  cause     pass a mask: null.bool()",
    ),
    "integer state": (
        lambda k, x, t, n: (x.long(), t, n),
        "velocity.x of net: wrong dtype in velocity[0] of generate\n"
        "  expected  Float[N,C=4,h=4,w=6]\n"
        "  found     i64[4,4,4,6]\n"
        "  cause     pass floating numbers: x.float()",
    ),
    "height and width swapped": (
        lambda k, x, t, n: (x.transpose(2, 3), t, n),
        "velocity.x of net: wrong shape in velocity[0] of generate\n"
        "  expected  Float[N,C=4,h=4,w=6]\n"
        "  found     f32[4,4,6,4]\n"
        "  bound     C=4 by the spec; h=4 by argument height of generate; w=6 by argument width of generate\n"
        "  cause     height and width are swapped",
    ),
    "channels last": (
        lambda k, x, t, n: (x.movedim(1, -1), t, n),
        "velocity.x of net: wrong shape in velocity[0] of generate\n"
        "  expected  Float[N,C=4,h=4,w=6]\n"
        "  found     f32[4,4,6,4]\n"
        "  bound     C=4 by the spec; h=4 by argument height of generate; w=6 by argument width of generate\n"
        "  cause     height and width are swapped",
    ),
    "a picture for a latent": (
        lambda k, x, t, n: (torch.zeros(4, 3, 8, 12), t, n),
        "velocity.x of net: wrong shape in velocity[0] of generate\n"
        "  expected  Float[N,C=4,h=4,w=6]\n"
        "  found     f32[4,3,8,12]\n"
        "  bound     C=4 by the spec; h=4 by argument height of generate; w=6 by argument width of generate\n"
        "  cause     this is a picture and not a latent; encode it first",
    ),
    "another device": (
        lambda k, x, t, n: (x, t.to("meta"), n),
        "velocity.time of net: wrong device in velocity[0] of generate\n"
        "  expected  cpu\n"
        "  found     meta (f32[4] on meta)\n"
        "  cause     move it first: log_snr.to(x.device)",
    ),
    "another height in step 3": (
        lambda k, x, t, n: (x[:, :, : 4 - (k == 2)], t, n),
        "velocity.x of net: wrong shape in velocity[2] of generate\n"
        "  expected  Float[N,C=4,h=4,w=6]\n"
        "  found     f32[4,4,3,6]\n"
        "  bound     C=4 by the spec; h=4 by argument height of generate; w=6 by argument width of generate\n"
        "  cause     another size than the rest of this run; nothing between two calls may crop, pad or resize",
    ),
}


@pytest.mark.parametrize("name", SLIPS)
def test_messages_name_the_tensor_the_sizes_and_the_cause(name: str) -> None:
    before, message = SLIPS[name]
    assert failure(before) == message


def test_channels_last_and_undecoded_latents_are_recognised() -> None:
    pipeline, _ = guarded(spec=FlowSpec(latent_channels=5, downsampling=2))
    pipeline.before = lambda k, x, t, n: (torch.zeros(2, 4, 6, 5), t, n)
    with pytest.raises(TensorMismatch, match=r"the channels are the last axis: x\.movedim\(-1, 1\)"):
        pipeline.generate(["a"])
    pipeline, _ = guarded(decode=None)
    pipeline.decode = lambda x: x
    with pytest.raises(TensorMismatch, match="this is a latent and not a picture; decode it first"):
        pipeline.generate(["a"])


def test_without_spec_and_arguments_the_first_call_binds_the_sizes() -> None:
    message = failure(
        lambda k, x, t, n: (x[:, :, : 4 - (k == 2)], t, n),
        spec=None,
        entry=Point("generate", {"height": None, "width": None}),
    )
    assert "bound     C=4 h=4 w=6 by velocity.x of velocity[0]" in message


def test_other_arguments_can_be_named_for_the_size_and_the_batch() -> None:
    pipeline = SimpleNamespace(net=Net())
    pipeline.run = lambda texts, size: pipeline.net(torch.zeros(4, 4, size // 2, size // 2), torch.zeros(4))
    entry = Point("run", {"height": "size", "width": "size", "prompts": "texts"})
    images = {"generate.output": Float[Tensor, "B C h w"]}
    with (
        wrap(pipeline, spec=SPEC, velocity="net", entry=entry, annotations=images),
        pytest.raises(TensorMismatch) as caught,
    ):
        pipeline.run(["a", "b"], 8)
    assert str(caught.value) == (
        "generate.output of run: wrong shape in generate[0] of run\n"
        "  expected  Float[B=2,C=4,h=4,w=4]\n"
        "  found     f32[4,4,4,4]\n"
        "  bound     B=2 by argument texts of run; C=4 by the spec; h=4 by argument height of run; "
        "w=4 by argument width of run\n"
        "  cause     both guidance halves were decoded; decode the conditional state alone"
    )


def test_the_output_is_checked_after_the_call() -> None:
    calls = []
    model = SimpleNamespace(net=lambda x, log_snr: (calls.append(len(x)), x[:1])[1])
    wrap(model, spec=SPEC, velocity="net")
    with pytest.raises(TensorMismatch) as caught:
        model.net(torch.zeros(2, 4, 4, 6), torch.zeros(2))
    assert calls == [2]
    assert str(caught.value) == (
        "velocity.output of net: wrong shape\n  expected  Float[N=2,C=4,h,w]\n".replace("h,w", "h=4,w=6")
        + "  found     f32[1,4,4,6]\n"
        "  bound     N=2 h=4 w=6 by velocity.x of this call; C=4 by the spec\n"
        "  cause     the rows of one guidance half are missing in what was returned"
    )


def test_a_call_that_returns_no_tensor() -> None:
    model = SimpleNamespace(net=lambda x, t: {"sample": [x]})
    wrap(model, velocity="net")
    with pytest.raises(TensorMismatch, match=r"found     NoneType\n.*say where the tensor is .*Point\(output=\.\.\.\)"):
        model.net(torch.zeros(2, 4, 4, 6), torch.zeros(2))


def test_outside_an_entry_every_call_stands_alone() -> None:
    pipeline, _ = guarded()
    for size in (4, 6):
        pipeline.net(torch.zeros(2, 4, size, size), torch.zeros(2))
    for size in (8, 16):
        pipeline.generate(["a"], size, size)


def test_sizes_are_forgotten_after_a_run_that_failed() -> None:
    pipeline, _ = guarded(entry=Point("generate", {"height": None, "width": None}))
    pipeline.before = lambda k, x, t, n: (x, t[:1], n)
    with pytest.raises(TensorMismatch):
        pipeline.generate(["a"], 8, 8)
    pipeline.before = lambda k, *tensors: tensors
    pipeline.generate(["a"], 16, 16)


def test_previews_are_one_run_however_slowly_they_are_taken() -> None:
    pipeline, _ = guarded(entry="previews", decode=None, spec=None)
    pipeline.before = lambda k, x, t, n: (x[:, :, : 4 - (k == 2)], t, n)
    first, second = pipeline.previews(["a"]), pipeline.previews(["a", "b"])
    for generator in (first, second, first, second):
        next(generator)
    pipeline.net(torch.zeros(1, 4, 9, 9), torch.zeros(1))
    with pytest.raises(TensorMismatch, match="h=4"):
        next(first)


def test_two_threads_do_not_bind_for_each_other() -> None:
    pipeline, _ = guarded()
    barrier, errors = threading.Barrier(2, timeout=20), []

    def meet(step: int, *tensors: Any) -> tuple:
        barrier.wait()
        return tensors

    pipeline.before = meet

    def work(size: int) -> None:
        try:
            pipeline.generate(["a"], size, size)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(size,)) for size in (8, 16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_the_loss_is_a_run_too() -> None:
    pipeline, _ = guarded(entry=None, decode=None, loss_entry="loss")
    assert pipeline.loss(torch.ones(2, 4, 4, 6)) == 0.5
    with pytest.raises(TensorMismatch, match=r"wrong rank in velocity\[0\] of loss"):
        pipeline.loss(torch.ones(2, 4, 4))


def test_a_users_own_jaxtyped_functions_are_undisturbed() -> None:
    pipeline, _ = guarded()

    @jaxtyping.jaxtyped(typechecker=None)
    def own(x: Any) -> tuple[bool, bool]:
        fits = isinstance(x, Float[Tensor, "N C h w"])
        pipeline.net(torch.zeros(2, 4, 4, 6), torch.zeros(2))
        return fits, isinstance(torch.zeros(1, 7, 9, 9), Float[Tensor, "N C h w"])

    assert own(torch.zeros(3, 5, 2, 2)) == (True, False), "its own bindings hold, and only they"

    @jaxtyping.jaxtyped(typechecker=None)
    def network(x: Tensor, log_snr: Tensor) -> Tensor:
        assert isinstance(torch.zeros(9, 9, 9), Float[Tensor, "C h w"]), "sees nothing of the sizes bound so far"
        return x

    model = SimpleNamespace(net=network)
    wrap(model, spec=SPEC, velocity="net")
    model.net(torch.zeros(2, 4, 4, 6), torch.zeros(2))


# What it costs and leaves.


def _generate(model: Any, dtype: str = "float32") -> Tensor:
    inputs = tiny.tokenize(model, list(CASE.prompts))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tiny.generate(model, Request(CASE, inputs, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("dtype", tiny.dtypes)
def test_not_one_bit_of_a_result_changes(dtype: str) -> None:
    model = tiny.build(CASE.but(dtype=dtype))
    bare = _generate(model)
    before = [list(vars(module)) for module in model.modules()]
    with wrap(model, tiny) as guard:
        assert guard.active
        assert torch.equal(_generate(model), bare)
    assert not guard.active
    assert [list(vars(module)) for module in model.modules()] == before
    guard.remove()


def test_recorder_and_guard_go_together() -> None:
    model = build()
    case = CASE.but(height=64, width=64)
    inputs = tiny.tokenize(model, list(case.prompts))
    bare = record(model, tiny, case, inputs=inputs)
    with wrap(model, tiny):
        both = record(model, tiny, case, inputs=inputs)
        assert both.error is None
        assert torch.equal(both.result, bare.result)
        assert [c.name for c in both.calls] == [c.name for c in bare.calls]
    assert "generate" not in vars(model)


def test_no_tensor_is_kept_alive() -> None:
    pipeline, _ = guarded()
    seen: list[weakref.ref] = []
    pipeline.before = lambda k, *tensors: (seen.extend(map(weakref.ref, tensors)), tensors)[1]
    result = weakref.ref(pipeline.generate(["a"]))
    gc.collect()
    assert result() is None
    assert len(seen) == 9
    assert all(ref() is None for ref in seen)


def test_a_guarded_model_can_be_copied_and_pickled_and_the_copies_are_free() -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 1))
    wrap(net, velocity=Point("0", {"time": None, "null": None}))
    for duplicate in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        nn.init.zeros_(duplicate[0].weight)
        nn.init.zeros_(duplicate[0].bias)
        assert torch.equal(duplicate(torch.ones(1, 4, 2, 2)), torch.zeros(1, 4, 2, 2))
        assert duplicate(torch.ones(4, 2, 2)).shape == (4, 2, 2), "unguarded"
        assert duplicate.state_dict().keys() == net.state_dict().keys()
    with pytest.raises(TensorMismatch):
        net(torch.ones(4, 2, 2))


def test_wrapping_twice_is_refused_and_leaves_the_first_guard() -> None:
    pipeline, guard = guarded()
    with pytest.raises(DeclarationError) as caught:
        wrap(pipeline, velocity="net")
    assert str(caught.value) == "wrap: net is guarded already; remove the first guard with remove()"
    with pytest.raises(TensorMismatch):
        pipeline.net(torch.zeros(2, 4, 4, 6), torch.zeros(3))
    guard.remove()
    with wrap(pipeline, velocity="net"):
        pass
    pipeline.net(torch.zeros(2, 4, 4, 6), torch.zeros(3))


def test_different_places_may_have_different_guards() -> None:
    pipeline, _ = guarded(velocity=None)
    wrap(pipeline, velocity="net")
    pipeline.generate(["a"])
    with pytest.raises(TensorMismatch):
        pipeline.net(torch.zeros(2, 4, 4, 6), torch.zeros(3))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "wrap: names no observation point; give a Subject or dotted paths such as velocity='net'"),
        ({"velocity": "nets"}, "observation point 'nets': Pipeline has no 'nets'; did you mean 'net'?"),
        ({"velocity": 3}, "wrap, velocity: expected a dotted path or a Point; found int"),
        (
            {"velocity": "net", "decode": Point("decode", {"y": 0})},
            "wrap, decode: unknown argument 'y'",
        ),
        ({"velocity": "net", "annotations": {"velocity.xx": Float}}, "annotations: unknown tensor 'velocity.xx'"),
    ],
)
def test_wrong_declarations(given: dict, message: str) -> None:
    pipeline = Pipeline()
    with pytest.raises(DeclarationError) as caught:
        wrap(pipeline, **given)
    assert str(caught.value).startswith(message)
    assert "forward" not in vars(pipeline.net)


def test_a_subject_gives_the_places_and_keywords_replace_them() -> None:
    model = build()
    with wrap(model, tiny, decode=None, velocity=Point("fm_transformers", {"time": None})):
        model.fm_transformers(torch.zeros(2, 32, 2, 2), torch.zeros(2), torch.zeros(2, dtype=torch.bool))


@pytest.fixture
def _switched_off() -> Iterator[None]:
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("_switched_off")
def test_switched_off_it_checks_nothing_and_costs_next_to_nothing() -> None:
    pipeline, _ = guarded()
    wrong = torch.zeros(2, 4, 4, 6), torch.zeros(3, 1)
    assert pipeline.net(*wrong).shape == (2, 4, 4, 6)
    per_call = timeit.timeit(lambda: pipeline.net.forward(*wrong), number=200) / 200
    bare = timeit.timeit(lambda: Net.forward(pipeline.net, *wrong), number=200) / 200
    assert per_call - bare < 100e-6, "two function calls, measured at about a microsecond"


def test_it_is_a_public_name() -> None:
    assert fmcheck.wrap is wrap


class Recursive:
    """Calls itself: generate in two halves of the batch, decode in tiles."""

    def __init__(self) -> None:
        self.net = Net()

    def decode(self, x: Tensor) -> Tensor:
        if x.shape[-1] > 4:
            return torch.cat([self.decode(part) for part in x.chunk(2, dim=-1)], dim=-1)
        return x.repeat_interleave(32, -1).repeat_interleave(32, -2)[:, :3]

    def generate(self, prompts: list[str], height: int, width: int) -> Tensor:
        if len(prompts) > 1:
            half = len(prompts) // 2
            parts = [self.generate(part, height, width) for part in (prompts[:half], prompts[half:])]
            return torch.cat(parts)
        x = torch.zeros(len(prompts), 32, height // 32, width // 32)
        return self.decode(self.net(x, torch.zeros(len(x))))


def test_a_model_that_calls_itself_is_no_mismatch() -> None:
    model = Recursive()
    entry = Point("generate", {"prompts": "prompts"})
    with wrap(model, velocity="net", decode="decode", entry=entry, spec=FlowSpec()):
        assert model.generate(["a", "b"], 64, 256).shape == (2, 3, 64, 256)
        assert model.generate(["a"], 128, 128).shape == (1, 3, 128, 128)


def test_wrap_wants_a_subject_and_no_name_of_one() -> None:
    with pytest.raises(DeclarationError, match="expected a Subject as second argument; found str"):
        wrap(build(), "tiny")
