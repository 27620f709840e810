"""The grid: edges observed in runs of several lengths and sizes, and the spec, or the function, that has them."""

from typing import Any

import torch
from torch import Tensor

from fmcheck.init.driver import STEPS, Driver
from fmcheck.init.explore import Seen, Watched
from fmcheck.init.fit_grid import fit_grid
from fmcheck.init.fit_time import TimeFit
from fmcheck.init.proposal import Proposal
from fmcheck.init.roles import Velocity, evaluations

__all__ = ["other_size", "propose_grid"]

_OTHER_STEPS = 4


def edges_of(watched: Watched, network: Velocity, time: TimeFit, batch: int, stages: int) -> list[float]:
    """Flow times at which the steps begin; for midpoint evaluation with the end of the last one."""
    times = [(e.time - time.offset) / time.slope for e in evaluations(watched, network, batch)[::stages]]
    if time.point == "left":
        return times
    edges = [0.0]
    for t in times:
        edges.append(2 * t - edges[-1])
    return edges


def _tokens(watched: Watched, network: Velocity) -> int:
    state = watched.of(network.path)[0].inputs[network.state]
    return int(state.shape[1]) if state.dim() == 3 else int(state[0, 0].numel())


def other_size(driver: Driver) -> tuple[int, int] | None:
    """A second size at which the sampler works."""
    height, width = driver.case.height, driver.case.width
    for size in ((2 * height, width), (height, 2 * width), (height // 2, 2 * width), (2 * height, 2 * width)):
        if driver.tried(height=size[0], width=size[1]) is not None:
            return size
    return None


def propose_grid(proposal: Proposal, network: Velocity, time: TimeFit, stages: int) -> None:
    """Propose the fields of the grid, or a `declared` one with the function of the user's that makes it."""
    driver = proposal.driver
    runs = {STEPS: driver.run(), _OTHER_STEPS: driver.tried(num_steps=_OTHER_STEPS)}
    observed = {}
    for steps, watched in runs.items():
        if watched is not None:
            edges = edges_of(watched, network, time, driver.case.batch, stages)
            observed[steps, _tokens(watched, network)] = edges
    size = other_size(driver)
    if size is not None:
        watched = driver.run(height=size[0], width=size[1])
        edges = edges_of(watched, network, time, driver.case.batch, stages)
        observed[STEPS, _tokens(watched, network)] = edges
    fit = fit_grid(observed)
    if fit is not None:
        seen = ", ".join(f"{steps} steps at {tokens} cells" for steps, tokens in observed)
        for name, value in fit.fields.items():
            proposal.set(name, value, f"edges of {seen} agree to {fit.residual:.1e}")
        if "grid_shift_by_tokens" in fit.fields:
            proposal.ambiguous.append(
                "grid_shift_by_tokens: two sizes were seen, through which an exponential law goes as well as a linear "
                "one; taken: exponential"
            )
        return
    _declared(proposal, driver.run(), observed)


def _declared(proposal: Proposal, base: Watched, observed: dict[tuple[int, int], list[float]]) -> None:
    edges = next(iter(observed.values()))
    proposal.set("grid", "declared", f"edges {', '.join(f'{e:.4g}' for e in edges)} fit no known grid")
    for call in base.calls:
        form = _makes(call, edges)
        if form and ":" in call.path and list(call.inputs.values()) == [STEPS]:
            module, _, name = call.path.partition(":")
            function = f'import_module("{module}").{name}(case.num_steps)'
            proposal.time_edges = (
                f"[{form} for s in {function}]",
                f"{call.path} returned these numbers for {STEPS} steps",
            )
            return
    proposal.missing.append(
        "time_edges: no known grid has these edges, and no function with the number of steps alone returned them"
    )


def _makes(call: Seen, edges: list[float]) -> str | None:
    """How the numbers that a call returned become flow times."""
    values: Any = call.returned
    if isinstance(values, Tensor) and values.dim() == 1 and values.is_floating_point():
        values = values.double().tolist()
    if not isinstance(values, list) or len(values) != STEPS + 1 or not all(isinstance(v, float | int) for v in values):
        return None
    given = torch.tensor(values, dtype=torch.float64)
    wanted = torch.tensor(edges[:STEPS], dtype=torch.float64)
    for form, times in (("float(s)", given), ("1 - float(s)", 1 - given), ("1 - float(s) / 1000", 1 - given / 1000)):
        if float((times[:STEPS] - wanted).abs().max()) < 1e-3:
            return form
    return None
