"""Writing files so that nobody ever reads half of one."""

import os
from pathlib import Path

from fmcheck.errors import DeclarationError

__all__ = ["replace_file", "require_folder"]


def require_folder(option: str, folder: Path) -> Path:
    """A folder to write into, made where it is missing; asked for before any run is made.

    Raises:
        DeclarationError: nothing can be written there; names the option.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DeclarationError(
            f"{option} {folder}: expected a folder, or a place for a new one; {error.strerror or error}"
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DeclarationError(f"{option} {folder}: no permission to write into this folder")
    return folder


def replace_file(path: Path, data: bytes) -> None:
    """Write a file in one step, in the place of an earlier one only when it is whole. `OSError` where it cannot be."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            # The name must not reach the disk before the bytes.
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
