"""What a training came to: measured on held-out pictures and prompts, and written with the weights."""

import math
import subprocess
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from fmcheck.tiny.judge import score
from fmcheck.tiny.model import TinyFlowModel
from fmcheck.tiny.render import render
from fmcheck.tiny.scenes import example
from fmcheck.tiny.trained import save_trained

__all__ = ["STEPS", "pictures_of", "psnr", "scored", "write_trained"]

PROMPTS = 96
STEPS = 8
SCALES = (0.0, 0.5, 1.0, 2.0, 3.0, 4.5, 6.0)


@torch.no_grad()
def psnr(model: TinyFlowModel, count: int = PROMPTS) -> Tensor:
    """Peak signal to noise of the autoencoder on held-out pictures, in dB, ``[count]``, for a range of 2."""
    side, ratios = model.config.native_size, []
    for index in range(count):
        image = render([example("held_out", index)[1]], side, side).to(model.device)
        autoencoder = model.autoencoder
        again = autoencoder.decode(autoencoder.sample(autoencoder.encode_moments(image)))
        ratios.append(10 * math.log10(4 / float((again - image).square().mean())))
    return torch.tensor(ratios)


def pictures_of(
    model: TinyFlowModel, prompts: list[str], cfg_scale: float, num_steps: int, height: int, width: int, seed: int = 0
) -> Tensor:
    """Pictures ``[N, 3, height, width]`` of prompts, on the CPU; prompt i has the noise of seed ``seed + i``."""
    pictures = []
    for index, prompt in enumerate(prompts):
        ids, mask = model.tokenizer([prompt, ""])
        generator = torch.Generator().manual_seed(seed + index)
        pictures.append(model.generate(ids, mask, cfg_scale, num_steps, generator, height, width).cpu())
    return torch.cat(pictures)


def scored(model: TinyFlowModel) -> dict[str, float]:
    """Mean PSNR in dB, and the mean of every score of the judge on held-out prompts, by guidance scale."""
    side = model.config.native_size
    prompts = [example("held_out", index)[0] for index in range(PROMPTS)]
    found = {"psnr": float(psnr(model).mean())}
    for scale in SCALES:
        scores = score(prompts, pictures_of(model, prompts, scale, STEPS, side, side))
        found |= {f"cfg {scale:g}, {name}": float(values.mean()) for name, values in scores.items()}
    return found


def write_trained(model: TinyFlowModel, folder: Path, scores: Mapping[str, float], *, device: str, seed: int) -> Path:
    """Weights in half precision, and their card: how trained, scores, licence, SHA-256."""
    about = {
        "licence": "MIT, as the package; trained on pictures that the package renders, and on nothing else",
        "trained": {
            "command": f"fmcheck tiny train --seed {seed} --device {device}",
            "commit": _commit(),
            "torch": torch.__version__,
            "device": device,
            "seed": seed,
        },
        "scores": {name: round(value, 4) for name, value in scores.items()},
    }
    return save_trained(model, about, folder)


def _commit() -> str:
    """The commit of the code that trained, with a mark when files differ from it; empty outside of a checkout."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
