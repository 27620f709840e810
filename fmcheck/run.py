"""Check a subject with every selected rule: the one way in from Python."""

import time
from collections.abc import Callable, Iterable, Mapping

from fmcheck.errors import ForeignRuleError, InternalError
from fmcheck.outcome import Expected, Finding, Outcome, Report, Status, stale_expectations
from fmcheck.ranks.pool import Ranks
from fmcheck.rules import get_rule, select_rules, unasked
from fmcheck.session import Session
from fmcheck.subject import Subject

__all__ = ["Expected", "Finding", "Outcome", "Report", "Session", "Status", "check", "stale_expectations"]


def check(
    subject: Subject,
    *,
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
    expected: Mapping[str, Expected] | None = None,
    device: str | None = None,
    dtype: str | None = None,
    seed: int | None = None,
    thorough: bool = False,
    nproc: int = 1,
    load: Callable[[], Subject] | None = None,
    on_run: Callable[[str], None] | None = None,
    on_outcome: Callable[[Outcome], None] | None = None,
    on_judged: Callable[[Session, Report], None] | None = None,
) -> Report:
    """Check a subject with every selected rule.

    Args:
        thorough: judge the costly rules too; otherwise only those that `select` names one by one.
        nproc: on how many ranks rules about ranks are judged; 1 skips them.
        load: returns this subject in the process of a rank: a function of a module, or a partial of one.
        on_judged: called with the session, while it has its runs, and the report that will be returned.

    Raises:
        DeclarationError: a wrong subject, selection or expectation, or no place for so many ranks.
    """
    started, select = time.perf_counter(), tuple(select)
    rules = select_rules(select, ignore)
    expectations = {get_rule(code).code: value for code, value in (expected or {}).items()}
    without = () if thorough else unasked(select)
    outcomes = []
    broken = []
    with Ranks(load, nproc) as ranks:
        session = Session(subject, device=device, dtype=dtype, seed=seed, on_run=on_run, without=without, ranks=ranks)
        for rule in rules:
            try:
                outcome = session.judge(rule, expectations.get(rule.code))
            except InternalError as error:
                # The other rules are not to blame, and on code that nobody here has seen their verdicts are wanted.
                broken.append(error)
                foreign = isinstance(error, ForeignRuleError)
                reason = str(error) if foreign else f"fmcheck broke, please report it: {error}"
                outcome = Outcome(rule=rule, status="not informative", reason=reason)
            outcomes.append(outcome)
            if on_outcome:
                on_outcome(outcome)
    report = Report(
        subject=session.subject.name,
        outcomes=tuple(outcomes),
        runs=session.wanted,
        calls=session.calls,
        generate_seconds=session.generate_seconds,
        seconds=time.perf_counter() - started,
        problems=tuple(stale_expectations(outcomes, expectations)),
        broken=tuple(broken),
    )
    if on_judged:
        on_judged(session, report)
    return report
