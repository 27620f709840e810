"""The reference mathematics of a flow-matching pipeline, written once, in any dtype and on any device."""

from fmcheck.flow.grid import edge_error_bound, evaluation_times, time_edges
from fmcheck.flow.guidance import Coefficients, combine, combine_formula, effective_coefficients, rescaling
from fmcheck.flow.integrate import Field, euler, heun, integrate, midpoint
from fmcheck.flow.layout import channelwise, pack, packable, to_decoder, to_state, unpack
from fmcheck.flow.path import as_prediction, as_velocity, interpolate, per_row, velocity_target
from fmcheck.flow.time_map import from_argument, shift_sigma, to_argument

__all__ = [
    "Coefficients",
    "Field",
    "as_prediction",
    "as_velocity",
    "channelwise",
    "combine",
    "combine_formula",
    "edge_error_bound",
    "effective_coefficients",
    "euler",
    "evaluation_times",
    "from_argument",
    "heun",
    "integrate",
    "interpolate",
    "midpoint",
    "pack",
    "packable",
    "per_row",
    "rescaling",
    "shift_sigma",
    "time_edges",
    "to_argument",
    "to_decoder",
    "to_state",
    "unpack",
    "velocity_target",
]
