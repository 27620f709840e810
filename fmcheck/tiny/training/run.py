"""The whole training: autoencoder, text branch, velocity network and decoder in turn, resumable at every step."""

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from fmcheck.tiny.config import TinyConfig
from fmcheck.tiny.model import TinyFlowModel
from fmcheck.tiny.training.checkpoint import read_checkpoint, write_checkpoint
from fmcheck.tiny.training.decoder import decoder_stage
from fmcheck.tiny.training.loop import OnStep, Stage, fit, put, running_of
from fmcheck.tiny.training.stages import Recipe, autoencoder_stage, latents, text_stage, velocity_stage

__all__ = ["train"]


def train(
    folder: Path,
    *,
    device: torch.device | str = "cpu",
    seed: int = 0,
    recipe: Recipe | None = None,
    on_step: OnStep = lambda *_: None,
) -> TinyFlowModel:
    """Train the model from scratch, or go on where an interrupted call with the same arguments ended.

    ``folder`` gets a file for every finished stage, a checkpoint of the running one, and ``train.jsonl``, the log.
    Returns the trained model in float32 on ``device``, in eval mode.
    Raises ``ValueError`` for files of another training and ``FloatingPointError`` when the loss is no number.
    """
    recipe = recipe or Recipe()
    folder.mkdir(parents=True, exist_ok=True)
    # As it is read back: JSON knows fewer kinds of numbers.
    config = TinyConfig(seed=seed)
    shared = {"seed": seed, "device": str(device), "recipe": asdict(recipe), "config": asdict(replace(config, seed=0))}
    about = json.loads(json.dumps(shared))
    model = TinyFlowModel(config).to(device).train()
    threads = torch.get_num_threads()
    # Sums over several threads depend on how many there are; and the layers are so small that more hardly pay.
    torch.set_num_threads(1)
    try:
        _stage(autoencoder_stage(model, recipe), seed, folder, about, on_step)
        # Made when a stage asks for it: encoding all pictures takes minutes, and finished stages need none.
        cache = functools.cache(
            lambda: latents(model.autoencoder, recipe.pictures, model.config.native_size, model.device)
        )
        _stage(text_stage(model, recipe, cache, seed), seed, folder, about, on_step)
        _stage(velocity_stage(model, recipe, cache), seed, folder, about, on_step)
        _stage(decoder_stage(model, recipe, cache, seed), seed, folder, about, on_step)
    finally:
        torch.set_num_threads(threads)
    return model.eval()


def _stage(stage: Stage, seed: int, folder: Path, about: Mapping[str, Any], on_step: OnStep) -> None:
    """Train a stage, or load what an earlier call made of it."""
    done, mine = folder / f"{stage.name}.safetensors", {**about, "stage": stage.name}
    if not done.is_file():
        fit(stage, seed, folder, about, on_step)
        write_checkpoint(done, {"weights": dict(stage.module.named_parameters())}, mine)
        # Not before: between the two a kill would lose the whole stage.
        running_of(stage, folder).unlink(missing_ok=True)
        return
    groups, found = read_checkpoint(done)
    if found != mine:
        raise ValueError(f"{done}: made by another training; give another folder, or remove it to start again")
    put(dict(stage.module.named_parameters()), groups["weights"])
    on_step(stage.name, stage.steps, stage.steps, float("nan"))
