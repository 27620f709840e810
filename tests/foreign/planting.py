"""How a defect is planted into a foreign pipeline, and taken out again.

The source is executed in the module itself: subjects and points name its functions as `module:function`, so that a
copy under another name would leave them with the correct ones.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module

__all__ = ["Mutant", "of", "planted"]


@dataclass(frozen=True)
class Mutant:
    """`old` stands exactly once in the pipeline's module, and becomes `new`."""

    module: str
    subject: str
    defect: str
    old: str
    new: str


def of(module: str, subject: str, *mutants: tuple[str, str, str]) -> list[Mutant]:
    """Mutants of one pipeline, each as (defect, old, new)."""
    return [Mutant(module, subject, *mutant) for mutant in mutants]


@contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """The pipeline's module holds the defect while the context lasts, and is as before at its end.

    Raises:
        ValueError: the text to be changed does not stand in the module exactly once.
    """
    module = import_module(f"tests.foreign.pipelines.{mutant.module}")
    source, before = inspect.getsource(module), dict(vars(module))
    if source.count(mutant.old) != 1:
        raise ValueError(f"{mutant.module}, {mutant.defect}: found {source.count(mutant.old)} times: {mutant.old!r}")
    try:
        exec(compile(source.replace(mutant.old, mutant.new), f"<{mutant.defect}>", "exec"), vars(module))
        yield
    finally:
        vars(module).clear()
        vars(module).update(before)
