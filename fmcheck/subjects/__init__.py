"""Ready-made subjects, and finding a user's own by name."""

from fmcheck.subjects.load import load_subject

__all__ = ["load_subject"]
