"""What `fmcheck power` does."""

from fmcheck.commands import contained, progress, stdout, width_of
from fmcheck.gate import Gate
from fmcheck.power import all_faults
from fmcheck.power.campaign import Power, power
from fmcheck.report.power import faults_json, faults_page, power_json, power_page

__all__ = ["list_all", "prove"]


def list_all(names: list[str], output_format: str) -> None:
    """Name, needs and defect of the faults; makes no run.

    Raises:
        DeclarationError: a name that no fault has; names the nearest.
    """
    faults = all_faults(names)
    if output_format == "json":
        print(faults_json(faults))
        return
    console = stdout()
    faults_page(faults, width=width_of(console)).show(console)


def prove(gate: Gate, names: list[str], *, output_format: str, min_noticed: float | None) -> int:
    """Plant the faults one at a time and write which were noticed; 1 when they are a smaller share than demanded.

    Raises:
        DeclarationError: a name that no fault has, or a subject that raises without any fault.
    """
    found = _campaign(gate, names)
    shortfall = ""
    if min_noticed is not None and found.share < min_noticed:
        shortfall = f"{found.share:.1f} % of the faults with an effect were noticed, and {min_noticed:g} % must be"
    if output_format == "json":
        print(power_json(found, gate.context(), shortfall=shortfall))
    else:
        console = stdout()
        power_page(found, target=gate.target, width=width_of(console), shortfall=shortfall).show(console)
    return int(bool(shortfall))


def _campaign(gate: Gate, names: list[str]) -> Power:
    faults = all_faults(names)
    with contained(), progress(len(faults), "faults") as (say, advance):
        return power(
            gate.subject,
            faults,
            select=gate.select,
            ignore=gate.ignore,
            on_fault=say,
            on_trial=lambda _: advance(),
        )
