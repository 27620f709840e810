"""Pictures of the native run: what the loop did against what the spec expects. Needs the extra `fmcheck[plots]`.

One module a picture. Each gathers its numbers into a small dataclass first, without matplotlib, and draws them second.
"""
