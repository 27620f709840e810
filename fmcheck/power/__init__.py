"""Power: how many planted faults the rules notice in a user's own pipeline, seen through its observation points."""

from fmcheck.power import codec, request, state, text, times, traces, training, velocity  # noqa: F401
from fmcheck.power.fault import Fault, all_faults

__all__ = ["Fault", "all_faults"]
