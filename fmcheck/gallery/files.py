"""Writing what the gallery makes."""

from collections.abc import Mapping
from pathlib import Path

from fmcheck.errors import DeclarationError
from fmcheck.files import replace_file

__all__ = ["write_files"]


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write files of a folder by name, each in the place of an earlier one only when it is whole.

    Raises:
        DeclarationError: the folder or a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            replace_file(folder / name, data)
    except OSError as error:
        raise DeclarationError(f"{folder}: cannot be written ({error.strerror or error})") from error
