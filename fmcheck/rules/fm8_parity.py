"""FM8: parity: one model, one case, two ways of running it, and numbers that agree.

What differs in silence is an error. What refuses with an exception, or costs only where a setting is used that a
pipeline may never meet, is a warning.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch

from fmcheck.parity import attention_runs, channels_last_run, channels_last_training, in_parts, surrounded
from fmcheck.plan import Plan, Run, Wish
from fmcheck.rules.evidence import exact, given, require
from fmcheck.rules.fm5_integration import low_precision_state, wrong_update
from fmcheck.rules.fm8_parting import agree, differ, eps_of, require_same_weights, same_bits
from fmcheck.rules.registry import Check, rule
from fmcheck.tolerance.devices import kernel_eps

_BFLOAT16 = torch.finfo(torch.bfloat16).eps
_AUTOCAST = "under bfloat16 autocast"


def _autocast_runs(plan: Plan) -> dict[str, Wish]:
    return {"base": plan.fresh_base, "other": surrounded(plan, "autocast-bfloat16", name="autocast")}


@rule("FM813", "autocast-changes-result", wishes=_autocast_runs)
def autocast_changes_result(runs: Mapping[str, Run]) -> Iterator[Check]:
    """Under bfloat16 autocast every tensor is what it is without, up to the rounding of bfloat16.

    How it goes wrong: a branch for autocast forgets the attention's scale, a norm or a softmax is summed in bfloat16
    over thousands of elements, a time of 0.001 is formed in bfloat16, an `if torch.is_autocast_enabled()` takes an
    older kernel with other conventions.

    Checked: the native case with autocast around the whole `generate()` against the same without, tensor by tensor in
    the order of the calls, against the bound of `fmcheck.tolerance.devices.event_bound` with bfloat16's eps. Bounds of
    bfloat16 are wide: what changes less than a tenth of a velocity is not seen. Not informative where autocast changes
    nothing, or where the pipeline raises under it.

    Fix: keep sums, norms, softmax and everything about time in float32 (`torch.autocast(enabled=False)` around them).
    Source: PyTorch, automatic mixed precision, ops that autocast to float32.
    """
    base, other = runs["base"], runs["other"]
    require(differ(base, other), "autocast changes no bit of any recorded tensor")
    yield from agree(base, other, _AUTOCAST, _BFLOAT16)


@rule("FM814", "autocast-rounds-state", wishes=_autocast_runs)
def autocast_rounds_state(runs: Mapping[str, Run]) -> Iterator[Check]:
    """Autocast stays inside the network: the state is held and updated in float32 under it, as it is without.

    How it goes wrong: the update is written as a matrix product (`einsum`, `addmm`, `baddbmm`), which autocast rounds
    to bfloat16; the initial state comes out of a linear layer in bfloat16 and every later sum keeps that dtype.
    Validation inside a training loop's autocast then shows other pictures than the evaluation script.

    Checked: what FM501 and FM502 ask of every run, of the native case with autocast around it. A warning, since only
    pipelines that are called under autocast are hurt. Not informative where the spec declares a state in the network's
    dtype, or autocast changes nothing.

    Fix: `x = x.float()` before the loop, `v = v.float()` after the network, and the loop inside
    `torch.autocast(device_type, enabled=False)` or free of matrix products. Source: rounding error of a running sum,
    Higham, section 4.2; PyTorch, autocast op reference.
    """
    base, other = runs["base"], runs["other"]
    require(base.subject.spec.state_dtype == "float32", "the spec declares a state in the network's dtype")
    require(differ(base, other), "autocast changes no bit of any recorded tensor")
    # The network's dtype is bfloat16 here, so a state that is cast for its call alone is right.
    short = Run(replace(other.wish, case=other.case.but(dtype="bfloat16")), other.subject, other.trace)
    checks = (wrong_update(other) if other.case.num_steps > 1 else (), low_precision_state(short))
    cause = "autocast reaches the state: its update is a matrix product, or takes the dtype of one"
    for check in (check for found in checks for check in found):
        yield replace(_because(check, _AUTOCAST, cause), severity="warning")


def _because(check: Check, how: str, cause: str) -> Check:
    """A check of a run in which one setting was changed, which is then what any failure is due to."""
    if check.holds:
        return check
    return replace(check, message=f"{how}, {check.message}", diagnosis=cause)


@rule("FM815", "low-precision-changes-result", wishes=lambda plan: _precisions(plan))
def low_precision_changes_result(runs: Mapping[str, Run]) -> Iterator[Check]:
    """With the network in a lower precision every tensor is what it is in the native one, up to that rounding.

    How it goes wrong: a path for half precision forgets a scale or a bias, a table of positions or frequencies is a
    buffer and follows the network into bfloat16, a norm is accumulated in bfloat16, times are rounded together.

    Checked: the native case against the same with the network in the first lower dtype that the subject declares,
    tensor by tensor, against `fmcheck.tolerance.devices.event_bound` with that dtype's eps. The weights must be the
    rounded ones; where `build` makes others nothing is said.

    Fix: accumulate in float32; make tables in float32 where they are used. Source: Higham, section 3.1; parity
    between dtypes, property N of the collected defects.
    """
    base = runs["base"]
    low = given(runs.get("low"), "the subject declares no lower dtype than the native one")
    require_same_weights(base, low)
    yield from agree(base, low, f"in {low.case.dtype}")


def _precisions(plan: Plan) -> dict[str, Wish]:
    return {"base": plan.base} | ({} if plan.low_precision is None else {"low": plan.low_precision})


@rule("FM816", "memory-format-matters", wishes=lambda plan: _formats(plan), judges_crashes=True)
def memory_format_matters(runs: Mapping[str, Run]) -> Iterator[Check]:
    """What a tensor holds counts, not how it lies in memory: channels-last inputs give the same values.

    How it goes wrong: `.view` on a tensor that is not contiguous raises; `as_strided`, a custom kernel or a copy
    through a raw pointer reads memory in its order and takes channels for columns; an in-place operation on
    `.contiguous()` works on the caller's tensor or on a copy, depending on its layout.

    Checked: the native case with the input of network, `sample` and `decode` handed over in channels-last layout,
    tensor by tensor (kernels may round differently: `fmcheck.tolerance.devices.event_bound`), and the pictures of a
    training loss at `encode` likewise. An exception is a warning: it is loud, and some pipelines never meet that
    layout. Not informative where no such input has four axes.

    Fix: `reshape` or `flatten` in place of `view`; `.contiguous()` before a kernel that needs it. Source: PyTorch,
    channels last memory format.
    """
    base, other = runs["base"], runs["other"]
    require(base.failure is None, f"run 'base': {base.failure}")
    given_x = [call.inputs.get("x") for call in base.trace.calls]
    spatial = any(isinstance(x, torch.Tensor) and x.dim() == 4 for x in given_x)
    require(spatial, "no input of network or autoencoder has four axes")
    pairs = [(base, other)]
    if "loss" in runs and runs["loss"].failure is None:
        pairs.append((runs["loss"], runs["other loss"]))
    for reference, changed in pairs:
        if changed.failure is None:
            yield from agree(reference, changed, "with channels last in memory")
        else:
            raised = next((c.name for c in reversed(changed.trace.calls) if c.error is not None), "")
            yield exact(
                False,
                f"inputs whose channels are last in memory are refused: {changed.failure}",
                where=raised,
                diagnosis="`.view` asks for one layout, `.reshape` takes any" if "view" in changed.failure else None,
                severity="warning",
            )


def _formats(plan: Plan) -> dict[str, Wish]:
    subject = plan.subject
    wishes = {"base": plan.base, "other": channels_last_run(plan)}
    if subject.loss is not None and "encode" in subject.points:
        wishes |= {"loss": plan.loss, "other loss": channels_last_training(plan)}
    return wishes


@rule("FM817", "parts-differ-from-whole", wishes=lambda plan: {"base": plan.base, "other": in_parts(plan)})
def parts_differ_from_whole(runs: Mapping[str, Run]) -> Iterator[Check]:
    """A batch in two parts gives what it gives in one: `v([a; b]) = [v(a); v(b)]`, for network and decoder.

    How it goes wrong: statistics over the batch, a cache of the last call by batch size or by step, a value per row
    that is taken from another call, a quantisation scale of the whole tensor. Pictures then depend on how much memory
    the machine has.

    Checked: the native case with every call of network and decoder made in two parts of its rows, tensor by tensor
    (kernels may round differently: `fmcheck.tolerance.devices.event_bound`). Both branches of a prompt stay in one
    part. FM801 exchanges neighbours at one batch size; this rule changes the size of the batch itself.

    Fix: keep every reduction inside a row and every cache free of the batch. Source: batch invariance, property F of
    the collected defects.
    """
    base, other = runs["base"], runs["other"]
    require(base.case.batch > 1, "the native case has a single row, which cannot be cut in two")
    yield from agree(base, other, "in two parts of the batch")


def _inference_runs(plan: Plan) -> dict[str, Wish]:
    return {"base": plan.fresh_base, "other": surrounded(plan, "inference_mode")}


def _without_gradients(plan: Plan, runs: Mapping[str, Run]) -> dict[str, Wish]:
    """The same without gradients, where `generate` does not see to that itself: another kernel may serve it."""
    recorded = any(call.grad for call in runs["base"].trace.of("velocity"))
    return {"base": surrounded(plan, "no_grad")} if recorded else {}


@rule(
    "FM818",
    "inference-mode-matters",
    wishes=_inference_runs,
    follow_up=_without_gradients,
    judges_crashes=True,
)
def inference_mode_matters(runs: Mapping[str, Run]) -> Iterator[Check]:
    """Under `torch.inference_mode()` the pipeline gives what it gives under `torch.no_grad()`, bit for bit.

    How it goes wrong: a branch on `torch.is_grad_enabled()` or `is_inference_mode_enabled()` takes another path; a
    table made by an earlier call is written to in place, or asks for a gradient, which raises.

    Checked: the native case under inference mode, on a model object that has been used, against the same without
    gradients: every recorded tensor bit for bit, since the same kernels serve both; an exception is a finding. What
    the mode leaves behind in a model (tables that cannot be trained through) is not looked for.

    Fix: branch on an argument, never on a mode of autograd; make tables anew or as buffers. Source: PyTorch, autograd
    mechanics, inference mode.
    """
    base, other = runs["base"], runs["other"]
    require(base.failure is None, f"run {base.name!r}: {base.failure}")
    yield exact(other.failure is None, f"under inference mode {other.failure}")
    if other.failure is None:
        yield from same_bits(base, other, "under inference mode")


@rule(
    "FM819",
    "attention-backend-matters",
    wishes=lambda plan: {"base": plan.fresh_base} | attention_runs(plan),
    judges_crashes=True,
)
def attention_backend_matters(runs: Mapping[str, Run]) -> Iterator[Check]:
    """Every backend of `scaled_dot_product_attention` gives what the default one gives, up to rounding.

    How it goes wrong: a row of the mask hides everything, for which backends answer NaN, zero or the mean; a mask of
    the wrong kind (added where it should hide) is read by one and refused by the other; a branch asks which backend
    is on and computes the attention by hand.

    Checked: the native case under each backend that the device may have, tensor by tensor
    (`fmcheck.tolerance.devices.event_bound`). One that cannot serve the call is left out, and a note says so. Not
    informative where the backends that serve differ in no bit: attention is written by hand, or one serves it always.

    Fix: give every query a key that it may see; boolean masks, True for what is seen. Source: PyTorch,
    torch.nn.functional.scaled_dot_product_attention and torch.nn.attention.sdpa_kernel.
    """
    base = runs["base"]
    require(base.failure is None, f"run {base.name!r}: {base.failure}")
    served = {name: run for name, run in runs.items() if name != "base" and run.failure is None}
    for name, run in runs.items():
        if run.failure is not None:
            yield exact(True, f"attention backend {name} is left out: {run.failure}", severity="note")
    different = {name: run for name, run in served.items() if differ(base, run)}
    require(bool(different), f"no attention backend ({', '.join(served) or 'none serves'}) changes a bit")
    for name, run in different.items():
        yield from agree(base, run, f"with attention backend {name}")


def _reduced_runs(plan: Plan) -> dict[str, Wish]:
    return {"base": plan.fresh_base, "other": surrounded(plan, "reduced-products")}


@rule("FM820", "reduced-products-in-state", wishes=_reduced_runs)
def reduced_products_in_state(runs: Mapping[str, Run]) -> Iterator[Check]:
    """Where products of float32 matrices may be taken in TF32 or bfloat16, the state is still updated in float32.

    How it goes wrong: `torch.set_float32_matmul_precision("high")` makes the network fast, and an update that is
    written as `einsum` or `addmm` loses thirteen bits of the state with it.

    Checked: the native case with reduced products allowed, against the same without: every change of the state is a
    combination of the recorded velocities up to float32's rounding (as in FM501), and all tensors agree up to the
    rounding of the reduced products (`fmcheck.tolerance.devices.event_bound`). Not informative where nothing changes,
    as on most CPUs.

    Fix: `x + dt * v`, elementwise. Source: PyTorch, torch.set_float32_matmul_precision; NVIDIA, TensorFloat-32.
    """
    base, other = runs["base"], runs["other"]
    require(differ(base, other), "reduced precision of products changes no bit of any recorded tensor")
    if other.case.num_steps > 1:
        cause = "the update is a matrix product, which is taken in a short format"
        yield from (_because(check, "with reduced products", cause) for check in wrong_update(other))
    eps = kernel_eps(other.case.torch_dtype, matmul="medium", convolutions_in_tf32=True)
    yield from agree(base, other, "with reduced products", max(eps, eps_of(base)))
