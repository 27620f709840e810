"""The time grid of a pipeline: what its scheduler's configuration says, and what the pipeline asks it for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Asked", "grid_fields"]

# Keys of a scheduler's configuration that say how the shift grows with the number of tokens.
_TOKENS_AT = ("base_image_seq_len", "base_shift", "max_image_seq_len", "max_shift")
_DECLARED: Mapping[str, Any] = {"grid": "declared"}
_OTHER_SCHEDULES = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas")
_OTHER = "other"


@dataclass(frozen=True)
class Asked:
    """One `set_timesteps` call: arguments by name, for so many steps and latent cells (times frames)."""

    steps: int
    cells: int
    arguments: Mapping[str, Any]


def grid_fields(scheduler: Any, asked: Sequence[Asked], patch: int) -> dict[str, Any]:
    """FlowSpec's `grid*` fields, from the configuration and from what the pipeline asked for at several sizes.

    A grid that FlowSpec has no words for is `declared`: read off the pipeline itself, so that only its use is checked.
    `patch` is the side of the network's own tokens in latent cells.
    """
    config = scheduler.config
    last = _last_sigma(scheduler, asked)
    if last == _OTHER or any(config.get(key) for key in _OTHER_SCHEDULES):
        return dict(_DECLARED)
    fields: dict[str, Any] = {"grid": "shifted", "grid_last_sigma": last, "grid_terminal": config.get("shift_terminal")}
    if config.get("use_dynamic_shifting"):
        law = config.get("time_shift_type", "exponential")
        by_tokens = tuple(float(config[key]) for key in _TOKENS_AT)
        found = _token_patch(by_tokens, asked)
        if found is None and law == "linear":
            return dict(_DECLARED)  # another law than the configuration's, as CogView4's square root
        return {**fields, "grid_shift_by_tokens": by_tokens, "grid_shift_law": law, "grid_token_patch": found or patch}
    shift = _own(scheduler, "shift")
    return {**fields, "grid_shift": float(config.get("flow_shift", 1.0) if shift is None else shift)}


def _own(scheduler: Any, name: str) -> Any:
    """The scheduler's own attribute, else the entry of its configuration (attributes for that are deprecated)."""
    own = name in vars(scheduler) or hasattr(type(scheduler), name)
    return getattr(scheduler, name) if own else scheduler.config.get(name)


def _token_patch(by_tokens: tuple[float, ...], asked: Sequence[Asked]) -> int | None:
    """Side of a token in latent cells, where every `mu` asked for is the configuration's for such tokens."""
    low, at_low, high, at_high = by_tokens
    for patch in (1, 2, 4):
        laws = [at_low + (at_high - at_low) * (call.cells / patch**2 - low) / (high - low) for call in asked]
        given = [call.arguments.get("mu") for call in asked]
        if all(mu is not None and math.isclose(mu, law, rel_tol=1e-6) for mu, law in zip(given, laws, strict=True)):
            return patch
    return None


def _last_sigma(scheduler: Any, asked: Sequence[Asked]) -> float | str | None:
    """Sigma of the last evaluation before any shift: None for 1/K, a number, or "other" for another base grid."""
    if any(call.arguments.get("timesteps") is not None for call in asked):
        return _OTHER
    if all(call.arguments.get("sigmas") is None for call in asked):
        first, last = _own(scheduler, "sigma_max"), _own(scheduler, "sigma_min")
        if first is None or last is None or not math.isclose(float(first), 1.0, abs_tol=1e-6):
            return _OTHER
        # Every grid ends at 0, and a 0 before it is a step of no length: no convention, and for the rules to find.
        return float(last) or None
    ends = set()
    for call in asked:
        values = np.asarray(call.arguments.get("sigmas"), dtype=np.float64).reshape(-1)
        if len(values) != call.steps or not np.allclose(values, np.linspace(1.0, values[-1], call.steps), atol=1e-6):
            return _OTHER
        ends.add((round(float(values[-1]) * call.steps, 6), round(float(values[-1]), 6)))
    if all(product == 1.0 for product, _ in ends):
        return None
    return next(iter(ends))[1] if len({end for _, end in ends}) == 1 else _OTHER
