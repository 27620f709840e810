"""FM7, randomness and arguments: seeds, generators and arguments that do not do what they say."""

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fmcheck.mutants.calls import act_before, change_arguments
from fmcheck.mutants.loop import Loop
from fmcheck.mutants.registry import mutant, subject_mutant
from fmcheck.mutants.surgery import bind, wrap
from fmcheck.subject import Request, Subject
from fmcheck.tiny import TinyFlowModel

# FM705 seed-ignored


@mutant("FM705")
def always_seed_zero(model: TinyFlowModel) -> None:
    """The caller's generator is replaced by one with a fixed seed."""
    change_arguments(model, lambda given: {"generator": torch.Generator().manual_seed(0)})


@mutant("FM705")
def text_latent_without_noise(model: TinyFlowModel) -> None:
    """The text latent is its mean, so the generator is never used."""
    bind(model.text_encoder, "reparametrise", lambda _, mu, log_var, generator: mu)


@mutant("FM705")
def result_cached_by_shape(model: TinyFlowModel) -> None:
    """The first result of every shape is returned for all later calls of that shape."""
    kept: dict[Any, Tensor] = {}

    def cached(generate: Any, **given: Any) -> Tensor:
        key = len(given["input_ids"]), given["height"], given["width"]
        if key not in kept:
            kept[key] = generate(**given)
        return kept[key].clone()

    wrap(model, "generate", cached)


# FM706 foreign-randomness


@mutant("FM706")
def noise_from_the_global_generator(model: TinyFlowModel) -> None:
    """The text latent's noise comes from torch's global generator."""
    bind(
        model.text_encoder,
        "reparametrise",
        lambda _, mu, log_var, generator: mu + torch.exp(log_var / 2) * torch.randn_like(mu),
    )


@mutant("FM706")
def numpy_noise_on_the_start(model: TinyFlowModel) -> None:
    """A little NumPy noise is added to the initial state."""
    Loop(start=lambda x: x + 0.01 * x.new_tensor(np.random.randn(*x.shape))).install(model)  # noqa: NPY002


@mutant("FM706")
def generator_seeded_from_the_global_one(model: TinyFlowModel) -> None:
    """The noise comes from a generator that is seeded by the global one and the caller's."""

    def mixed(given: dict[str, Any]) -> dict[str, Any]:
        seed = given["generator"].initial_seed() + int(torch.randint(2**31, ()))
        return {"generator": torch.Generator().manual_seed(seed)}

    change_arguments(model, mixed)


# FM707 global-rng-touched


@mutant("FM707")
def global_generator_seeded(model: TinyFlowModel) -> None:
    """`generate` begins with `torch.manual_seed`, which makes every later draw of the script the same."""
    act_before(model, lambda: torch.manual_seed(0))


@mutant("FM707")
def python_random_drawn(model: TinyFlowModel) -> None:
    """`generate` draws a name for its log from Python's global generator."""
    act_before(model, lambda: random.random())


@mutant("FM707")
def numpy_seeded(model: TinyFlowModel) -> None:
    """`generate` seeds NumPy's global generator."""
    act_before(model, lambda: np.random.seed(0))  # noqa: NPY002


# FM708 dead-argument


@subject_mutant("FM708")
def temperature_without_effect(subject: Subject) -> Subject:
    """`generate` has an argument `temperature` that nothing reads."""

    def build(case: Any) -> Any:
        model = subject.build(case)
        inner = model.generate

        def generate(
            self: Any,
            input_ids: Tensor,
            attention_mask: Tensor,
            cfg_scale: float,
            num_steps: int,
            generator: torch.Generator,
            height: int,
            width: int,
            temperature: float = 1.0,
        ) -> Any:
            return inner(input_ids, attention_mask, cfg_scale, num_steps, generator, height, width)

        bind(model, "generate", generate)
        return model

    def drive(model: Any, request: Request) -> Any:
        case = request.case
        rest = {"generator": request.generator, "height": case.height, "width": case.width, "temperature": 1.0}
        return model.generate(**request.inputs, cfg_scale=case.guidance_scale, num_steps=case.num_steps, **rest)

    return subject.but(name="tiny with temperature_without_effect", build=build, generate=drive)


@mutant("FM708")
def scale_capped_below_the_native_one(model: TinyFlowModel) -> None:
    """Every positive guidance scale means 2.5."""
    change_arguments(model, lambda given: {"cfg_scale": 2.5 if given["cfg_scale"] > 0 else given["cfg_scale"]})
