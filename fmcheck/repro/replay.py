"""Replaying a reproduction: the same scenario on new model objects, under the recorded settings."""

from collections.abc import Callable, Collection, Iterator
from functools import partial

from fmcheck.errors import NotInformative
from fmcheck.repro.digest import TIME, Compared, Print, compared, prints_of
from fmcheck.repro.file import Reproduction
from fmcheck.repro.replayed import ENDINGS, Replayed, concluded
from fmcheck.repro.settings import Settings, found_versions
from fmcheck.repro.target import load
from fmcheck.rules import get_rule
from fmcheck.scenario import Scenario
from fmcheck.session import Session
from fmcheck.subject import Subject
from fmcheck.tolerance.devices import device_bound, kernel_eps, seen_eps
from fmcheck.trial import Bench, Verdict, wishes_of
from fmcheck.wish import Run

__all__ = ["judged_apart", "made_runs", "replay"]

# Calls whose tensors have fingerprints, from the last one back.
_PRINTED = 4
# How many passes through a network lie before a tensor, and whether a state that has collected velocities does.
_PASSES = {
    "initial state": (1, False),
    TIME: (1, False),
    "first velocity": (2, False),
    "last velocity": (2, True),
    "input of decode": (1, True),
    "result": (2, True),
}


def replay(
    reproduction: Reproduction,
    subject: Subject | None = None,
    *,
    device: str | None = None,
    watched: Collection[str] | None = None,
    judge: Callable[[Scenario], Verdict] | None = None,
) -> Replayed:
    """Run the scenario again and say what became of the finding.

    Args:
        subject: in the place of the one that the file names.
        device: in the place of the recorded one; equal bits are not to be expected there.
        watched: codes whose failure counts besides the finding's own; by default what the project's gate judges, or
            with a given `subject` every rule.
        judge: judges the scenario elsewhere; there are no tensors to compare then. What ends a process is by default
            judged in one of its own, which loads the subject by its name.

    Raises:
        DeclarationError: no such subject or rule, or a case that the subject cannot have.
    """
    if subject is None:
        loaded = load(reproduction.target)
        subject, watched = loaded.subject, loaded.watched if watched is None else watched
    if reproduction.code not in ENDINGS:
        get_rule(reproduction.code)
    elif judge is None:
        time_limit, settings = reproduction.time_limit, reproduction.settings
        judge = partial(judged_apart, reproduction.target, time_limit=time_limit, settings=settings)
    scenario = _on_device(reproduction.scenario, device)
    conclude = partial(concluded, reproduction, watched=watched)
    with reproduction.settings.applied():
        if judge is not None:
            verdict = judge(scenario)
            return conclude(verdict, differences=tuple(_differences(reproduction, scenario)))
        bench = Bench(subject)
        session = bench.session(scenario)
        try:
            verdict = bench.judged(scenario, session)
            return conclude(
                verdict,
                comparisons=() if verdict.refused else _comparisons(reproduction, session, scenario),
                silence=partial(_silence, session, scenario, reproduction.code),
                differences=tuple(_differences(reproduction, scenario)),
            )
        finally:
            session.forget()


def judged_apart(
    target: str, scenario: Scenario, *, time_limit: float = 600.0, settings: Settings | None = None
) -> Verdict:
    """The verdict of a process of its own, which may die or hang without taking this one along.

    Raises:
        DeclarationError: no such subject, or a case that it cannot have.
    """
    # Brings Hypothesis along, which only such files need.
    from fmcheck.fuzz.executor import Isolated

    executor = Isolated(partial(_bench, target, settings), time_limit=time_limit)
    try:
        return executor.judge(scenario, fresh=True)
    finally:
        executor.close()


def _bench(target: str, settings: Settings | None) -> Bench:
    if settings is not None:
        settings.apply()
    return Bench(load(target).subject)


def _on_device(scenario: Scenario, device: str | None) -> Scenario:
    if device is None:
        return scenario
    return Scenario(tuple(call.but(device=device) for call in scenario.calls), scenario.asks)


def made_runs(session: Session, scenario: Scenario) -> list[Run]:
    """The runs of the last calls of a scenario that was judged in a session, those that exist."""
    runs = []
    for wish in wishes_of(scenario)[-_PRINTED:]:
        try:
            runs.append(session.run(wish))
        except (NotInformative, MemoryError):
            continue
    return runs


def _comparisons(reproduction: Reproduction, session: Session, scenario: Scenario) -> tuple[Compared, ...]:
    runs = made_runs(session, scenario)
    found = [print_ for run in runs for print_ in prints_of(run)]
    bounds = {run.name: _bound_of(run, reproduction) for run in runs}

    def allowed(recorded: Print) -> float:
        return bounds[recorded.run](recorded) if recorded.run in bounds else 0.0

    return tuple(compared(reproduction.prints, found, allowed))


def _bound_of(run: Run, reproduction: Reproduction) -> Callable[[Print], float]:
    """How far another device may be from a recorded tensor of a run, by `fmcheck.tolerance.devices.device_bound`."""
    spec, velocities = run.subject.spec, run.trace.of("velocity")
    eps = _eps(run, reproduction)
    weight, times = spec.guidance_weight(run.case.guidance_scale), sum(map(abs, spec.time_map))

    def bound(recorded: Print) -> float:
        passes, guided = _PASSES.get(recorded.name, _PASSES["result"])
        relative = device_bound(eps, passes=passes, weight=weight, guided=guided, calls=len(velocities))
        return relative * (times if recorded.name == TIME else recorded.rms)

    return bound


def _eps(run: Run, reproduction: Reproduction) -> float:
    """Of the coarsest arithmetic in a run or in the recorded one."""
    settings = reproduction.settings
    devices = run.case.device, reproduction.scenario.last.case.device
    kernels = kernel_eps(
        run.case.torch_dtype,
        matmul=settings.float32_matmul_precision,
        convolutions_in_tf32=settings.cudnn_tf32 and any(device.startswith("cuda") for device in devices),
    )
    return max(kernels, seen_eps(run.case.torch_dtype, run.trace))


def _differences(reproduction: Reproduction, scenario: Scenario) -> Iterator[str]:
    here = found_versions(scenario.last.case.device)
    for name, recorded in reproduction.versions.items():
        if here[name] != recorded:
            yield f"{name} {here[name]}, recorded {recorded}"


def _silence(session: Session, scenario: Scenario, code: str) -> str:
    """Why a rule has compared nothing."""
    rule, asked = get_rule(code), code in scenario.asks
    reason = ""
    if asked or rule.wishes is None:
        reason = session.judge(rule, over=None if asked else wishes_of(scenario)).reason
    return reason or "the rule compared nothing in this scenario"
