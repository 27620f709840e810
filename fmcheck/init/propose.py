"""The proposal, step by step: the sampler, the network, guidance, time, grid, latent, text."""

import torch

from fmcheck.init.driver import OTHER_SCALE, SCALE, Driver, find_driver
from fmcheck.init.explore import Watched
from fmcheck.init.fit_guidance import MoveFit, combination, move_fits
from fmcheck.init.fit_rescale import fit_rescale
from fmcheck.init.fit_time import TimeFit, fit_time
from fmcheck.init.proposal import Proposal
from fmcheck.init.propose_grid import propose_grid
from fmcheck.init.propose_latent import propose_latent, propose_text
from fmcheck.init.roles import Evaluation, Velocity, constants, evaluations, find_velocity
from fmcheck.init.source import load_source

__all__ = ["propose"]


def propose(target: str, *, call: str | None = None, generate: str | None = None) -> Proposal:
    """Run the sampler behind a builder a few times and propose a subject.

    Raises:
        DeclarationError: the builder or the sampler cannot be run.
    """
    driver = find_driver(load_source(target), call, generate)
    proposal = Proposal(driver)
    if driver.others:
        proposal.ambiguous.append(
            f"pictures also come from {'; '.join(driver.others)}; taken: {driver.candidate.signature}"
        )
    if driver.source.native_dtype not in (None, torch.float32):
        proposal.ambiguous.append(f"dtypes: the builder's own dtype is {driver.source.native_dtype}; taken: float32")
    try:
        _look(proposal)
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, StopIteration, TypeError, ValueError) as error:
        # Nobody here has seen the pipeline; what was found by then is worth writing down.
        proposal.missing.append(
            f"the rest: reading the runs ended in {type(error).__name__}: {error}; please report it"
        )
    return proposal


def _look(proposal: Proposal) -> None:
    driver = proposal.driver
    base = driver.run()
    network = find_velocity(base, driver.case.num_steps)
    if network is None:
        proposal.missing.append(
            f"velocity: no callable was called at least {driver.case.num_steps} times with a state that it answers in "
            "the same shape and a time that moves one way; name it"
        )
        return
    _point(proposal, network)
    found = evaluations(base, network, driver.case.batch)
    stages = _stages(proposal, len(found), driver.case.num_steps)
    if stages is None:
        return
    time = _time(proposal, network, found, stages)
    if time is not None:
        propose_grid(proposal, network, time, stages)
        _guidance(proposal, network, found, stages, time)
        propose_latent(proposal, base, found, network, time, stages)
    propose_text(proposal, base, found, network)
    _by_name(proposal)


def _by_name(proposal: Proposal) -> None:
    """Parts that sampling does not use, so that only their names can tell: said, but not declared."""
    paths = proposal.driver.paths
    losses = [p for p in paths if any(word in _last(p) for word in ("loss", "train_step", "training", "objective"))]
    encoders = [
        p for p in paths if _last(p).startswith(("encode", "to_latent")) and "prompt" not in p and "text" not in p
    ]
    proposal.unknown.append(
        f"loss, loss_entry, encode: sampling does not use them; by their names "
        f"{', '.join(losses[:3]) or 'nothing'} may be the training loss and {', '.join(encoders[:3]) or 'nothing'} the "
        "encoder; declare them for the rules about training and the round trip"
    )


def _last(path: str) -> str:
    return path.rpartition(":")[2].rpartition(".")[2]


def _point(proposal: Proposal, network: Velocity) -> None:
    names = {"x": network.state, "time": network.time, "null": network.null}
    arguments = {role: _selector(name) for role, name in names.items()}
    why = (
        f"called {network.calls} times in {proposal.driver.case.num_steps} steps; {network.state} has the shape of its "
    )
    why += f"output and changes; {network.time} moves one way"
    proposal.points["velocity"] = (network.path, arguments, network.output, why)
    same = [path for path in network.others if not path.startswith(network.path)]
    if same:
        proposal.ambiguous.append(
            f"velocity: {', '.join(same[:4])} look alike; taken: {network.path}, which is handed the most rows"
        )


def _selector(name: str | None) -> str | int | None:
    """Arguments that a wrapper passes on unnamed are known by their position."""
    return int(name) if name is not None and name.isdigit() else name


def _stages(proposal: Proposal, count: int, steps: int) -> int | None:
    if count == steps:
        return 1
    if count in (2 * steps, 2 * steps - 1):
        return 2
    proposal.missing.append(
        f"solver: {count} evaluations in {steps} steps fit neither Euler nor a method of two stages"
    )
    return None


def _time(proposal: Proposal, network: Velocity, found: list[Evaluation], stages: int) -> TimeFit | None:
    moves = move_fits(found, stages)
    told = [e.time for e in found[::stages]]
    plain = _unrescaled(proposal.driver, network, moves, stages)
    fit = fit_time(told, [m.size for m in plain], [m.state for m in plain], stages) if plain else None
    if fit is None or fit.residual > 5e-3 or max(m.residual for m in plain) > 5e-3:
        off = "" if fit is None else f" (best: {fit.kind}, {fit.solver}, off by {fit.residual:.2g})"
        worst = f"; the change is explained up to {max((m.residual for m in plain), default=1):.1e}"
        proposal.missing.append(f"time_argument, prediction, solver: steps and told times do not agree{off}{worst}")
        return None
    seen = f"told {told[0]:g} to {told[-1]:g}; steps and told times agree to {fit.residual:.1e}"
    if fit.name is not None:
        proposal.set("time_argument", fit.name, seen)
    else:
        proposal.set("time_argument", "t", seen)
        proposal.set("time_offset", fit.offset, "fitted")
        proposal.set("time_slope", fit.slope, "fitted")
    signs = "the state changes along " + {"velocity": "+v", "reverse_velocity": "-v"}.get(
        fit.kind, "prediction - state"
    )
    proposal.set("prediction", fit.kind, f"{signs}, residual {max(m.residual for m in plain):.1e}")
    proposal.set("solver", fit.solver, f"{len(found)} evaluations in {proposal.driver.case.num_steps} steps")
    if fit.solver == "euler":
        proposal.set("evaluation_point", fit.point, "told times against the edges of the steps")
    return fit


