"""What `fmcheck init` does: propose, write, run the proposal, say what was found."""

import importlib.util
import sys
from pathlib import Path

from fmcheck.commands import contained, stdout
from fmcheck.errors import FmcheckError
from fmcheck.init import propose, write_proposal
from fmcheck.init.proposal import Proposal
from fmcheck.init.write import add_table, require_place
from fmcheck.outcome import Report
from fmcheck.run import check
from fmcheck.subject import Subject

__all__ = ["init"]

# Rules that judge single runs in a second or two: enough to see whether the proposal reads the loop as it is.
_CHEAP = ("FM1", "FM2", "FM3", "FM5")


def init(target: str, output: Path, call: str | None = None, generate: str | None = None) -> int:
    """Propose a subject and write it; 1 when it must be filled in or does not run.

    Raises:
        DeclarationError: the builder or the sampler cannot be run, or the output exists.
    """
    module = require_place(output)
    with contained():
        proposal = propose(target, call=call, generate=generate)
    write_proposal(proposal, output, module)
    name = f"{module}:subject"
    table = add_table(Path.cwd(), name)
    print(f"wrote {output}")
    _tell(proposal)
    if table is not None:
        print(f"add to pyproject.toml:\n\n{table}")
    if proposal.missing:
        print(f"fill in the {len(proposal.missing)} TODO of {output} before it can run")
        return 1
    return _verified(output, name)


def _tell(proposal: Proposal) -> None:
    console = stdout()
    console.print(f"generate  {proposal.driver.candidate.expression}{proposal.driver.candidate.accessor}", markup=False)
    for role, (path, _, _, why) in proposal.points.items():
        console.print(f"{role:9} {path}: {why}", markup=False)
    for field, (value, why) in proposal.spec.items():
        console.print(f"{field} = {value!r}: {why}", markup=False)
    for title, lines in (
        ("ambiguous", proposal.ambiguous),
        ("missing", proposal.missing),
        ("not found", proposal.unknown),
    ):
        for line in lines:
            console.print(f"{title}: {line}", markup=False)


def _verified(output: Path, name: str) -> int:
    try:
        with contained():
            report = check(load_file(output), select=_CHEAP)
    except FmcheckError as error:
        print(f"the proposal does not run: {error}")
        return 1
    _show(report)
    print(f"next: fmcheck run {name}")
    return 0


def _show(report: Report) -> None:
    counts: dict[str, int] = {}
    for outcome in report.outcomes:
        counts[outcome.status] = counts.get(outcome.status, 0) + 1
    print("checked with it: " + ", ".join(f"{count} {status}" for status, count in counts.items()))
    for outcome in report.outcomes:
        for finding in outcome.findings[:1] if outcome.status == "failed" else ():
            print(f"finding (a defect, or a wrong guess above): {finding}")


def load_file(path: Path) -> Subject:
    """The subject of a proposed file, whatever its place.

    Raises:
        DeclarationError: the subject is no legal one.
    """
    spec = importlib.util.spec_from_file_location(f"_fmcheck_proposal_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = written
    subject = module.subject
    assert isinstance(subject, Subject)
    return subject
