"""Runs that make the native case in another way: compiled, in other precision, in parts, on another device.

What surrounds a run (inference mode, autocast, the compiler) may leave its mark on what a model keeps for later: tables
made under inference mode cannot be trained through. Such runs are made on the second model object, and only after
the runs that want it new.
"""

import torch

from fmcheck.case import Case
from fmcheck.plan import Plan, Wish
from fmcheck.record.compiled import Compiled, Counted
from fmcheck.record.disturb import Disturbance, call_otherwise, change_input
from fmcheck.record.otherwise import InParts, channels_last

__all__ = [
    "attention_runs",
    "channels_last_run",
    "channels_last_training",
    "compiled_run",
    "counted_runs",
    "device_runs",
    "in_parts",
    "other_device",
    "surrounded",
]

# What works on pictures and latents; of text, rows and noise belong together.
_SPATIAL = ("velocity", "sample", "decode")
# Distinct sizes of each axis that a compiled network sees; more of the one that varies first, since each break of a
# graph shows there.
_SIZES, _BATCHES = 5, 7


def surrounded(plan: Plan, *ambient: str, case: Case | None = None, name: str = "") -> Wish:
    """The native case (or another one) with these settings around it."""
    return Wish(name or ambient[0], case or plan.native, ambient=ambient, fresh=True, after=(plan.fresh_base,))


def in_parts(plan: Plan) -> Wish:
    """The native case, the network and the decoder called in two parts of their rows."""
    points = plan.subject.points
    roles = [role for role in ("velocity", "decode") if role in points]
    changes = tuple(
        call_otherwise(f"{role} in two parts", role, InParts(points[role], plan.native.batch)) for role in roles
    )
    return Wish("in-parts", plan.native, disturbances=changes)


def channels_last_run(plan: Plan) -> Wish:
    """The native case, what enters network and autoencoder laid out with the channels last in memory."""
    changes = tuple(_channels_last(role) for role in _SPATIAL if role in plan.subject.points)
    return Wish("channels-last", plan.native, disturbances=changes)


def channels_last_training(plan: Plan) -> Wish:
    """The training loss, its pictures laid out with the channels last in memory."""
    return Wish("channels-last-loss", plan.loss.case, kind="loss", disturbances=(_channels_last("encode"),))


def _channels_last(role: str) -> Disturbance:
    return change_input("channels last", role, channels_last)


def attention_runs(plan: Plan) -> dict[str, Wish]:
    """The native case under every attention backend that the device may have.

    On a CPU there are two, and the default is one of them.
    """
    on_cpu = torch.device(plan.native.device).type == "cpu"
    names = ("math",) if on_cpu else ("math", "flash", "efficient", "cudnn")
    return {name: surrounded(plan, f"sdpa-{name}") for name in names}


def compiled_run(plan: Plan) -> Wish:
    """The native case with a compiled network."""
    return _through_the_compiler(plan, "compiled", plan.native, Compiled())


def counted_runs(plan: Plan) -> dict[str, Wish]:
    """Small cases of several sizes, batches and scales through one compiled network whose compilations are counted.

    First the same shapes with other times and scales; then one axis after the other; in the end the first case again.
    """
    counted, multiple = Counted(), plan.subject.spec.multiple
    small = plan.small.with_batch(2).but(num_steps=2)
    weight = small.guidance_scale - plan.subject.spec.neutral_scale
    other = small.but(num_steps=3, guidance_scale=plan.subject.spec.neutral_scale + 1.125 * weight)
    cases = [small, other, small.but(guidance_scale=plan.subject.spec.neutral_scale)]
    cases += [small.with_batch(3 + 2 * i) for i in range(_BATCHES - 1)]
    cases += [small.but(height=(4 + 2 * i) * multiple) for i in range(1, _SIZES)]
    cases += [small.but(width=(5 + 2 * i) * multiple) for i in range(1, _SIZES)]
    cases += [small.with_batch(1).but(guidance_scale=plan.subject.spec.neutral_scale), small]
    return {
        f"counted {number}": _through_the_compiler(plan, f"counted-{number}", _legal(plan, case), counted, turn=number)
        for number, case in enumerate(cases)
    }


def _legal(plan: Plan, case: Case) -> Case:
    height, width = plan.legal(case.height, case.width)
    return case.but(height=height, width=width)


def _through_the_compiler(plan: Plan, name: str, case: Case, call: Compiled | Counted, turn: int = 0) -> Wish:
    change = call_otherwise(f"{type(call).__name__.lower()} network", "velocity", call)
    return Wish(
        name,
        case,
        ambient=("compiling",),
        disturbances=(change,),
        fresh=True,
        after=(plan.fresh_base,),
        turn=turn,
    )


def other_device(device: str) -> str | None:
    """A device of another kind than the given one, if the machine has one."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    own = torch.device(device).type
    return next((kind for kind, there in available.items() if there and kind != own), None)


def device_runs(plan: Plan) -> dict[str, Wish]:
    """The native case on its own device, and on one of another kind if there is one.

    Both with deterministic kernels and full products, so that nothing but the order of sums is left to differ.
    """
    other, settings = other_device(plan.native.device), ("deterministic", "full-products")
    wishes = {"base": Wish("own-device", plan.native, ambient=settings)}
    if other is not None:
        wishes["other"] = Wish("other-device", plan.native.but(device=other), ambient=settings)
    return wishes
