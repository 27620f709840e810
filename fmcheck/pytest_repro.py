"""Reproduction files as tests: pytest collects every `*.fmcheck.toml` under its test paths.

A file whose `expect` is "fixed" (the default) passes once its finding is fixed; one that says "reproduced" passes as
long as its finding is still there, which is what the fixtures of a checker want.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fmcheck.errors import DeclarationError
from fmcheck.experiment import clean
from fmcheck.repro import Replayed, Reproduction, read, replay
from fmcheck.repro.page import replay_text

__all__ = ["ReproductionFile", "ReproductionItem"]


class ReproductionFile(pytest.File):
    """A file, whose only item is the replay of its finding."""

    def collect(self) -> Iterator["ReproductionItem"]:
        try:
            reproduction = read(self.path)
        except DeclarationError as error:
            raise self.CollectError(f"fmcheck: {error}") from error
        name = clean(f"{reproduction.code}-{reproduction.finding.name}")
        yield ReproductionItem.from_parent(self, name=name, reproduction=reproduction)


class ReproductionItem(pytest.Item):
    """The replay of one finding, held against what its file expects."""

    def __init__(self, *, reproduction: Reproduction, **rest: Any) -> None:
        super().__init__(**rest)
        self.reproduction = reproduction

    def runtest(self) -> None:
        device = next((d for d in _devices(self.reproduction) if not _is_there(d)), None)
        if device is not None:
            pytest.skip(f"recorded on {device}, which this machine does not have")
        try:
            done = replay(self.reproduction)
        except DeclarationError as error:
            pytest.fail(f"fmcheck: {self._shown}: {error}", pytrace=False)
        if done.status != self.reproduction.expect:
            pytest.fail(self._explained(done), pytrace=False)

    def _explained(self, done: Replayed) -> str:
        lead = f"expected {self.reproduction.expect}; found {done.status}"
        return f"{lead}\n{replay_text(done, self._shown)}\n  replay   fmcheck replay {self._shown}"

    @property
    def _shown(self) -> str:
        """The file as a command typed where pytest was started would name it."""
        folder = self.config.invocation_params.dir
        return str(self.path.relative_to(folder) if self.path.is_relative_to(folder) else self.path)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, f"{self._shown}: {self.name}"


def _devices(reproduction: Reproduction) -> list[str]:
    return list(dict.fromkeys(call.case.device for call in reproduction.scenario.calls))


def _is_there(device: str) -> bool:
    found = torch.device(device)
    if found.type == "cuda":
        return torch.cuda.is_available() and (found.index or 0) < torch.cuda.device_count()
    return found.type != "mps" or torch.backends.mps.is_available()
