"""Fuzzing: search the odd corners of what a subject can be asked for, and shrink what breaks there."""

from fmcheck.fuzz.campaign import Campaign, Find, FuzzReport, Limits
from fmcheck.fuzz.executor import Executor, Isolated, Local

__all__ = ["Campaign", "Executor", "Find", "FuzzReport", "Isolated", "Limits", "Local"]
