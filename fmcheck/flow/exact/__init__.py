"""Velocity fields whose flow is known in closed form: the answers that a sampling loop must approach."""

from fmcheck.flow.exact.field import ExactField
from fmcheck.flow.exact.gaussian import Gaussian, Transport
from fmcheck.flow.exact.mixture import Mixture
from fmcheck.flow.exact.simple import Constant, Linear, Polynomial, Rotation, Sine

__all__ = [
    "Constant",
    "ExactField",
    "Gaussian",
    "Linear",
    "Mixture",
    "Polynomial",
    "Rotation",
    "Sine",
    "Transport",
]
