"""FM8: parity between devices."""

from collections.abc import Iterator, Mapping

from fmcheck.parity import device_runs
from fmcheck.plan import Run
from fmcheck.rules.evidence import require
from fmcheck.rules.fm8_parting import agree, require_same_weights
from fmcheck.rules.registry import Check, rule


@rule(
    "FM821",
    "device-changes-result",
    needs=("velocity", "other_device"),
    wishes=device_runs,
    costly="runs the pipeline on another device as well",
)
def device_changes_result(runs: Mapping[str, Run]) -> Iterator[Check]:
    """On another device the same weights and the same noise give the same pictures, up to rounding.

    How it goes wrong: a kernel for one device has another convention, a table is left on the CPU in another dtype, a
    branch asks for the device's name, noise is drawn on the device itself and is other noise.

    Checked: the native case on its own device and on one of another kind (CPU and CUDA or MPS), with deterministic
    kernels and without TF32 on both, tensor by tensor against `fmcheck.tolerance.devices.event_bound`. The other
    model is given the native one's weights. Not informative where noise is drawn from a device's own generator, or
    where the pipeline raises on the other device.

    Fix: draw noise from the caller's generator on its device and move it; one path for all devices. Source: PyTorch,
    reproducibility; parity between devices, property N of the collected defects.
    """
    base, other = runs["base"], runs["other"]
    own = sorted({draw.source for run in (base, other) for draw in run.trace.draws if draw.source != "caller"})
    require(not own, f"noise is drawn from {', '.join(own)} and not from the caller's generator, so it is other noise")
    require_same_weights(base, other)
    yield from agree(base, other, f"on {other.case.device}")
