"""What the correct variations have in common: the tiny subject with another model and the spec that says so."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fmcheck.subject import Subject
from fmcheck.tiny import TinyFlowModel

__all__ = ["remodel"]


def remodel(
    subject: Subject, name: str, change: Callable[[TinyFlowModel], object] = lambda _: None, /, **spec: Any
) -> Subject:
    """The subject whose freshly built model is changed in place, with these fields of its spec replaced."""

    def build(case: Any) -> Any:
        model = subject.build(case)
        change(model)
        return model

    return subject.but(name=f"tiny with {name}", build=build, spec=replace(subject.spec, **spec))
