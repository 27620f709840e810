"""What `fmcheck sweep` does."""

import sys
from pathlib import Path

from fmcheck import pictures
from fmcheck.commands import contained, progress, stdout, width_of
from fmcheck.errors import DeclarationError
from fmcheck.files import replace_file
from fmcheck.gate import Gate
from fmcheck.report.sweep import sweep_json, sweep_page
from fmcheck.sweep import Campaign, Settings, Sweep

__all__ = ["sweep"]


def sweep(
    gate: Gate, settings: Settings, folder: Path, *, fresh: bool, timed: bool, drawn: bool, output_format: str
) -> None:
    """Make the runs that are missing in the folder, write numbers and pictures there, and the report to stdout.

    Args:
        drawn: make the pictures, which need matplotlib.

    Raises:
        DeclarationError: a folder of another sweep, no matplotlib, or a subject that raises in every run.
    """
    if drawn:
        try:
            # Asked before the runs: they may take hours.
            pictures.require()
        except DeclarationError as error:
            raise DeclarationError(f"{error}, or use --no-pictures") from error
    found = _campaign(gate, settings, folder, fresh=fresh, timed=timed)
    document = sweep_json(found)
    try:
        replace_file(folder / "sweep.json", f"{document}\n".encode())
    except OSError as error:
        raise DeclarationError(f"--out {folder}: cannot be written: {error.strerror or error}") from error
    written = [folder / "sweep.json"]
    if drawn:
        from fmcheck.sweep.pictures import write_pictures

        written += write_pictures(found, folder)
    if output_format == "json":
        print(document)
        return
    console = stdout()
    sweep_page(found, width=width_of(console), written=[str(path) for path in written]).show(console)


def _campaign(gate: Gate, settings: Settings, folder: Path, *, fresh: bool, timed: bool) -> Sweep:
    with contained():
        campaign = Campaign(gate.target, gate.subject, settings, folder, fresh=fresh, timed=timed)
        try:
            with progress(len(campaign.missing), "runs", left=True) as (say, advance):
                return campaign.run(say, advance)
        except KeyboardInterrupt:
            print(f"fmcheck: what is finished is in {folder}; the same command goes on from there", file=sys.stderr)
            raise
