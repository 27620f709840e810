"""The sweep: one subject at many guidance scales and numbers of steps, from the same noise, measured and compared."""

from fmcheck.sweep.campaign import Campaign, Sweep
from fmcheck.sweep.settings import Settings, read_prompts, settings_for

__all__ = ["Campaign", "Settings", "Sweep", "read_prompts", "settings_for"]
