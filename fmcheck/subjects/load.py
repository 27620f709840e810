"""From the text on a command line to a Subject."""

import importlib
import sys
from pathlib import Path

from torch import nn

from fmcheck.errors import DeclarationError, did_you_mean, raised
from fmcheck.subject import Subject

__all__ = ["READY_MADE", "load_subject"]

_ADVICE = "; declare one with fmcheck.Subject(name=, build=, generate=, velocity=) and name that"

READY_MADE = {"tiny": "fmcheck.subjects.tiny:subject"}


def load_subject(name: str, folder: Path | None = None) -> Subject:
    """The subject with a ready-made name, or at `package.module:attribute` (a Subject, or a function that makes one).

    `mutant:NAME` is the tiny model with one of the defects that `fmcheck mutants --list` names, `variation:NAME` with
    one of the correct variations, `diffusers:NAME` a tiny build of a pipeline or scheduler of diffusers. The current
    directory is importable, as it is for `python -m`, and so is `folder` (that of the configuration).

    Raises:
        DeclarationError: no such name, module or attribute, an import that fails, or something that is no Subject.
    """
    target = READY_MADE.get(name, name)
    if target.startswith("mutant:"):
        from fmcheck.mutants import get_mutant

        return get_mutant(target.removeprefix("mutant:")).change(load_subject("tiny"))
    if target.startswith("variation:"):
        from fmcheck.mutants import get_variation

        return get_variation(target.removeprefix("variation:")).change(load_subject("tiny"))
    if target.startswith("diffusers:"):
        from fmcheck.subjects.diffusers import ready_made

        return ready_made(target.removeprefix("diffusers:"))
    if ":" not in target or not all(part.isidentifier() for part in target.partition(":")[0].split(".")):
        hint = did_you_mean(name, READY_MADE)
        raise DeclarationError(
            f"subject {name!r}: expected one of {', '.join(READY_MADE)} or package.module:attribute{hint}"
        )
    module_name, _, attribute = target.partition(":")
    folders = dict.fromkeys(str(path) for path in (Path.cwd(), folder) if path is not None)
    added = [path for path in folders if path not in sys.path]
    sys.path[:0] = added
    try:
        found = getattr(importlib.import_module(module_name), attribute, None)
        known = dir(sys.modules[module_name])
    except Exception as error:
        raise DeclarationError(f"subject {name!r}: importing {module_name!r} {raised(error)}") from error
    finally:
        for path in added:
            sys.path.remove(path)
    if found is None:
        raise DeclarationError(f"subject {name!r}: {module_name} has no {attribute!r}{did_you_mean(attribute, known)}")
    return _as_subject(name, found)


def _as_subject(name: str, found: object) -> Subject:
    if isinstance(found, nn.Module):
        raise DeclarationError(
            f"subject {name!r}: a model ({type(found).__name__}), where a fmcheck.Subject is expected; write a "
            "function that builds it, and fmcheck init package.module:function proposes a subject for it"
        )
    if callable(found) and not isinstance(found, Subject):
        try:
            found = found()
        except DeclarationError as error:
            raise DeclarationError(f"subject {name!r}: {error}") from error
        except Exception as error:
            raise DeclarationError(f"subject {name!r}: calling it {raised(error)}") from error
    if isinstance(found, nn.Module):
        raise DeclarationError(
            f"subject {name!r}: builds a model ({type(found).__name__}), where a fmcheck.Subject is expected; "
            f"fmcheck init {name} proposes one"
        )
    if not isinstance(found, Subject):
        raise DeclarationError(f"subject {name!r}: expected a fmcheck.Subject, found {type(found).__name__}{_ADVICE}")
    return found
