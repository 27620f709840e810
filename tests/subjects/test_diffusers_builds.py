"""Tiny builds of diffusers' pipelines: equal at every build, offline, quick, and awake in every input."""

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from fmcheck.subjects.diffusers.builds import BUILDS
from fmcheck.subjects.diffusers.builds.common import tokenizer, wake
from fmcheck.subjects.diffusers.calling import Calling
from fmcheck.subjects.diffusers.observing import Observation, listening, network_name

PIPELINES = sorted(BUILDS)


def call(pipe: Any, prompts: list[str], seed: int = 0, steps: int = 4) -> tuple[Tensor, Observation]:
    calling = Calling.of(pipe, False, {})
    with listening(pipe, network_name(pipe)) as seen:
        returned = calling(
            pipe,
            prompts,
            size=(64, 64),
            steps=steps,
            scale=3.0,
            generator=torch.Generator().manual_seed(seed),
            **({"complex_human_instruction": None} if type(pipe).__name__ == "SanaPipeline" else {}),
        )
    return calling.images(returned), seen


def test_pipelines_are_built_by_their_names() -> None:
    assert len(BUILDS) == 11
    assert all(name.endswith("Pipeline") for name in BUILDS)


@pytest.mark.parametrize("name", PIPELINES)
def test_two_builds_have_equal_weights_and_leave_the_generator_alone(name: str) -> None:
    before = torch.get_rng_state()
    first, second = BUILDS[name](), BUILDS[name]()
    assert torch.equal(before, torch.get_rng_state())
    for component, module in first.components.items():
        if isinstance(module, torch.nn.Module):
            pairs = zip(module.state_dict().values(), second.components[component].state_dict().values(), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs), component


@pytest.mark.parametrize("name", PIPELINES)
def test_a_call_of_four_steps_makes_pictures(name: str) -> None:
    pipe = BUILDS[name]()
    images, seen = call(pipe, ["a large red circle", "a small green square"])
    assert images.shape == (2, 3, 64, 64)
    assert images.isfinite().all()
    assert len(seen.steps) == 4


@pytest.mark.parametrize("name", PIPELINES)
def test_the_output_depends_on_text_time_and_state(name: str) -> None:
    pipe = BUILDS[name]()
    _, circle = call(pipe, ["a large red circle"])
    _, square = call(pipe, ["a small green square"])
    _, other = call(pipe, ["a large red circle"], seed=1)
    first, later = circle.steps[0], circle.steps[2]
    size = float(first.model_output.std())
    assert float((first.model_output - square.steps[0].model_output).abs().max()) > 1e-3 * size
    assert float((first.model_output - other.steps[0].model_output).abs().max()) > 1e-1 * size
    assert float((first.model_output - later.model_output).abs().max()) > 1e-2 * size


def test_the_tokenizer_knows_every_text() -> None:
    made = tokenizer()
    words = made("a red circle").input_ids
    assert len(words) == 5, "common words are one token each, between the two marks"
    assert made.decode(made("Zürich 上海 ☃", add_special_tokens=False).input_ids).strip() == "Zürich 上海 ☃"
    assert len(made("")["input_ids"]) == 2


def test_waking_draws_parameters_that_are_zero() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
    torch.nn.init.zeros_(network[0].weight)
    torch.nn.init.zeros_(network[0].bias)
    wake(network)
    assert all(bool(parameter.any()) for parameter in network.parameters())
