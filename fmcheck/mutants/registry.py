"""What a mutant and a correct variation are, and the lists of all of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from fmcheck.errors import DeclarationError, InternalError, did_you_mean
from fmcheck.subject import Subject

__all__ = [
    "Mutant",
    "Variation",
    "all_mutants",
    "all_variations",
    "get_mutant",
    "get_variation",
    "mutant",
    "subject_mutant",
    "variation",
]

T = TypeVar("T")


@dataclass(frozen=True)
class Mutant:
    """A deliberate defect of the tiny model.

    Attributes:
        name: names the defect.
        caught_by: code of the rule that must catch it.
        change: gets the clean subject of the tiny model and returns the broken one.
        odd: whether no run of the standard plan shows it, so that only a fuzz campaign can find it.
        nproc: on how many ranks it shows; 1 for those that need none.
    """

    name: str
    caught_by: str
    change: Callable[[Subject], Subject]
    odd: bool = False
    nproc: int = 1

    @property
    def summary(self) -> str:
        return next(iter((self.change.__doc__ or "").splitlines()), "")

    def __reduce__(self) -> tuple[Any, ...]:
        # Crosses to another process by its name, since what changes the subject may be no function of a module.
        return get_mutant, (self.name,)


@dataclass(frozen=True)
class Variation:
    """A correct pipeline with other conventions, on which every rule must stay silent.

    `warns` holds the codes of the rules that must warn (and not fail): what is declared may still cost something.
    `nproc` is more than 1 where it differs only on several ranks.
    """

    name: str
    change: Callable[[Subject], Subject]
    warns: tuple[str, ...] = ()
    nproc: int = 1

    @property
    def summary(self) -> str:
        return next(iter((self.change.__doc__ or "").splitlines()), "")


_MUTANTS: dict[str, Mutant] = {}
_VARIATIONS: dict[str, Variation] = {}


def mutant(caught_by: str, *, odd: bool = False) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Register a function that breaks a freshly built tiny model in place as a mutant of its own name."""

    def register(breaks: Callable[[Any], None]) -> Callable[[Any], None]:
        def change(subject: Subject) -> Subject:
            def build(case: Any) -> Any:
                model = subject.build(case)
                breaks(model)
                return model

            return subject.but(name=f"tiny with {breaks.__name__}", build=build)

        change.__doc__ = breaks.__doc__
        _add(_MUTANTS, Mutant(breaks.__name__, caught_by, change, odd))
        return breaks

    return register


def subject_mutant(
    caught_by: str, *, nproc: int = 1
) -> Callable[[Callable[[Subject], Subject]], Callable[[Subject], Subject]]:
    """Register a function from the clean subject to a broken one, for defects outside the model object."""

    def register(change: Callable[[Subject], Subject]) -> Callable[[Subject], Subject]:
        _add(_MUTANTS, Mutant(change.__name__, caught_by, change, nproc=nproc))
        return change

    return register


def variation(
    *, warns: Iterable[str] = (), nproc: int = 1
) -> Callable[[Callable[[Subject], Subject]], Callable[[Subject], Subject]]:
    """Register a function from the clean subject to a correct one with other conventions."""

    def register(change: Callable[[Subject], Subject]) -> Callable[[Subject], Subject]:
        _add(_VARIATIONS, Variation(change.__name__, change, tuple(warns), nproc))
        return change

    return register


def _add(known: dict[str, Any], entry: Any) -> None:
    if entry.name in known:
        raise InternalError(f"{entry.name} is registered twice")
    if not entry.summary:
        raise InternalError(f"{entry.name} has no docstring")
    known[entry.name] = entry


def all_mutants(*, odd: bool | None = False) -> list[Mutant]:
    """The mutants that the standard plan shows (or the odd ones, or with None both), the development log's first."""
    return [entry for entry in _MUTANTS.values() if odd is None or entry.odd == odd]


def all_variations() -> list[Variation]:
    return list(_VARIATIONS.values())


def get_mutant(name: str) -> Mutant:
    """The mutant with a name.

    Raises:
        DeclarationError: there is none; names the nearest.
    """
    return _named("mutant", _MUTANTS, name)


def get_variation(name: str) -> Variation:
    """The correct variation with a name.

    Raises:
        DeclarationError: there is none; names the nearest.
    """
    return _named("variation", _VARIATIONS, name)


def _named(kind: str, known: dict[str, T], name: str) -> T:
    if name not in known:
        raise DeclarationError(f"no {kind} {name!r}{did_you_mean(name, known)}; `fmcheck mutants --list` lists them")
    return known[name]
