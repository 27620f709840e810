"""Subjects for pipelines of diffusers: `subject(pipe)` for any that somebody already has.

The conventions are read from the object and from a few small calls of it, never from a table of class names. Needs
`pip install 'fmcheck[diffusers]'`.
"""

import copy
import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fmcheck.case import Case
from fmcheck.errors import DeclarationError, did_you_mean

if TYPE_CHECKING:
    from fmcheck.subject import Subject

__all__ = ["ready_made", "subject"]


def subject(pipe: Any, *, name: str | None = None, case: Case | None = None, **options: Any) -> "Subject":
    """The subject of a text-to-image (or text-to-video, asked for one frame) pipeline.

    The pipeline is called a few times, with two prompts and three steps, and left as found; checks run on copies.

    Args:
        pipe: an instance of a diffusers pipeline with one velocity network, a flow-matching scheduler and a `vae`.
        name: shown in reports; by default the class's name.
        case: the native case; by default three prompts, eight latents a side, four steps, the network's dtype.
        options: further arguments of `__call__`, passed in every call (`max_sequence_length=64`).

    Raises:
        DeclarationError: diffusers is missing, the object is no such pipeline, or its calls cannot be read as a flow.
    """
    _need_diffusers()
    from fmcheck.subjects.diffusers.adapter import adapt

    return adapt(lambda: copy.deepcopy(pipe), name or type(pipe).__name__, case, options)


def ready_made(name: str) -> "Subject":
    """The subject of a tiny build, by the name of its pipeline or scheduler.

    Raises:
        DeclarationError: diffusers is missing, or there is no build of that name.
    """
    _need_diffusers()
    from fmcheck.subjects.diffusers.adapter import adapt
    from fmcheck.subjects.diffusers.builds import BUILDS
    from fmcheck.subjects.diffusers.schedulers import SCHEDULERS, scheduler_subject

    if name in SCHEDULERS:
        return scheduler_subject(name)
    build: Callable[[], Any] | None = BUILDS.get(name)
    if build is None:
        known = [*BUILDS, *SCHEDULERS]
        raise DeclarationError(
            f"subject 'diffusers:{name}': expected one of {', '.join(known)}{did_you_mean(name, known)}"
        )
    options = {"complex_human_instruction": None} if name == "SanaPipeline" else {}
    return adapt(build, f"diffusers:{name}", None, options)


def _need_diffusers() -> None:
    missing = [package for package in ("diffusers", "transformers") if importlib.util.find_spec(package) is None]
    if missing:
        raise DeclarationError(
            f"subjects of diffusers need {' and '.join(missing)}, which cannot be imported; "
            "pip install 'fmcheck[diffusers]'"
        )
