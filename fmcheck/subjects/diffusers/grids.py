"""The time grid of a pipeline: what its scheduler's configuration says, and what the pipeline asks it for."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["TOKENS_AT", "grid_fields", "moves_as_euler"]

# Keys of a scheduler's configuration that say how the shift grows with the number of tokens.
TOKENS_AT = ("base_image_seq_len", "base_shift", "max_image_seq_len", "max_shift")
_DECLARED: Mapping[str, Any] = {"grid": "declared"}
_OTHER_SCHEDULES = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "invert_sigmas")


def grid_fields(scheduler: Any, asked: list[tuple[int, dict[str, Any]]], cells: int) -> dict[str, Any]:
    """FlowSpec's `grid*` fields, from the configuration and from `set_timesteps` calls `(steps, arguments)`.

    `cells` is the number of latent cells of the pictures asked for (times frames).

    A grid that FlowSpec has no words for is `declared`: read off the pipeline itself, so that only its use is checked.
    """
    config = scheduler.config
    last = _last_sigma(scheduler, asked)
    if last == "other" or any(config.get(key) for key in _OTHER_SCHEDULES):
        return dict(_DECLARED)
    fields: dict[str, Any] = {"grid": "shifted", "grid_last_sigma": last, "grid_terminal": config.get("shift_terminal")}
    if config.get("use_dynamic_shifting"):
        law = config.get("time_shift_type", "exponential")
        by_tokens = tuple(float(config[key]) for key in TOKENS_AT)
        patch = _token_patch(by_tokens, asked[-1][1].get("mu"), cells)
        if patch is None and law == "linear":
            return dict(_DECLARED)  # another law than the configuration's, as CogView4's square root
        return {**fields, "grid_shift_by_tokens": by_tokens, "grid_shift_law": law, "grid_token_patch": patch}
    shift = float(getattr(scheduler, "shift", config.get("flow_shift", config.get("shift", 1.0))))
    return {**fields, "grid_shift": shift}


def _token_patch(by_tokens: tuple[float, ...], mu: Any, cells: int) -> int | None:
    """Side of a token in latent cells, where the `mu` that was asked for is the configuration's for such tokens."""
    low, at_low, high, at_high = by_tokens
    for patch in (1, 2, 4):
        law = at_low + (at_high - at_low) * (cells / patch**2 - low) / (high - low)
        if mu is not None and math.isclose(float(mu), law, rel_tol=1e-6):
            return patch
    return None


def _last_sigma(scheduler: Any, asked: list[tuple[int, dict[str, Any]]]) -> float | str | None:
    """Sigma of the last evaluation before any shift: None for 1/K, a number, or "other" for another base grid."""
    if any(call.get("timesteps") is not None for _, call in asked):
        return "other"
    given = [(steps, call.get("sigmas")) for steps, call in asked]
    if all(sigmas is None for _, sigmas in given):
        first, last = getattr(scheduler, "sigma_max", None), getattr(scheduler, "sigma_min", None)
        spaced = first is not None and last is not None and math.isclose(float(first), 1.0, abs_tol=1e-6)
        return float(last) if spaced and last is not None else "other"
    ends = set()
    for steps, sigmas in given:
        values = np.asarray(sigmas, dtype=np.float64)
        if len(values) != steps or not np.allclose(values, np.linspace(1.0, values[-1], steps), atol=1e-6):
            return "other"
        ends.add((round(float(values[-1]) * steps, 6), round(float(values[-1]), 6)))
    if all(product == 1.0 for product, _ in ends):
        return None
    return next(iter(ends))[1] if len({end for _, end in ends}) == 1 else "other"


def moves_as_euler(delta: Any, length: float, model_output: Any) -> bool:
    """Whether `delta` is `length * model_output`."""
    expected = length * model_output.double()
    return float((delta.double() - expected).abs().max()) <= 1e-4 * float(expected.abs().max() + delta.abs().max())
