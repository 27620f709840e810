"""Proposing a subject for code that nobody here has written: run it once, look, and say what was seen."""

from fmcheck.init.propose import propose
from fmcheck.init.write import write_proposal

__all__ = ["propose", "write_proposal"]
