"""Recording: typed wrappers at the observation points, the trace of what happened, and the reading of it."""

from fmcheck.record.disturb import Disturbance, InjectedFault
from fmcheck.record.reading import Evaluation, Move, Reading
from fmcheck.record.recorder import record
from fmcheck.record.trace import Call, Draw, Trace

__all__ = ["Call", "Disturbance", "Draw", "Evaluation", "InjectedFault", "Move", "Reading", "Trace", "record"]
