"""Checkpoints of a training as safetensors: nested tensors in and out, written as a whole or not at all."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

__all__ = ["read_checkpoint", "write_checkpoint"]


def write_checkpoint(path: Path, groups: Mapping[str, Mapping[str, Tensor]], about: Mapping[str, Any]) -> None:
    """Write groups of named tensors and what they belong to (anything that JSON holds) in place of ``path``."""
    tensors = {
        f"{group}/{name}": value.detach().cpu().contiguous()
        for group, named in groups.items()
        for name, value in named.items()
    }
    beside = path.with_suffix(".part")
    save_file(tensors, str(beside), metadata={"about": json.dumps(about, sort_keys=True)})
    # A kill in the middle of writing leaves the checkpoint before.
    os.replace(beside, path)


def read_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Groups of named tensors and what they belong to; ``ValueError`` for a file that is no checkpoint."""
    groups: dict[str, dict[str, Tensor]] = {}
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            about = json.loads(file.metadata()["about"])
            for key in file.keys():  # noqa: SIM118 (no mapping)
                group, _, name = key.partition("/")
                groups.setdefault(group, {})[name] = file.get_tensor(key)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: expected a checkpoint of this training, found something else ({error})") from error
    return groups, about
