"""Recording changes nothing: not one bit of a result, no generator, no setting, no entry of the model, ever."""

import os
import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from fmcheck.record.recorder import record
from fmcheck.record.watch import settings
from fmcheck.subject import Request
from fmcheck.subjects.tiny import subject as tiny
from tests.record.conftest import STATE, TIMES, draw_numpy, run, toy_model


def _picture(model: nn.Module) -> list:
    entries = [
        [(key, id(value)) for key, value in vars(module).items() if not key.startswith("_")]
        for module in model.modules()
    ]
    return [*entries, [(n, p.requires_grad, p._version) for n, p in model.named_parameters()]]


@pytest.mark.parametrize("dtype", tiny.dtypes)
@pytest.mark.parametrize("size", [(64, 96), (256, 256)])
def test_not_one_bit_of_the_tiny_models_result_changes(dtype: str, size: tuple[int, int]) -> None:
    case = tiny.case.but(num_steps=2, dtype=dtype, height=size[0], width=size[1])
    model = tiny.build(case)
    inputs = tiny.tokenize(model, list(case.prompts))
    before = _picture(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bare = tiny.generate(model, Request(case, inputs, torch.Generator().manual_seed(case.seed)))
    trace = record(model, tiny, case, inputs=inputs)
    assert trace.error is None
    assert torch.equal(trace.result, bare)
    assert trace.result.dtype == bare.dtype
    assert (trace.model_changes, trace.input_changes, trace.process_changes, trace.rng_changes) == ([], [], [], [])
    assert not any(call.mismatches for call in trace.calls)
    assert _picture(model) == before


def test_not_one_bit_of_the_tiny_models_loss_changes(tiny_model: Any) -> None:
    case = tiny.case.with_batch(4).but(height=64, width=64)
    inputs = tiny.tokenize(tiny_model, list(case.prompts))
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bare = tiny.loss(tiny_model, Request(case, inputs, torch.Generator().manual_seed(case.seed), images))
    trace = record(tiny_model, tiny, case, kind="loss", inputs=inputs, images=images)
    assert trace.error is None
    assert torch.equal(trace.result, bare)
    assert torch.equal(trace.images, images)


def _draws_everywhere(model: Any, request: Any) -> torch.Tensor:
    random.random()
    draw_numpy()
    torch.randn(3)
    return model.velocity(STATE, TIMES)


@pytest.mark.parametrize("disturb", [None, 7])
def test_global_generators_are_where_they_were(global_state: Callable[[], tuple], disturb: int | None) -> None:
    before = global_state()
    trace = run(toy_model(), _draws_everywhere, disturb_rng=disturb)
    assert trace.rng_changes == ["torch", "python", "numpy"]
    assert global_state() == before


CHANGES: dict[str, Callable[[], Any]] = {
    "grad mode": lambda: torch.set_grad_enabled(False),
    "default dtype": lambda: torch.set_default_dtype(torch.float64),
    "default device": lambda: torch.set_default_device("meta"),
    "deterministic algorithms": lambda: torch.set_deterministic_debug_mode("warn"),
    "threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "autocast": lambda: torch.set_autocast_enabled("cpu", True),
    "float32 matmul precision": lambda: torch.set_float32_matmul_precision("medium"),
    "cudnn benchmark": lambda: setattr(torch.backends.cudnn, "benchmark", not torch.backends.cudnn.benchmark),
    "cudnn deterministic": lambda: setattr(
        torch.backends.cudnn, "deterministic", not torch.backends.cudnn.deterministic
    ),
    "working directory": lambda: os.chdir("/"),
    "environment": lambda: os.environ.update(FMCHECK_TEST="1"),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("ends_in", ["a result", "an error"])
def test_process_settings_are_put_back_and_reported(name: str, ends_in: str) -> None:
    before = settings()

    def generate(model: Any, request: Any) -> torch.Tensor:
        CHANGES[name]()
        if ends_in == "an error":
            raise ValueError
        return STATE

    trace = run(toy_model(), generate)
    assert trace.process_changes == [name]
    assert settings() == before


def test_warnings_are_noted_whatever_the_filters_and_the_filters_stay() -> None:
    def generate(model: Any, request: Any) -> torch.Tensor:
        for _ in range(2):
            warnings.warn("the same twice", UserWarning, stacklevel=1)
        warnings.simplefilter("ignore")
        return STATE

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = list(warnings.filters)
        trace = run(toy_model(), generate)
        assert warnings.filters == before
    assert trace.warnings == ["the same twice", "the same twice"]
    assert trace.error is None


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, ValueError])
def test_whatever_ends_a_run_everything_is_put_back(interrupt: type, global_state: Callable[[], tuple]) -> None:
    net = nn.Conv2d(2, 2, 1)
    model = toy_model(velocity=net)
    weight, before, picture = net.weight.detach().clone(), global_state(), _picture(net)
    process, filters = settings(), list(warnings.filters)

    def generate(model: Any, request: Any) -> torch.Tensor:
        torch.randn(1)
        random.random()
        draw_numpy()
        torch.set_grad_enabled(False)
        warnings.simplefilter("error")
        model.velocity.weight.data.zero_()
        model.velocity.train(False)
        model.velocity(STATE)
        raise interrupt

    if interrupt is ValueError:
        assert isinstance(run(model, generate).error, ValueError)
    else:
        with pytest.raises(interrupt):
            run(model, generate)
    assert global_state() == before
    assert (settings(), warnings.filters) == (process, filters)
    assert torch.equal(net.weight, weight)
    assert net.training
    assert _picture(net)[:-1] == picture[:-1]


def test_inputs_that_the_run_changes_are_named() -> None:
    inputs = {"ids": torch.zeros(2), "mask": torch.zeros(2), "text": "a"}

    def generate(model: Any, request: Any) -> torch.Tensor:
        request.inputs["ids"].add_(1)
        return STATE

    assert run(toy_model(), generate, inputs=inputs).input_changes == ["ids"]
    assert run(toy_model(), lambda m, r: r.inputs.clear() or STATE, inputs=inputs).input_changes == ["ids", "mask"]
