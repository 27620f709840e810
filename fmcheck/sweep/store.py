"""The folder of a sweep: what is finished, so that a sweep that was stopped goes on where it ended.

`settings.json` says whose runs they are, `entries.jsonl` holds the numbers of one run a line, `images/` its pictures:
float32 for unguided ones, which later runs are compared with, and eight bits for all others.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from fmcheck.errors import DeclarationError
from fmcheck.files import replace_file
from fmcheck.record.model_state import walk
from fmcheck.sweep.measuring import Measured
from fmcheck.sweep.settings import Key
from fmcheck.tensors import has_values

__all__ = ["Store", "pixels_of", "weights_digest"]

_IDENTITY, _ENTRIES, _IMAGES = "settings.json", "entries.jsonl", "images"
_WRITTEN = ("sweep.json", "measures.png", "latents.png")


class Store:
    """Finished runs of one sweep in a folder.

    Args:
        identity: what must be equal for runs to belong together: subject, weights, conventions, prompts, …
        fresh: forget what is there and begin anew.

    Raises:
        DeclarationError: the path is a file, the folder holds something else or another sweep, or it cannot be written.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.folder = folder
        # As it will be read: tuples become lists.
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))
        self.entries: dict[Key, Measured] = {}
        try:
            self._open(fresh)
        except OSError as error:
            raise DeclarationError(f"--out {folder}: cannot be used: {error.strerror or error}") from error

    def _open(self, fresh: bool) -> None:
        if self.folder.exists() and not self.folder.is_dir():
            raise DeclarationError(f"--out {self.folder}: expected a folder; found a file")
        known = self.folder / _IDENTITY
        if known.exists():
            found = self._known(known)
            if fresh:
                self._clear()
            else:
                self._compare(found)
        elif self.folder.exists() and any(not path.name.startswith(".") for path in self.folder.iterdir()):
            raise DeclarationError(
                f"--out {self.folder}: expected a new or empty folder, or that of an earlier sweep; "
                f"found one without {_IDENTITY}"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_file(known, json.dumps(self.identity, indent=2, ensure_ascii=False).encode())
        (self.folder / _IMAGES).mkdir(exist_ok=True)
        self._read()

    def _clear(self) -> None:
        """Only what a sweep writes: a user's own notes in the folder stay."""
        for name in (_IDENTITY, _ENTRIES, *_WRITTEN):
            (self.folder / name).unlink(missing_ok=True)
        pictures = (self.folder / _IMAGES).glob("steps*-scale*-seed*-batch*.safetensors")
        for path in [*self.folder.glob("grid-*.png"), *pictures]:
            path.unlink()

    def _known(self, path: Path) -> Mapping[str, Any]:
        """Whose runs the folder holds. Other programs have a file of that name too: their folders are left alone."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if not isinstance(found, dict) or not {"schema", "subject", "weights"} <= found.keys():
            raise DeclarationError(f"{path}: not that of a sweep, or damaged; name another folder")
        return found

    def _compare(self, found: Mapping[str, Any]) -> None:
        for name in {**found, **self.identity}:
            there, here = found.get(name), self.identity.get(name)
            if there != here:
                raise DeclarationError(
                    f"--out {self.folder}: holds the runs of another sweep: {name} {_short(there)} there, "
                    f"{_short(here)} here; name another folder, or start over with --fresh"
                )

    def _read(self) -> None:
        """Take what is whole; a line that was being written when the sweep was killed is dropped."""
        path = self.folder / _ENTRIES
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        whole = []
        for line in lines:
            try:
                table = json.loads(line)
                key, found = Key(**table.pop("key")), Measured(**table)
            except (ValueError, TypeError, KeyError):
                continue
            if _is_whole(self.path_of(key)):
                self.entries[key] = found
                whole.append(line)
        if len(whole) != len(lines):
            replace_file(path, "".join(f"{line}\n" for line in whole).encode())

    def path_of(self, key: Key) -> Path:
        """Where the pictures of a run are."""
        name = f"steps{key.steps}-scale{key.scale!r}-seed{key.seed}-batch{key.batch}.safetensors"
        return self.folder / _IMAGES / name

    def add(
        self, key: Key, found: Measured, images: Tensor, low: float, high: float, *, exact: bool, listed: bool = True
    ) -> None:
        """Keep a finished run: its pictures `[B, channels, H, W]` first, so that a line never speaks of missing ones.

        Args:
            exact: keep the pictures as they are, to compare others with them.
            listed: also for sweeps that go on from here.

        Raises:
            DeclarationError: the folder cannot be written.
        """
        tensor = images.contiguous() if exact else pixels_of(images, low, high)
        line = json.dumps({"key": vars(key), **found.as_table()}, ensure_ascii=False)
        try:
            replace_file(self.path_of(key), save({"images": tensor}))
            if listed:
                self._append(line)
        except OSError as error:
            raise DeclarationError(f"--out {self.folder}: cannot be written: {error.strerror or error}") from error
        self.entries[key] = found

    def _append(self, line: str) -> None:
        with (self.folder / _ENTRIES).open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")
            file.flush()
            os.fsync(file.fileno())

    def exact(self, key: Key) -> Tensor | None:
        """The unguided pictures of a finished run, float32; None where they are not kept so."""
        images = self._load(key)
        return images if images is not None and images.is_floating_point() else None

    def pixels(self, key: Key, low: float, high: float) -> Tensor | None:
        """Pictures `[B, channels, H, W]` uint8 of a finished run, for looking at."""
        images = self._load(key)
        return images if images is None or images.dtype == torch.uint8 else pixels_of(images, low, high)

    def _load(self, key: Key) -> Tensor | None:
        path = self.path_of(key)
        return load_file(path)["images"] if key in self.entries and path.exists() else None


def _is_whole(path: Path) -> bool:
    try:
        with safe_open(path, framework="pt") as file:
            return "images" in file.keys()  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError):
        return False


def pixels_of(images: Tensor, low: float, high: float) -> Tensor:
    """Pictures of the range `[low, high]` as eight bits a value, uint8; what is not finite becomes 0."""
    unit = (images.nan_to_num(low, low, low) - low) / (high - low)
    return (unit.clamp(0, 1) * 255).round().to(torch.uint8).contiguous()


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:28]} … {text[-28:]}"


def weights_digest(model: Any) -> str:
    """SHA-256 over names, dtypes, shapes and values of all parameters and buffers, shortened to 16 digits."""
    digest = hashlib.sha256()
    for path, module in walk(model):
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is None or not has_values(tensor):
                continue
            digest.update(f"{path}.{name} {tensor.dtype} {list(tensor.shape)} ".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            # Through uint8, since numpy knows no bfloat16.
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]
