"""What became of a recorded finding, concluded from a verdict and from tensors that were compared."""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from fmcheck.outcome import Finding
from fmcheck.report.groups import shape_of
from fmcheck.repro.digest import Compared
from fmcheck.repro.file import Reproduction, kept
from fmcheck.trial import CRASH, HANG, MEMORY, Verdict

__all__ = ["ENDINGS", "Replayed", "Status", "concluded", "is_repeated"]

Status = Literal["reproduced", "fixed", "different failure", "not judged"]
# What ends the process that it happens in, which must not be the one that replays.
ENDINGS = (CRASH, HANG, MEMORY)
# Of an object in a text; another one in every process.
_ADDRESS = re.compile(r"0x[0-9a-fA-F]+")


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What became of a finding.

    Attributes:
        status: `reproduced`, `fixed`, `different failure` (the rule fails with other numbers, or others fail that did
            not when the file was written), or `not judged`.
        how: one sentence that says by what.
        finding: of the replay, where it has one.
        comparisons: recorded against replayed tensors.
        differences: versions and machine where they are not the recorded ones, in words.
    """

    reproduction: Reproduction
    status: Status
    how: str
    finding: Finding | None = None
    comparisons: tuple[Compared, ...] = ()
    differences: tuple[str, ...] = ()


def is_repeated(verdict: Verdict, code: str, severity: str) -> bool:
    """Whether a rule fails again: a warning is no repetition of an error."""
    return any(severity == "warning" or finding.severity == "error" for finding in verdict.of(code))


def concluded(
    reproduction: Reproduction,
    verdict: Verdict,
    *,
    comparisons: tuple[Compared, ...] = (),
    watched: Collection[str] | None = None,
    silence: Callable[[], str] = lambda: "the rule compared nothing",
    differences: tuple[str, ...] = (),
) -> Replayed:
    """The status that follows from a verdict on the recorded scenario.

    Args:
        watched: codes whose failure counts besides the finding's own; None for all.
        silence: says why the finding's rule compared nothing.
    """
    finding: Finding | None = None
    if verdict.refused:
        status, how = _not_judged(verdict.refused)
    elif is_repeated(verdict, reproduction.code, reproduction.finding.severity):
        finding = _alike(reproduction, verdict)
        status, how = _repeated(reproduction, finding, comparisons, differences)
    elif others := _others(reproduction, verdict, watched):
        finding = verdict.of(others[0])[0]
        status, how = "different failure", f"{reproduction.code} does not fail, but now {', '.join(others)} does"
    elif reproduction.code in ENDINGS or reproduction.code in verdict.judged:
        status, how = "fixed", _passed(reproduction, verdict)
    elif MEMORY in verdict.failing():
        status, how = _not_judged(verdict.of(MEMORY)[0].message)
    else:
        status, how = _not_judged(f"{reproduction.code} could not judge: {silence()}")
    return Replayed(
        reproduction=reproduction,
        status=status,
        how=how,
        finding=finding,
        comparisons=comparisons,
        differences=differences,
    )


def _not_judged(reason: str) -> tuple[Status, str]:
    return "not judged", reason


def _others(reproduction: Reproduction, verdict: Verdict, watched: Collection[str] | None) -> list[str]:
    """Codes that fail now and did not when the file was written."""
    new = [code for code in verdict.failing() if code not in (*reproduction.also, reproduction.code, MEMORY)]
    return [code for code in new if watched is None or code in watched or code in ENDINGS]


def _passed(reproduction: Reproduction, verdict: Verdict) -> str:
    code = reproduction.code
    said = [f"{code} passed"]
    if code in ENDINGS:
        said = [f"the process came to its end, and {len(verdict.judged)} rules judged"]
    if warnings := verdict.of(code):
        said.append(f"it still warns: {warnings[0].message}")
    if left := [other for other in verdict.failing() if other in reproduction.also]:
        said.append(f"still failing, as when the file was written: {', '.join(left)}")
    return "; ".join(said)


def _alike(reproduction: Reproduction, verdict: Verdict) -> Finding:
    """The finding that says what the recorded one says, whatever its numbers; else the first."""
    found = verdict.of(reproduction.code)
    return next((finding for finding in found if _says(finding) == _says(reproduction.finding)), found[0])


def _says(finding: Finding) -> str:
    return shape_of(_ADDRESS.sub("0x", kept(finding.message)))


def _repeated(
    reproduction: Reproduction, finding: Finding, comparisons: tuple[Compared, ...], differences: tuple[str, ...]
) -> tuple[Status, str]:
    if finding.code in ENDINGS:
        return "reproduced", finding.message
    if not comparisons:
        # Most of these are exceptions before the first call, and another exception is another failure.
        if _says(finding) != _says(reproduction.finding):
            return "different failure", f"the same rule fails, and says something else: {finding.message}"
        return "reproduced", "the same rule says the same; no tensor was recorded that could be compared"
    count = len(comparisons)
    apart = [one for one in comparisons if one.kind == "different"]
    if apart:
        how = f"the same rule fails with other numbers: {len(apart)} of {count} tensors differ, first {apart[0]}"
        return "different failure", how
    near = [one for one in comparisons if one.kind == "within"]
    if not near:
        return "reproduced", f"bit-identical, {count} tensor{'s' * (count > 1)}"
    worst = max(near, key=lambda one: one.ratio)
    same = "" if differences else " (although versions and device are the recorded ones)"
    how = f"within the bound for another device{same}: {len(near)} of {count} tensors differ in bits, furthest {worst}"
    return "reproduced", how
