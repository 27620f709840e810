"""The EXP CONFIG META header at the top of a configuration file, and the note that an experiment leaves behind."""

from fmcheck.experiment.fresh import branch_commit, draft_lines, hardware, new_exp_id
from fmcheck.experiment.header import Header
from fmcheck.experiment.note import CONCLUSIONS, LANGUAGES, Setting, render_note
from fmcheck.experiment.reader import HeaderError, Problem, parse_header, problems, read_header
from fmcheck.experiment.record import RunRecord, read_run
from fmcheck.experiment.values import as_knob, clean

__all__ = [
    "CONCLUSIONS",
    "LANGUAGES",
    "Header",
    "HeaderError",
    "Problem",
    "RunRecord",
    "Setting",
    "as_knob",
    "branch_commit",
    "clean",
    "draft_lines",
    "hardware",
    "new_exp_id",
    "parse_header",
    "problems",
    "read_header",
    "read_run",
    "render_note",
]
