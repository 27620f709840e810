"""The campaign: the undisturbed pipeline first, then every fault until a rule notices it."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fmcheck.errors import DeclarationError, InternalError
from fmcheck.outcome import Outcome
from fmcheck.plan import Run, Wish
from fmcheck.power.advice import advice, unplantable
from fmcheck.power.fault import Fault
from fmcheck.power.looks import looks_of, next_looks
from fmcheck.power.plant import Planting, planted
from fmcheck.rules import Rule, select_rules, unasked
from fmcheck.session import Session, provides
from fmcheck.subject import Subject

__all__ = ["Baseline", "Power", "Trial", "baseline_of", "power", "try_fault"]

Status = Literal["noticed", "warned", "raised", "missed", "no effect", "not planted"]

_STATUSES: Mapping[str, Status] = {"error": "noticed", "warning": "warned"}


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What became of one fault.

    Attributes:
        status: `noticed` by rules; `warned`: they call it a warning, which fails only a strict gate; `raised`: the
            pipeline itself raised, and no rule said more; `missed`; `no effect`: nothing that was compared came out
            otherwise; `not planted`.
        rules: codes of the rules that noticed it, all over the same runs.
        message: what the first of them said, or the exception.
        calls: `generate()` calls that were made until it was noticed, or in vain.
        reason: why it was not noticed or not planted.
        helps: what the subject would have to declare: points, arguments of points, functions.
    """

    fault: Fault
    status: Status
    rules: tuple[str, ...] = ()
    message: str = ""
    calls: int = 0
    reason: str = ""
    helps: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def noticed(self) -> bool:
        return self.status in ("noticed", "warned", "raised")


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """The undisturbed pipeline: the outcomes of all rules, the results of all runs, and the rules that can notice."""

    outcomes: Mapping[str, Outcome]
    results: Mapping[Wish, Tensor | str]
    rules: tuple[Rule, ...]
    calls: int
    seconds: float

    @property
    def failing(self) -> list[str]:
        """Codes that have an error or a warning without any fault; they notice none."""
        return [code for code, outcome in self.outcomes.items() if _severities(outcome)]


@dataclass(frozen=True, kw_only=True)
class Power:
    """The whole campaign."""

    subject: str
    baseline: Baseline
    trials: tuple[Trial, ...]
    seconds: float

    def of(self, status: Status) -> list[Trial]:
        return [trial for trial in self.trials if trial.status == status]

    @property
    def share(self) -> float:
        """Percent of the planted faults with an effect that were noticed; 0 without any."""
        effective = [trial for trial in self.trials if trial.noticed or trial.status == "missed"]
        return 100.0 * sum(trial.noticed for trial in effective) / len(effective) if effective else 0.0

    @property
    def calls(self) -> int:
        return self.baseline.calls + sum(trial.calls for trial in self.trials)


def power(
    subject: Subject,
    faults: Iterable[Fault],
    *,
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
    on_fault: Callable[[str], None] = lambda _: None,
    on_trial: Callable[[Trial], None] = lambda _: None,
) -> Power:
    """Plant every fault in turn and judge by the selected rules until one notices it.

    Raises:
        DeclarationError: a wrong subject or selection, or the undisturbed pipeline raises.
    """
    started = time.perf_counter()
    on_fault("without a fault")
    baseline = baseline_of(subject, select, ignore)
    trials = []
    for fault in faults:
        on_fault(fault.name)
        trials.append(try_fault(subject, fault, baseline))
        on_trial(trials[-1])
    seconds = time.perf_counter() - started
    return Power(subject=subject.name, baseline=baseline, trials=tuple(trials), seconds=seconds)


def baseline_of(subject: Subject, select: Iterable[str] = (), ignore: Iterable[str] = ()) -> Baseline:
    """Judge the undisturbed subject.

    Raises:
        DeclarationError: a wrong selection, or the native run raises, so that there is nothing to plant a fault in.
    """
    started, select = time.perf_counter(), tuple(select)
    session = Session(subject, without=unasked(select))
    failure = session.run(session.plan.base).failure
    if failure:
        raise DeclarationError(
            f"subject {subject.name!r}: without any fault {failure}; no fault can be told from that, "
            "so correct it first: `fmcheck run` shows it"
        )
    outcomes = {rule.code: _judged(session, rule) for rule in select_rules(select, ignore)}
    results = {wish: _result(run) for wish, run in session.made.items() if isinstance(run, Run)}
    able = [o.rule for o in outcomes.values() if o.status != "skipped" and not _severities(o)]
    session.forget()
    seconds = time.perf_counter() - started
    return Baseline(outcomes=outcomes, results=results, rules=tuple(able), calls=session.calls, seconds=seconds)


