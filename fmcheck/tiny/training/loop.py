"""The loop that all stages of the training share: AdamW, cosine, EMA, checkpoints, a log."""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fmcheck.tiny.training.checkpoint import read_checkpoint, write_checkpoint

__all__ = ["Stage", "fit", "generator_of", "put", "running_of"]

WARM_UP = 50  # steps until the learning rate is whole
EMA_DECAY = 0.995
CLIP = 1.0  # norm of the gradient
CHECKPOINT_SECONDS = 30.0

# Called after every step with the stage's name, the number of steps done and of all, and the loss.
OnStep = Callable[[str, int, int, float], None]


@dataclass(frozen=True)
class Stage:
    """One stage: what is trained, how long, and on what.

    ``loss(generator)`` returns the loss of one batch and numbers for the log; everything random in it comes from the
    generator, which is a function of seed, stage and step alone, so that a resumed training sees the same batches.
    """

    name: str
    module: nn.Module
    steps: int
    learning_rate: float
    loss: Callable[[torch.Generator], tuple[Tensor, Mapping[str, Tensor]]]


def running_of(stage: Stage, folder: Path) -> Path:
    """Where the checkpoint of a stage is while it is trained."""
    return folder / f"{stage.name}-running.safetensors"


def generator_of(seed: int, name: str, step: int) -> torch.Generator:
    """Random numbers of one step: on the CPU, the same for every device."""
    return torch.Generator().manual_seed(((seed * 1_000_003 + sum(name.encode())) * 1_000_003 + step) % 2**63)


def rate(step: int, steps: int) -> float:
    """Share of the learning rate at a step: a linear rise, then half a cosine down to nothing."""
    return min(1.0, (step + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * step / steps))


def fit(stage: Stage, seed: int, folder: Path, about: Mapping[str, Any], on_step: OnStep) -> None:
    """Train a stage to its end and leave the averaged weights in its module.

    Goes on from the checkpoint in ``folder`` when there is one of this stage, and leaves it to the caller to remove.
    Raises ``ValueError`` for a checkpoint of another training, and ``FloatingPointError`` when the loss is no number
    any more.
    """
    parameters = dict(stage.module.named_parameters())
    optimizer = torch.optim.AdamW(parameters.values(), lr=stage.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3)
    average = {name: value.detach().clone() for name, value in parameters.items()}
    path, mine = running_of(stage, folder), {**about, "stage": stage.name}
    first = _resume(path, mine, parameters, average, optimizer) if path.is_file() else 0
    saved = time.monotonic()
    with (folder / "train.jsonl").open("a") as log:
        for step in range(first, stage.steps):
            optimizer.param_groups[0]["lr"] = stage.learning_rate * rate(step, stage.steps)
            loss, numbers = stage.loss(generator_of(seed, stage.name, step))
            if not math.isfinite(value := loss.item()):
                raise FloatingPointError(f"{stage.name}, step {step}: the loss is {value}")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP)
            optimizer.step()
            _follow(average, parameters, step)
            if step % 20 == 0 or step == stage.steps - 1:
                entry = {"stage": stage.name, "step": step, "loss": value}
                log.write(json.dumps(entry | {name: number.item() for name, number in numbers.items()}) + "\n")
                log.flush()
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                write_checkpoint(path, _state(parameters, average, optimizer), {**mine, "step": step + 1})
                saved = time.monotonic()
            on_step(stage.name, step + 1, stage.steps, value)
    put(parameters, average)


def put(parameters: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Give parameters the values of the same names."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(values[name])


def _follow(average: dict[str, Tensor], parameters: Mapping[str, Tensor], step: int) -> None:
    # A short memory at first, which would otherwise hold the starting weights for hundreds of steps.
    decay = min(EMA_DECAY, (step + 1) / (step + 10))
    with torch.no_grad():
        torch._foreach_lerp_(list(average.values()), [p.detach() for p in parameters.values()], 1 - decay)


def _state(
    parameters: Mapping[str, Tensor], average: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> dict[str, Mapping[str, Tensor]]:
    moments = optimizer.state_dict()["state"]
    return {
        "weights": parameters,
        "average": average,
        "optimizer": {f"{index}.{key}": value for index, entry in moments.items() for key, value in entry.items()},
    }


def _resume(
    path: Path,
    mine: Mapping[str, Any],
    parameters: Mapping[str, Tensor],
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> int:
    groups, about = read_checkpoint(path)
    step = about.pop("step", None)
    if about != mine:
        differing = sorted(key for key in {*about, *mine} if about.get(key) != mine.get(key))
        raise ValueError(
            f"{path}: a checkpoint of another training (different: {', '.join(differing)}); give another folder, or "
            "remove it to start again"
        )
    put(parameters, groups["weights"])
    put(average, groups["average"])
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in groups["optimizer"].items():
        index, _, moment = key.partition(".")
        state.setdefault(int(index), {})[moment] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return int(step)
