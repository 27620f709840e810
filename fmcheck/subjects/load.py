"""From the text on a command line to a Subject."""

import importlib
import sys
from pathlib import Path

from fmcheck.errors import DeclarationError, did_you_mean
from fmcheck.subject import Subject

__all__ = ["READY_MADE", "load_subject"]

READY_MADE = {"tiny": "fmcheck.subjects.tiny:subject"}


def load_subject(name: str) -> Subject:
    """The subject with a ready-made name, or at `package.module:attribute` (a Subject, or a function that makes one).

    The current directory is importable, as it is for `python -m`.

    Raises:
        DeclarationError: no such name, module or attribute, an import that fails, or something that is no Subject.
    """
    target = READY_MADE.get(name, name)
    if ":" not in target:
        hint = did_you_mean(name, READY_MADE)
        raise DeclarationError(
            f"subject {name!r}: expected one of {', '.join(READY_MADE)} or package.module:attribute{hint}"
        )
    module_name, _, attribute = target.partition(":")
    here = str(Path.cwd())
    added = here not in sys.path
    if added:
        sys.path.insert(0, here)
    try:
        found = getattr(importlib.import_module(module_name), attribute, None)
        known = dir(sys.modules[module_name])
    except Exception as error:
        raise DeclarationError(
            f"subject {name!r}: importing {module_name!r} raised {type(error).__name__}: {error}"
        ) from error
    finally:
        if added:
            sys.path.remove(here)
    if found is None:
        raise DeclarationError(f"subject {name!r}: {module_name} has no {attribute!r}{did_you_mean(attribute, known)}")
    return _as_subject(name, found)


def _as_subject(name: str, found: object) -> Subject:
    if callable(found) and not isinstance(found, Subject):
        try:
            found = found()
        except Exception as error:
            raise DeclarationError(f"subject {name!r}: calling it raised {type(error).__name__}: {error}") from error
    if not isinstance(found, Subject):
        raise DeclarationError(f"subject {name!r}: expected a fmcheck.Subject, found {type(found).__name__}")
    return found
