"""The case that is under way, on disk before the model is called: what is left after a kill or a power cut."""

import os
from pathlib import Path

from fmcheck.outcome import Finding
from fmcheck.repro.file import SUFFIX, Reproduction
from fmcheck.repro.settings import Settings, found_versions
from fmcheck.scenario import Scenario
from fmcheck.trial import CRASH

__all__ = ["Spool"]


class Spool:
    """Keeps one file, `under-way-PID.fmcheck.toml`, up to date. `fmcheck replay` takes it like any other.

    Args:
        folder: made when the first case comes.
        target: the name by which a replay loads the subject.
    """

    def __init__(self, folder: Path, target: str, device: str) -> None:
        self.path = folder / f"under-way-{os.getpid()}{SUFFIX}"
        self._target = target
        self._versions = found_versions(device)
        self._settings = Settings.now()

    def note(self, scenario: Scenario) -> None:
        """Write the case that comes next."""
        finding = Finding(
            code=CRASH,
            name="process-died",
            severity="error",
            message="this case was under way when the campaign ended without an end of its own",
        )
        reproduction = Reproduction(
            target=self._target,
            finding=finding,
            scenario=scenario,
            versions=self._versions,
            settings=self._settings,
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(reproduction.as_text(), encoding="utf-8")

    def done(self) -> None:
        """The campaign has come to its own end."""
        self.path.unlink(missing_ok=True)
