"""Power: how many planted faults the rules notice in a user's own pipeline, seen through its observation points."""

import importlib

from fmcheck.power.fault import Fault, all_faults

__all__ = ["Fault", "all_faults"]

# From the caller to the picture, which is the order of lists and reports.
for _theme in ("request", "text", "times", "state", "velocity", "codec", "traces", "training"):
    importlib.import_module(f"fmcheck.power.{_theme}")
