"""Error budgets: every bound that a rule compares with, derived here and nowhere else.

Notation (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1): `u` is the unit roundoff of a
dtype, half its eps; `gamma(n) = n u / (1 - n u)` bounds the relative error of `n` roundings in a row.
"""

from fmcheck.tolerance.closure import closure_bound
from fmcheck.tolerance.codec import image_bound, range_bound, reconstructs, round_trip_bound, scale_bound, unscale_bound
from fmcheck.tolerance.exchange import Drop, drop_of, drop_shows
from fmcheck.tolerance.moves import FitErrors, fit_bound, fit_errors, move_bound, short_bound, sums_show_digits
from fmcheck.tolerance.shadow import Shadow, end_bound, shadow
from fmcheck.tolerance.statistics import (
    FALSE_ALARM_BUDGET,
    SHARE,
    STATISTICAL_TESTS,
    NoiseBounds,
    binomial_range,
    block_shows,
    exchange_shows,
    ks_critical,
    ks_distance,
    noise_bounds,
    signed_mean_bound,
    signed_sum_bound,
)
from fmcheck.tolerance.student import half_width, paired_half_width
from fmcheck.tolerance.times import argument_bound, rounding_shows, step_bound, time_bound, told_bound
from fmcheck.tolerance.training import implied_bound, path_bound, target_bound
from fmcheck.tolerance.units import EXPLAINED, coarser, gamma, half_digits, unit_roundoff

__all__ = [
    "Drop",
    "EXPLAINED",
    "FALSE_ALARM_BUDGET",
    "FitErrors",
    "NoiseBounds",
    "SHARE",
    "STATISTICAL_TESTS",
    "Shadow",
    "argument_bound",
    "binomial_range",
    "block_shows",
    "closure_bound",
    "coarser",
    "drop_of",
    "drop_shows",
    "exchange_shows",
    "fit_bound",
    "fit_errors",
    "gamma",
    "half_digits",
    "half_width",
    "paired_half_width",
    "image_bound",
    "implied_bound",
    "ks_critical",
    "ks_distance",
    "move_bound",
    "noise_bounds",
    "path_bound",
    "range_bound",
    "reconstructs",
    "round_trip_bound",
    "rounding_shows",
    "scale_bound",
    "end_bound",
    "shadow",
    "short_bound",
    "signed_mean_bound",
    "signed_sum_bound",
    "step_bound",
    "sums_show_digits",
    "target_bound",
    "time_bound",
    "told_bound",
    "unit_roundoff",
    "unscale_bound",
]
