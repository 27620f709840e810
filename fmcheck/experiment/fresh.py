"""A new header, filled with what git and the machine know."""

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from fmcheck.errors import DeclarationError, did_you_mean
from fmcheck.experiment.form import FIELDS, draw

__all__ = ["branch_commit", "draft_lines", "hardware", "new_exp_id"]

# A repository on a network drive may hang; a header can do without its commit.
_GIT_SECONDS = 20


def draft_lines(
    given: Mapping[str, str | Sequence[str]] | None = None,
    *,
    suffix: str = "A",
    today: date | None = None,
    folder: Path | None = None,
) -> list[str]:
    """The comment lines of a new header.

    `given` maps attributes of `Header` to values. Where it is silent, the id has today's date, git says the branch and
    commit of `folder` and the machine its hardware; the rest keeps the template's text, which no check lets pass.

    Raises:
        DeclarationError: an attribute that no header has, or a value that its field cannot hold.
    """
    values = {attribute: value for attribute, value in (given or {}).items() if value}
    known = [field.attribute for field in FIELDS]
    for attribute in values:
        if attribute not in known:
            raise DeclarationError(f"unknown field {attribute!r}{did_you_mean(attribute, known)}")
    values.setdefault("exp_id", new_exp_id(suffix, today))
    if "branch_commit" not in values:
        values["branch_commit"] = branch_commit(folder)
    if "hardware" not in values:
        values["hardware"] = hardware()
    texts = {}
    for field in FIELDS:
        value = values.get(field.attribute)
        if value:
            try:
                texts[field.name] = field.write(field.checked(value))
            except DeclarationError as error:
                raise DeclarationError(f"{field.name}: {error}") from error
        elif field.required:
            texts[field.name] = field.template
    return draw(texts)


def new_exp_id(suffix: str = "A", today: date | None = None) -> str:
    """`exp_<yyyymmdd>_<suffix>`, by default of today."""
    return f"exp_{today or date.today():%Y%m%d}_{suffix}"


def branch_commit(folder: Path | None = None) -> str:
    """`main / abc1234`, with `(dirty)` where tracked files are changed; empty outside of a repository with a commit."""
    branch = _git(folder, "rev-parse", "--abbrev-ref", "HEAD")
    commit = _git(folder, "rev-parse", "--short", "HEAD")
    if not branch or not commit:
        return ""
    changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    name = "detached" if branch == "HEAD" else branch
    # None is git's silence, not its word that nothing changed.
    state = {None: " (state unknown)", "": ""}.get(changed, " (dirty)")
    return f"{name} / {commit}{state}"


def _git(folder: Path | None, *arguments: str) -> str | None:
    """What git prints; None where there is no git, no repository, or no answer."""
    # Without the flag `git status` writes to the index, and a commit that runs at the same time fails.
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_GIT_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def hardware() -> str:
    """The GPUs by name and number, then the CPU cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    kind = platform.machine() or "unknown kind"
    return ", ".join([*_gpus(), f"{cores} CPU core{'s' * (cores > 1)} ({kind})"])


def _gpus() -> list[str]:
    # Imported here: torch takes a second, and only this line of the header needs it.
    import torch

    try:
        names = [torch.cuda.get_device_name(place) for place in range(torch.cuda.device_count())]
    except RuntimeError:
        # A driver that does not answer; the header says what the process can use.
        return []
    return [f"{name} x{names.count(name)}" for name in dict.fromkeys(names)]
