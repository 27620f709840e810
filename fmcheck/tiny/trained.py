"""The weights that come with the package: half precision on disk, with a card that says where they are from."""

import hashlib
import os
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import tomli_w
import torch
from safetensors.torch import save
from torch import nn

from fmcheck.tiny.weights import load_weights

__all__ = ["FOLDER", "card", "in_half_precision", "load_trained", "save_trained"]

FOLDER = Path(__file__).parent / "trained"
WEIGHTS, CARD = "tiny.safetensors", "card.toml"


@cache
def card(folder: Path = FOLDER) -> Mapping[str, Any]:
    """How the weights were trained, what they score, their licence and SHA-256.

    Raises ``FileNotFoundError`` for a folder without a card, ``ValueError`` for a card that is no TOML.
    """
    path = folder / CARD
    if not path.is_file():
        raise FileNotFoundError(f"no card at {path}: the weights of the tiny model come with one")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: expected TOML, found {error}") from error


@cache
def _verified(path: Path, expected: str) -> None:
    # Once a process: the file is read for every build, its bytes are summed for the first.
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise ValueError(
            f"{path}: expected the SHA-256 of its card, {expected}, found {found}; install the package again"
        )


def load_trained(model: nn.Module, folder: Path = FOLDER) -> None:
    """Load the weights of a folder into a model of their shapes; nothing in the file is executed.

    Raises ``FileNotFoundError`` when a file is missing and ``ValueError`` when the hash differs from the card's, or
    names, shapes or numbers are not the model's.
    """
    path = folder / WEIGHTS
    _verified(path, str(card(folder).get("sha256", "none")))
    load_weights(model, path)


@torch.no_grad()
def in_half_precision(model: nn.Module) -> None:
    """Round the weights to what :func:`save_trained` writes, so that scores are those of the file."""
    for value in model.state_dict().values():
        value.copy_(value.half())


def save_trained(model: nn.Module, about: Mapping[str, Any], folder: Path) -> Path:
    """Write weights as float16 and a card with their SHA-256 and what is known ``about`` them.

    Raises ``ValueError`` for a number that float16 does not hold.
    """
    tensors = {name: value.detach().cpu().half().contiguous() for name, value in model.state_dict().items()}
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"{name}: expected numbers within float16, found others")
    folder.mkdir(parents=True, exist_ok=True)
    content = save(tensors)
    entries = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), **about}
    for name, data in ((WEIGHTS, content), (CARD, tomli_w.dumps(entries).encode())):
        beside = folder / f".{name}.part"
        beside.write_bytes(data)
        # Nobody reads half of one.
        os.replace(beside, folder / name)
    card.cache_clear()
    _verified.cache_clear()
    return folder / WEIGHTS
