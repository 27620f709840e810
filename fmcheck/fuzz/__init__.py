"""Fuzzing: search the odd corners of what a subject can be asked for, and shrink what breaks there."""

from fmcheck.fuzz.campaign import Campaign, Find, FuzzReport, Limits
from fmcheck.fuzz.executor import Executor, Isolated, Local
from fmcheck.fuzz.over import campaign_of, examples_until

__all__ = ["Campaign", "Executor", "Find", "FuzzReport", "Isolated", "Limits", "Local", "campaign_of", "examples_until"]
