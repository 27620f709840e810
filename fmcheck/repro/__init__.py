"""Reproduction files: a finding as a small text that anybody can replay, and what becomes of it when they do."""

from fmcheck.repro.as_pytest import as_pytest
from fmcheck.repro.digest import Compared, Print, print_of, prints_of
from fmcheck.repro.file import SUFFIX, Reproduction, content_name
from fmcheck.repro.reading import parse, read
from fmcheck.repro.replay import judged_apart, replay
from fmcheck.repro.replayed import Replayed, Status
from fmcheck.repro.settings import Settings
from fmcheck.repro.target import subject_of
from fmcheck.repro.write import Written, scenarios_for, write, write_find, write_report

__all__ = [
    "SUFFIX",
    "Compared",
    "Print",
    "Replayed",
    "Reproduction",
    "Settings",
    "Status",
    "Written",
    "as_pytest",
    "content_name",
    "judged_apart",
    "parse",
    "print_of",
    "prints_of",
    "read",
    "replay",
    "scenarios_for",
    "subject_of",
    "write",
    "write_find",
    "write_report",
]
