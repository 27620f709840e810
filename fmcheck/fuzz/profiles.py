"""Hypothesis profiles: `fmcheck-gate` draws the same scenarios every time, `fmcheck-nightly` many new ones."""

from random import SystemRandom

from hypothesis import settings
from hypothesis.database import ExampleDatabase
from hypothesis.errors import InvalidArgument

from fmcheck.errors import DeclarationError, did_you_mean
from fmcheck.fuzz.campaign import Limits

__all__ = ["PROFILES", "drawn_seed", "limits_of", "profile", "register_profiles"]

PROFILES = ("gate", "nightly")


def register_profiles() -> None:
    """Make `fmcheck-gate` and `fmcheck-nightly` known to Hypothesis, for `--hypothesis-profile` and `load_profile`."""
    default = settings.get_profile("default")
    settings.register_profile("fmcheck-gate", default, max_examples=50, derandomize=True, database=None, deadline=None)
    settings.register_profile("fmcheck-nightly", default, max_examples=2000, derandomize=False, deadline=None)


def profile(name: str) -> settings:
    """The settings of a profile, `gate` and `nightly` being those of fmcheck.

    Raises:
        DeclarationError: Hypothesis knows no such profile.
    """
    register_profiles()
    known = f"fmcheck-{name}" if name in PROFILES else name
    try:
        return settings.get_profile(known)
    except InvalidArgument as error:
        hint = did_you_mean(name, PROFILES)
        raise DeclarationError(
            f"fuzz: profile {name!r}: expected {' or '.join(PROFILES)}, or a profile registered with Hypothesis{hint}"
        ) from error


def limits_of(
    chosen: settings, *, seed: int | None = None, strict: bool = False
) -> tuple[Limits, ExampleDatabase | None]:
    """Examples, seed and database of Hypothesis settings: derandomised ones always have seed 0."""
    found = drawn_seed(chosen) if seed is None else seed
    return Limits(examples=chosen.max_examples, seed=found, strict=strict), chosen.database


def drawn_seed(chosen: settings | None) -> int:
    """The seed of a search that was given none: 0 under derandomised settings, otherwise another one every time."""
    return 0 if chosen is not None and chosen.derandomize else SystemRandom().getrandbits(32)
