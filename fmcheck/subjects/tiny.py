"""The built-in tiny model as a subject: the default of the command line, and an example to copy."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from fmcheck import tiny
from fmcheck.case import Case
from fmcheck.errors import DeclarationError
from fmcheck.golden import read_golden
from fmcheck.judge import Judge
from fmcheck.spec import FlowSpec
from fmcheck.subject import Request, Subject
from fmcheck.tiny import TinyConfig, TinyFlowModel, build
from fmcheck.tiny.judge import score
from fmcheck.tiny.scenes import scenes

__all__ = ["GOLDEN", "subject", "tokenize"]

# Scores of the trained model; a file, since only a training makes them new.
GOLDEN = Path(tiny.__file__).parent / "trained" / "golden.json"


def tokenize(model: TinyFlowModel, prompts: list[str]) -> Mapping[str, Tensor]:
    """The evaluation script's interface: conditional prompts first, then as many empty guidance prompts."""
    input_ids, attention_mask = model.tokenizer(prompts + [""] * len(prompts))
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def pad(model: TinyFlowModel, inputs: Mapping[str, Any], extra: int) -> Mapping[str, Tensor]:
    """The same prompts with `extra` more padding tokens a row."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    return {
        "input_ids": torch.nn.functional.pad(ids, (0, extra), value=model.tokenizer.pad_id),
        "attention_mask": torch.nn.functional.pad(mask, (0, extra), value=0),
    }


def masked(model: TinyFlowModel, inputs: Mapping[str, Any]) -> Mapping[str, Tensor]:
    """The same prompts with another word in every place under the mask."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    return {"input_ids": torch.where(mask.bool(), ids, model.tokenizer.vocab_size - 1), "attention_mask": mask}


def _generate(model: TinyFlowModel, request: Request) -> Tensor:
    return model.generate(
        **request.inputs,
        cfg_scale=request.guidance_scale,
        num_steps=request.num_steps,
        generator=request.generator,
        height=request.height,
        width=request.width,
    )


def _loss(model: TinyFlowModel, request: Request) -> Tensor:
    if request.images is None:
        raise DeclarationError("the tiny model's loss needs images in its request")
    rows = request.case.batch
    prompts = {name: tensor[:rows] for name, tensor in request.inputs.items()}
    return model.training_loss(request.images, **prompts, generator=request.generator).loss


def generate_rank(model: TinyFlowModel, request: Request, rank: int, world_size: int) -> tuple[list[Tensor], list[int]]:
    """One rank's part of the prompts, dealt out in turn. Every sample has its own seed, so that ranks do not matter."""
    indices = list(range(rank, len(request.prompts), world_size))
    images = []
    for index in indices:
        one = request.case.but(prompts=(request.prompts[index],))
        generator = torch.Generator().manual_seed(request.case.seed + index)
        images.append(_generate(model, Request(one, tokenize(model, list(one.prompts)), generator)))
    return images, indices


def shard(model: TinyFlowModel, mesh: DeviceMesh) -> None:
    """The velocity network's weights over the mesh, one unit a block (FSDP2)."""
    from torch.distributed.fsdp import fully_shard

    for block in model.fm_transformers.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model.fm_transformers, mesh=mesh)


_CONFIG = TinyConfig()

subject = Subject(
    name="tiny",
    build=lambda case: build(case.device, case.torch_dtype),
    generate=_generate,
    loss=_loss,
    tokenize=tokenize,
    pad=pad,
    masked=masked,
    entry="generate",
    loss_entry="training_loss",
    generate_rank=generate_rank,
    shard=shard,
    text="text_encoder",
    velocity="fm_transformers",
    encode="autoencoder.encode_moments",
    sample="autoencoder.sample",
    decode="autoencoder.decode",
    spec=FlowSpec(sigma_min=_CONFIG.sigma_min, latent_scale=_CONFIG.latent_scale, latent_shift=_CONFIG.latent_shift),
    case=Case(),
    dtypes=("float32", "bfloat16"),
    judge=Judge(
        score=score,
        headline="score",
        prompts=tuple(str(scene) for scene in scenes("held_out")[:96]),
        golden=read_golden(GOLDEN),
    ),
)