def _unrescaled(driver: Driver, network: Velocity, moves: list[MoveFit], stages: int) -> list[MoveFit]:
    """The changes of a run without guidance, where guidance rescales what the network predicts."""
    if not any(m.factors for m in moves) and all(m.residual < 5e-3 for m in moves):
        return moves
    for scale in (1.0, 0.0):
        watched = driver.tried(guidance_scale=scale)
        if watched is None:
            continue
        plain = move_fits(evaluations(watched, network, driver.case.batch), stages)
        if plain and not any(m.factors for m in plain):
            return plain
    return moves


def _guidance(proposal: Proposal, network: Velocity, found: list[Evaluation], stages: int, time: TimeFit) -> None:
    driver = proposal.driver
    shares: dict[float, float | None] = {}
    for scale in (SCALE, OTHER_SCALE, 0.5, 0.0, 1.0):
        watched = driver.tried(guidance_scale=scale)
        if watched is not None:
            shares[scale] = _share(watched, network, driver.case.batch, stages)
    if shares.get(SCALE) is None:
        _one_branch(proposal, network)
        return
    result = combination(shares)
    if result.formula is None or result.cond_first is None:
        told = ", ".join(f"{s:g}: {v:.4g}" for s, v in shares.items() if v is not None)
        proposal.missing.append(
            f"guidance_formula: share of the first branch by scale is {told}, which fits no formula"
        )
        return
    share = shares[SCALE]
    proposal.set("guidance_formula", result.formula, f"share of the first branch {share:.4g} at scale {SCALE:g}")
    layout = next(e.layout for e in found if e.second is not None)
    names = ("cond_first", "uncond_first") if layout == "doubled" else ("separate", "separate_uncond_first")
    proposal.set(
        "guidance_layout", names[not result.cond_first], f"{layout}; the conditional branch has the larger share"
    )
    _threshold(proposal, result.formula, result.off)
    flag = next((e.null for e in found if e.second is not None), (None, None))
    if network.null and None not in flag:
        marks = flag[1] if result.cond_first else flag[0]
        proposal.set("null_means_unconditional", bool(marks), f"{network.null} is {marks} in the unconditional branch")
    fit_rescale(proposal, found, move_fits(found, stages), bool(result.cond_first), time)
    _interval(proposal, network, time)


def _share(watched: Watched, network: Velocity, batch: int, stages: int) -> float | None:
    """The middle one of the shares of the first branch; None where there is one branch throughout."""
    found = evaluations(watched, network, batch)
    moves = move_fits(found, stages)
    shares = [m.share for m, e in zip(moves, found[::stages], strict=False) if e.second is not None]
    return sorted(shares)[len(shares) // 2] if shares else None


def _threshold(proposal: Proposal, formula: str, off: tuple[float, ...]) -> None:
    neutral = 0.0 if formula == "cond_plus" else 1.0
    below = [s for s in off if s < neutral]
    if neutral in off and below and 0.5 in off:
        proposal.set("guidance_from", neutral, f"no guidance at scales {', '.join(f'{s:g}' for s in off)}")
        proposal.ambiguous.append("guidance_from: only the scales 0, 0.5, 1 and above 2 were tried")


def _one_branch(proposal: Proposal, network: Velocity) -> None:
    driver = proposal.driver
    first, other = driver.run().of(network.path)[0], driver.run(guidance_scale=OTHER_SCALE).of(network.path)[0]
    one, two = constants(first), constants(other)
    told = [n for n in one if n in two and set(one[n]) == {SCALE} and set(two[n]) == {OTHER_SCALE}]
    if told:
        proposal.set("guidance_layout", "embedded", f"one branch, which is told the scale as {told[0]}")
        proposal.set("guidance_formula", "uncond_plus", "of no effect with an embedded scale")
    else:
        proposal.missing.append(
            f"guidance: at scale {SCALE:g} the network is asked once with {proposal.driver.case.batch} rows and is not "
            "told the scale; is guidance somewhere else?"
        )


def _interval(proposal: Proposal, network: Velocity, time: TimeFit) -> None:
    """Times at which both branches are evaluated, narrowed down by a run of many steps."""
    driver = proposal.driver
    few = evaluations(driver.run(), network, driver.case.batch)
    if all(e.second is not None for e in few) or all(e.second is None for e in few):
        return
    many = evaluations(driver.run(num_steps=97), network, driver.case.batch)
    times = [((e.time - time.offset) / time.slope, e.second is not None) for e in many]
    on = [t for t, both in times if both]
    low = _simplest(max((t for t, both in times if not both and t < on[0]), default=0.0), on[0])
    high = _simplest(on[-1], min((t for t, both in times if not both and t > on[-1]), default=1.0))
    proposal.set("guidance_interval", (low, high), f"two branches from t = {on[0]:.4f} to {on[-1]:.4f} of 97 steps")
    proposal.ambiguous.append(
        f"guidance_interval: shortest decimals between the neighbouring times, {low:g} and {high:g}"
    )


def _simplest(low: float, high: float) -> float:
    for digits in range(1, 6):
        for value in (round(low, digits), round(high, digits), round((low + high) / 2, digits)):
            if low - 1e-9 <= value <= high + 1e-9:
                return value
    return (low + high) / 2