def _judged(session: Session, rule: Rule) -> Outcome:
    try:
        return session.judge(rule)
    except InternalError as error:
        return Outcome(rule=rule, status="not informative", reason=f"fmcheck broke, please report it: {error}")


def _severities(outcome: Outcome) -> set[str]:
    return {str(finding.severity) for finding in outcome.findings} - {"note"}


def try_fault(subject: Subject, fault: Fault, baseline: Baseline, *, every: bool = False) -> Trial:
    """Plant one fault and look until a rule notices it. The subject and its models are as before when it returns.

    Args:
        every: ask all rules, whatever was noticed before.
    """
    missing = [need for need in fault.needs if not provides(subject, need)]
    # A point brings its arguments with it.
    missing = [need for need in missing if need.partition(".")[0] == need or need.partition(".")[0] not in missing]
    if missing:
        return Trial(fault=fault, status="not planted", reason=unplantable(missing), helps=tuple(missing))
    started = time.perf_counter()
    with planted(subject, fault) as planting:
        session = Session(planting.subject)
        try:
            trial = _looked(session, planting, fault, baseline, every=every)
        except DeclarationError as error:
            trial = Trial(fault=fault, status="not planted", reason=str(error), calls=session.calls)
        finally:
            session.forget()
    return _timed(trial, time.perf_counter() - started)


def _timed(trial: Trial, seconds: float) -> Trial:
    return Trial(**{**vars(trial), "seconds": seconds})


def _looked(session: Session, planting: Planting, fault: Fault, baseline: Baseline, *, every: bool) -> Trial:
    looks = looks_of(session, baseline.rules, fault.kind)
    found: dict[str, dict[str, str]] = {"error": {}, "warning": {}}
    calls: dict[str, int] = {}
    while looks and (every or not found["error"]):
        for look in next_looks(session, looks):
            looks.remove(look)
            for outcome in look.judge(session):
                # A rule that says something although nothing was changed yet says it of something else.
                for finding in outcome.findings if planting.memory.touched else ():
                    found.get(finding.severity, {}).setdefault(outcome.rule.code, finding.message)
                    calls.setdefault(finding.severity, session.calls)
    for severity, status in _STATUSES.items():
        if codes := found[severity]:
            first = next(iter(codes.values()))
            return Trial(fault=fault, status=status, rules=tuple(codes), message=first, calls=calls[severity])
    return _unnoticed(session, planting, fault, baseline)


def _unnoticed(session: Session, planting: Planting, fault: Fault, baseline: Baseline) -> Trial:
    memory, calls = planting.memory, session.calls
    runs = {w: r for w, r in session.made.items() if isinstance(r, Run) and w.kind == fault.kind}
    if not memory.touched and memory.refused:
        return Trial(fault=fault, status="not planted", reason=memory.refused, calls=calls, helps=memory.helps)
    raised = next(
        (r.failure for w, r in runs.items() if r.failure and isinstance(baseline.results.get(w), Tensor)), None
    )
    if raised and memory.touched:
        return Trial(fault=fault, status="raised", message=raised, calls=calls)
    alike = all(_alike(baseline.results[w], _result(run)) for w, run in runs.items() if w in baseline.results)
    if not memory.touched or (alike and not fault.quiet):
        reason = f"all {len(runs)} runs came out bit for bit as without it" if runs else "no selected rule makes a run"
        return Trial(fault=fault, status="no effect", reason=reason, calls=calls)
    reason, helps = advice(fault, planting.subject, baseline.outcomes)
    return Trial(fault=fault, status="missed", reason=reason, helps=helps, calls=calls)


def _result(run: Run) -> Tensor | str:
    """What came out of a run, to compare; its exception where nothing did."""
    return run.trace.result.clone() if run.trace.result is not None else (run.failure or "no tensor")


def _alike(before: Tensor | str, after: Tensor | str) -> bool:
    if isinstance(before, str) or isinstance(after, str):
        return isinstance(before, str) and isinstance(after, str) and before == after
    same_kind = before.shape == after.shape and before.dtype == after.dtype
    return same_kind and bool(torch.equal(before, after) or _equal_with_nan(before, after))


def _equal_with_nan(before: Tensor, after: Tensor) -> bool:
    return bool(((before == after) | (before.isnan() & after.isnan())).all())
