"""What the three stages of the training learn, and from what."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmcheck.tiny.autoencoder import Autoencoder
from fmcheck.tiny.model import TinyFlowModel
from fmcheck.tiny.render import render
from fmcheck.tiny.scenes import Placed, example, scenes
from fmcheck.tiny.training.loop import Stage

__all__ = [
    "Recipe",
    "autoencoder_stage",
    "difference",
    "disturbed",
    "latents",
    "text_stage",
    "training_prompts",
    "velocity_stage",
    "windows_around",
]


@dataclass(frozen=True)
class Recipe:
    """Numbers of a training; the defaults made the weights in the package."""

    autoencoder_steps: int = 4000
    text_steps: int = 2500
    velocity_steps: int = 7000
    decoder_steps: int = 2000
    learning_rate: float = 2e-3
    # Pictures of the cache, from which text and velocity learn: eight of every prompt.
    pictures: int = 8 * 1584
    crop: int = 128
    crops: int = 32
    whole: int = 8
    text_batch: int = 128
    velocity_batch: int = 64
    latent_noise: float = 0.15
    latent_power: float = 2e-3
    # Of the cache, how many the flow is let loose on for the decoder.
    flowed_pictures: int = 4 * 1584

    def __post_init__(self) -> None:
        """Refuse numbers with which nothing is trained."""
        for name, value in asdict(self).items():
            if value <= 0:
                raise ValueError(f"{name}: expected a positive number, found {value}")
        if self.crop % 32:
            raise ValueError(f"crop: expected a multiple of 32, the side of a latent cell, found {self.crop}")


def autoencoder_stage(model: TinyFlowModel, recipe: Recipe) -> Stage:
    """Pictures and back: four batches of crops around the shape, then one of whole pictures.

    Noise on the latent makes the decoder forgive what the flow misses, and a price on its power keeps the noise from
    being outgrown.
    """
    autoencoder, side = model.autoencoder, model.config.native_size

    def loss(generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        whole = int(torch.randint(5, (), generator=generator)) == 0
        images = _whole(recipe.whole, side, generator) if whole else _crops(recipe, side, generator)
        images = images.to(model.device, memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16):
            z = autoencoder.encode_moments(images)
            decoded = autoencoder.decode(autoencoder.sample(disturbed(z, recipe, generator)))
        error, numbers = difference(decoded, images)
        power = z.float().square().mean()
        return error + recipe.latent_power * power, {**numbers, "power": power}

    return Stage("autoencoder", autoencoder, recipe.autoencoder_steps, recipe.learning_rate, loss)


def disturbed(z: Tensor, recipe: Recipe, generator: torch.Generator) -> Tensor:
    """Latents with noise, of another level in every row."""
    level = recipe.latent_noise * torch.rand(len(z), 1, 1, 1, generator=generator)
    return z + (level * torch.randn(z.shape, generator=generator)).to(z.device)


def difference(decoded: Tensor, images: Tensor) -> tuple[Tensor, Mapping[str, Tensor]]:
    """L1 keeps edges sharp, MSE is what PSNR measures."""
    away = decoded.float() - images
    square = away.square().mean()
    return away.abs().mean() + 2 * square, {"mse": square}


def _drawn(count: int, generator: torch.Generator) -> list[int]:
    return torch.randint(2**31, (count,), generator=generator).tolist()


def _whole(count: int, side: int, generator: torch.Generator) -> Tensor:
    return render([example("train", index)[1] for index in _drawn(count, generator)], side, side)


def _crops(recipe: Recipe, side: int, generator: torch.Generator) -> Tensor:
    placed = [example("train", index)[1] for index in _drawn(recipe.crops, generator)]
    return render(placed, side, side, windows_around(placed, side, recipe.crop, generator))


def windows_around(
    placed: list[Placed], side: int, crop: int, generator: torch.Generator
) -> list[tuple[int, int, int, int]]:
    """One window for every picture, in pixels, with the centre of the shape somewhere in it: a plain background
    teaches nothing."""
    windows = []
    for one, offsets in zip(placed, (crop * torch.rand(len(placed), 2, generator=generator)).tolist(), strict=True):
        top, left = (
            min(side - crop, max(0, int(centre * side - offset)))
            for centre, offset in zip(one.centre, offsets, strict=True)
        )
        windows.append((top, left, crop, crop))
    return windows


@torch.no_grad()
def latents(autoencoder: Autoencoder, count: int, side: int, device: torch.device) -> Tensor:
    """Latents ``[count, C, h, w]`` of the first training pictures, float32 on the CPU."""
    encoded = []
    for first in range(0, count, 32):
        images = render([example("train", index)[1] for index in range(first, min(count, first + 32))], side, side)
        encoded.append(autoencoder.encode_moments(images.to(device)).cpu())
    return torch.cat(encoded)


def training_prompts(model: TinyFlowModel) -> tuple[Tensor, Tensor]:
    """Ids and mask of all training prompts; picture number i of the cache belongs to row i modulo their number."""
    ids, mask = model.tokenizer([str(scene) for scene in scenes("train")])
    return ids.to(model.device), mask.to(model.device)


class Regression(nn.Module):
    """The text encoder with a throw-away map from its sample to the latent of the picture, cell by cell."""

    def __init__(self, model: TinyFlowModel) -> None:
        super().__init__()
        self.text_encoder = model.text_encoder
        channels = model.config.latent_channels
        self.head = nn.Conv2d(channels, channels, kernel_size=1, device=model.device)


def text_stage(model: TinyFlowModel, recipe: Recipe, cache: Callable[[], Tensor], seed: int) -> Stage:
    """Text latents that say, cell by cell, what the picture holds there, as noisy as the KL term wants them."""
    ids, mask = training_prompts(model)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        regression = Regression(model)
    side = model.config.native_size

    def loss(generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        rows = torch.randint(len(cache()), (recipe.text_batch,), generator=generator)
        prompts = (rows % len(ids)).to(ids.device)
        text = model.text_encoder(ids[prompts], mask[prompts], generator)
        x0 = model.initial_state(text.z, side, side)
        error = F.mse_loss(regression.head(x0), cache()[rows].to(x0.device))
        kl = model.kl_divergence(text)
        sigma = (text.log_var / 2).exp().mean()
        return error + model.config.kl_weight * kl, {"error": error, "kl": kl, "sigma": sigma, "mu": text.mu.std()}

    return Stage("text", regression, recipe.text_steps, recipe.learning_rate, loss)


def velocity_stage(model: TinyFlowModel, recipe: Recipe, cache: Callable[[], Tensor]) -> Stage:
    """Flow matching from the samples of the trained text branch, which stays as it is, to the cached latents."""
    ids, mask = training_prompts(model)
    with torch.no_grad():
        text = model.text_encoder(ids, mask)
    side = model.config.native_size

    def loss(generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        rows = torch.randint(len(cache()), (recipe.velocity_batch,), generator=generator)
        prompts = (rows % len(ids)).to(ids.device)
        z = model.text_encoder.reparametrise(text.mu[prompts], text.log_var[prompts], generator)
        x0 = model.initial_state(z, side, side)
        return model.flow_loss(x0, cache()[rows].to(x0.device), generator), {}

    return Stage("velocity", model.fm_transformers, recipe.velocity_steps, recipe.learning_rate, loss)
