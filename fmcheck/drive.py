"""Calling the functions of a subject's declaration: build, tokenize. What they raise is a wrong declaration."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fmcheck.case import Case
from fmcheck.errors import DeclarationError, FmcheckError, raised
from fmcheck.record.watch import global_random_state
from fmcheck.scenario import Tokens
from fmcheck.subject import Subject

__all__ = ["build_model", "tokens_of"]

# More than one, so that an off-by-one does not hide; few, so that short token limits are kept.
_EXTRA_PADDING = 3


def _declared(subject: Subject, name: str, call: Callable[[], Any]) -> Any:
    """What a function of the subject's declaration returns; its own exceptions become a DeclarationError."""
    try:
        return call()
    except (FmcheckError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise DeclarationError(f"subject {subject.name!r}: {name} {raised(error)}") from error


def build_model(subject: Subject, case: Case) -> Any:
    """A fresh model of the subject.

    Raises:
        DeclarationError: `build` raised or returned nothing.
    """
    # A fixed global seed while building: weights that nobody seeded would make every run another one.
    with global_random_state(case.device, disturb=0):
        model = _declared(subject, "build", lambda: subject.build(case))
    if model is None:
        raise DeclarationError(f"subject {subject.name!r}: build returned None, expected the model; a missing return?")
    return model


def tokens_of(subject: Subject, model: Any, case: Case, kind: Tokens = "plain") -> Mapping[str, Any]:
    """What the subject's tokenizer makes of the case's prompts, on the case's device; empty without a tokenizer.

    Raises:
        DeclarationError: `tokenize`, `pad` or `masked` raised or returned no mapping.
    """
    tokenize = subject.tokenize
    if tokenize is None:
        return {}
    inputs = _declared(subject, "tokenize", lambda: tokenize(model, list(case.prompts)))
    if kind == "padded" and (pad := subject.pad) is not None:
        inputs = _declared(subject, "pad", lambda: pad(model, inputs, _EXTRA_PADDING))
    if kind == "masked" and (masked := subject.masked) is not None:
        inputs = _declared(subject, "masked", lambda: masked(model, inputs))
    if not isinstance(inputs, Mapping):
        raise DeclarationError(
            f"subject {subject.name!r}: tokenize, pad and masked must return a mapping of argument names to "
            f"tensors, such as {{'input_ids': ...}}; found {type(inputs).__name__}"
        )
    return {k: v.to(case.device) if isinstance(v, Tensor) else v for k, v in inputs.items()}
