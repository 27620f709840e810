"""Write `fixtures/regressions/2025-08-26/` anew: `python tests/regressions/write_regressions.py`.

One file for every mutant of the development log, in the smallest case that shows it to its rule.
"""

import re
from pathlib import Path

from fmcheck.case import Case
from fmcheck.fuzz.polish import polished
from fmcheck.mutants import Mutant, all_mutants
from fmcheck.repro import write
from fmcheck.scenario import Call, Scenario
from fmcheck.subjects import load_subject
from fmcheck.trial import Bench

FOLDER = Path(__file__).parents[2] / "fixtures" / "regressions" / "2025-08-26"


def log_mutants() -> list[Mutant]:
    """The mutants of the development log."""
    return [entry for entry in all_mutants() if re.match(r"log\d_", entry.name)]


def smallest(entry: Mutant) -> Scenario:
    """The native case, or the rule asked around it, shrunk as far as its rule still fails."""
    subject = load_subject(f"mutant:{entry.name}")
    bench = Bench(subject, (entry.caught_by,))
    native = Scenario((Call(case=Case()),))
    turned = Scenario((Call(case=Case(height=128, width=512)),))

    def fails(scenario: Scenario) -> bool:
        return entry.caught_by in bench.judge(scenario).failing()

    starts = [native, turned, Scenario(native.calls, (entry.caught_by,)), Scenario(turned.calls, (entry.caught_by,))]
    found = next(scenario for scenario in starts if fails(scenario))
    for simpler in polished(found, subject, fails, entry.caught_by):
        found = simpler
    return found


def main() -> None:
    for old in FOLDER.glob("*.fmcheck.toml"):
        old.unlink()
    for entry in log_mutants():
        subject, scenario = load_subject(f"mutant:{entry.name}"), smallest(entry)
        finding = Bench(subject).judge(scenario).of(entry.caught_by)[0]
        written = write(FOLDER, f"mutant:{entry.name}", subject, finding, scenario, expect="reproduced")
        print(f"{entry.name:<44} {written.path.name if written.path else written.reason}")


if __name__ == "__main__":
    main()
