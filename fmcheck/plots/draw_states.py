"""Pictures of the state: `state_norm.png` and `decoded_states.png`."""

import math
import textwrap
from typing import Any

from fmcheck.pictures import GREY, PALETTE, SMALL
from fmcheck.plots.canvas import observed, rows, say, sheet, step_axis
from fmcheck.plots.decoded import Decoded
from fmcheck.plots.states import StateSizes

__all__ = ["draw_decoded", "draw_state_sizes"]


def draw_state_sizes(sizes: StateSizes, title: str, under: str) -> Any:
    """Root mean square of the state over the steps, one light line a row."""
    made, axes = sheet(title, under, 7.5, 4.4)
    panel = axes[0, 0]
    rows(panel, sizes.steps, sizes.rows, PALETTE[0], "one batch row")
    observed(panel, sizes.steps, sizes.whole, "all rows", linestyle="-", linewidth=1.8)
    if sizes.start is not None:
        low, high = sizes.start
        middle = (low + high) / 2
        panel.errorbar(
            [0], [middle], [[middle - low], [high - middle]], color=PALETTE[1], capsize=7, linewidth=1.4,
            label=f"expected at the start\n({sizes.start_says})", zorder=4,
        )  # fmt: skip
    panel.set_ylabel("root mean square of the state")
    step_axis(panel, int(sizes.steps[-1]), "in front of step (the last point is behind the last step)")
    sizes_seen = [value for row in sizes.rows for value in row if math.isfinite(value)]
    top = max([*sizes_seen, sizes.start[1] if sizes.start else 0.0])
    panel.set_ylim(0, 1.15 * top or 1.0)
    panel.legend(loc="lower right")
    remarks = [text for text in (sizes.unseen, "" if sizes.start else sizes.start_says) if text]
    if remarks:
        say(panel, "; ".join(remarks), 0.02, 0.03, ha="left", va="bottom", color=GREY)
    return made


def draw_decoded(decoded: Decoded, title: str, under: str) -> Any:
    """One row of pictures a batch row, one column a state."""
    count, batch = len(decoded.steps), len(decoded.pictures[0])
    height, width, _ = decoded.pictures[0][0].shape
    side = 1.75
    tall = side * min(max(height / width, 0.4), 2.0)
    made, axes = sheet(title, under, side * count + 1.4, tall * batch + 1.2, batch, count)
    for column, (step, edge) in enumerate(zip(decoded.steps, decoded.edges, strict=True)):
        place = "behind the last step" if column == count - 1 else f"before step {step}"
        outside = _clipped(decoded.outside[column])
        axes[0, column].set_title("\n".join(filter(None, (place, f"t = {edge:.3g}", outside))), fontsize=SMALL)
        for row, picture in enumerate(decoded.pictures[column]):
            panel = axes[row, column]
            shown = picture.numpy()
            if shown.shape[2] == 1:
                panel.imshow(shown[:, :, 0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            else:
                panel.imshow(shown, interpolation="nearest")
            panel.set_xticks([])
            panel.set_yticks([])
            panel.grid(visible=False)
    for row, prompt in enumerate(decoded.prompts):
        lines = textwrap.wrap(textwrap.shorten(prompt, 66, placeholder=" …"), 19)
        axes[row, 0].set_ylabel("\n".join(lines), fontsize=SMALL, rotation=0, ha="right", va="center")
    return made


def _clipped(share: float) -> str:
    """Share of values outside of the declared range, which are drawn at its ends."""
    if not share:
        return ""
    return f"{share:.1%} clipped" if share >= 0.001 else "< 0.1% clipped"
