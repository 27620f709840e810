"""Why a fault was not noticed or not planted, and what a subject would have to declare."""

from collections.abc import Iterable, Mapping

from fmcheck.outcome import Outcome
from fmcheck.power.fault import Fault
from fmcheck.session import provides
from fmcheck.subject import ROLES, Subject

__all__ = ["advice", "declaration_of", "unplantable"]

# The arguments of Subject whose names are not those of the roles.
_ARGUMENTS = {"generate": "entry", "entry": "entry", "loss": "loss"}


def declaration_of(need: str) -> str:
    """How a missing point, argument or function is declared: `Subject(decode=...)`."""
    role, _, argument = need.partition(".")
    if argument:
        return f"Subject({role}=Point(..., {{{argument!r}: ...}}))"
    return f"Subject({_ARGUMENTS.get(role, role)}=...)"


def unplantable(missing: Iterable[str]) -> str:
    """Why a fault has no place to be planted in."""
    words = [f"no {need!r}" for need in missing]
    return f"the subject declares {' and '.join(words)}"


def advice(fault: Fault, subject: Subject, outcomes: Mapping[str, Outcome]) -> tuple[str, tuple[str, ...]]:
    """The reason in words, and what would help: the needs, not provided, of rules that notice the fault elsewhere."""
    reasons: list[str] = []
    helps: dict[str, None] = {}
    for code in fault.rules:
        outcome = outcomes.get(code)
        if outcome is None:
            reasons.append(f"{code} was not selected")
            continue
        reasons.append(f"{code} {_why(outcome)}")
        helps |= dict.fromkeys(need for need in outcome.rule.needs if _helps(need, subject))
    return "; ".join(reasons) or "no rule is known to notice it", tuple(helps)


def _helps(need: str, subject: Subject) -> bool:
    declarable = need.partition(".")[0] in (*ROLES, "entry", "tokenize", "pad", "masked")
    return declarable and not provides(subject, need)


def _why(outcome: Outcome) -> str:
    if any(finding.severity != "note" for finding in outcome.findings):
        return "has a finding without the fault already"
    if outcome.status == "skipped":
        return f"was skipped: {outcome.reason}"
    if outcome.status == "passed":
        return "looked and saw nothing"
    return f"was {outcome.status}: {outcome.reason}"
