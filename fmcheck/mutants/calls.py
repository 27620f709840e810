"""How a mutant changes what goes into `generate`, what comes out of it, and what happens before."""

from typing import Any

from fmcheck.mutants.surgery import wrap
from fmcheck.tiny import TinyFlowModel

__all__ = ["act_before", "change_arguments", "change_result"]


def change_result(model: TinyFlowModel, change: Any) -> None:
    """Change what `generate` returns."""
    wrap(model, "generate", lambda generate, **given: change(generate(**given)))


def change_arguments(model: TinyFlowModel, change: Any) -> None:
    """Change what `generate` is given."""
    wrap(model, "generate", lambda generate, **given: generate(**{**given, **change(given)}))


def act_before(model: TinyFlowModel, act: Any) -> None:
    """Do something at the beginning of every `generate`."""
    wrap(model, "generate", lambda generate, **given: (act(), generate(**given))[1])
