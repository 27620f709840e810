"""Time grids as a spec declares them, for tests of a time grid of one's own."""

from typing import Any

from hypothesis import strategies as st

from fmcheck.spec import FlowSpec
from fmcheck.strategies.axes import step_counts

__all__ = ["time_grids"]


@st.composite
def time_grids(draw: st.DrawFn, max_steps: int = 50) -> tuple[FlowSpec, int]:
    """A spec whose grid fields are drawn, and a number of steps `K` (so that the grid has `K + 1` edges).

    Logit-normal quantiles with mean in [-2, 2], standard deviation in [1/8, 2] and a clamp eps of 0 or 1e-6 to 0.05;
    shifted grids (SD3, arXiv 2403.03206, eq. 23) with a shift in [1/8, 8]; uniform ones. Shrinks to the logit-normal
    grid with mean 0, deviation 1, no clamp and one step.
    """
    steps = draw(step_counts(max_steps))
    grid = draw(st.sampled_from(["logit_normal", "uniform", "shifted"]))
    fields: dict[str, Any] = {"grid": grid}
    if grid == "logit_normal":
        fields["grid_mean"] = draw(st.just(0.0) | st.floats(-2, 2, width=32))
        fields["grid_std"] = draw(st.just(1.0) | st.floats(0.125, 2, width=32))
        fields["grid_clamp"] = draw(st.just(0.0) | st.sampled_from([1e-6, 1e-4, 1e-3, 1e-2, 0.05]))
    if grid == "shifted":
        fields["grid_shift"] = draw(st.just(1.0) | st.floats(0.125, 8, width=32))
    return FlowSpec(**fields), steps
