"""FM7, continued: what `generate()` must leave as it found it, and whether a second call is like the first."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from fmcheck.plan import Plan, Run, Wish
from fmcheck.record.points import find_output
from fmcheck.rules.evidence import apart, bitwise, exact, require
from fmcheck.rules.registry import Check, rule
from fmcheck.subject import ENTRIES

_COMPONENTS = ("text", "velocity", "sample", "decode")


@rule("FM709", "model-changed")
def model_changed(run: Run) -> Iterator[Check]:
    """`generate()` leaves the model as it found it: values, gradient flags, train or eval modes, hooks.

    How it goes wrong: EMA weights are swapped in and not back, `eval()` is called and training goes on without
    dropout, running statistics move, a hook is registered in every call.

    Checked: every parameter and buffer of the model, bit for bit, and modes, flags and hooks, before and after every
    plain run. Parameters that appear are FM403.

    Fix: restore in a `finally`. Source: training continued from EMA weights after a preview, huggingface/diffusers
    issue 2321.
    """
    require(run.trace.modules > 0, "no module is reachable from what build returned, so its state cannot be compared")
    changes = [change for change in run.trace.model_changes if not change.endswith(" appeared")]
    yield exact(not changes, f"the run changed the model: {'; '.join(changes[:3])}{_more(changes)}")


def _more(changes: list[str]) -> str:
    return f" and {len(changes) - 3} more" if len(changes) > 3 else ""


@rule("FM710", "inputs-changed", kinds=ENTRIES)
def inputs_changed(run: Run) -> Iterator[Check]:
    """Nobody's input is written to: the tensors that the caller passes, and those that the loop passes on.

    How it goes wrong: `x += dt * v` on the caller's latents, padding masked in place, a network that scales its input
    in place, so that the state which the loop then updates is not the one it integrated.

    Checked: the token tensors before and after the run, and the input tensors of every observed call before and after
    that call, bit for bit.

    Fix: write out of place, or `clone()` first. Source: a node that writes into a latent shared upstream,
    Lightricks/ComfyUI-LTXVideo issue 552.
    """
    entries = [call for call in run.trace.calls if call.role == run.wish.kind]
    changed = {*run.trace.input_changes, *(name for call in entries for name in call.mutated)}
    yield exact(not changed, f"the run changed the tensors it was given: {', '.join(sorted(changed))}")
    for call in run.trace.calls:
        if call.role != run.wish.kind:
            message = f"{call.role} wrote into its input {', '.join(call.mutated)}"
            yield exact(not call.mutated, message, where=call.name)


def _first_and_again(plan: Plan) -> Mapping[str, Wish]:
    return {"base": plan.base, "other": plan.other_seed, "again": plan.again, "after fault": plan.after_fault}


@rule("FM711", "not-repeatable", wishes=_first_and_again)
def not_repeatable(runs: Mapping[str, Run]) -> Iterator[Check]:
    """A call depends on its arguments alone: A, B, A on one object gives the same numbers for A, bit for bit.

    How it goes wrong: a position table or mapping layer rebuilt for the last size, a text cache keyed by too little,
    a noise source kept from the first call, a scheduler whose state is not reset.

    Checked: the native case, another size, another seed, and the native case again; and once more after a run that
    ended in an exception inside the network. The initial state, every state and velocity, the pictures, and which
    generators were drawn from; the first difference is reported. Also that the pictures of two earlier calls are still
    what they were. Kernels that are not deterministic (some on
    CUDA) fail too, and rightly: nothing else here could be reproduced.

    Fix: keep nothing between calls, or key it by everything it depends on. Source: second pipeline call differs,
    huggingface/diffusers issue 4875.
    """
    base = runs["base"]
    for name in ("again", "after fault"):
        checks = list(_repeats(base, runs[name]))
        yield from checks
        if not all(check.holds for check in checks):
            break
    for run in (base, runs["other"]):
        returned = find_output(run.trace.returned, None)
        yield exact(
            returned is not None and bitwise(returned.detach(), run.result),
            "the pictures of an earlier call are no longer what they were when it returned",
            where=f"run {run.name}",
            diagnosis="a buffer of the model is returned, and the next call writes into it",
        )


def _repeats(base: Run, again: Run) -> Iterator[Check]:
    where = f"run {again.name}"
    first, second = base.trace.of("velocity"), again.trace.of("velocity")
    yield exact(
        len(first) == len(second),
        f"{len(first)} network calls the first time, {len(second)} the second",
        where=where,
    )
    for name, before, after, cause in _pairs(base, again):
        same = bitwise(before, after)
        message = "" if same else f"{name} differs on the second call; {apart(before, after)}"
        yield exact(same, message, where=where, diagnosis=cause)
        if not same:
            break
    else:
        # Which generators, and not where: a cache of prompts rightly leaves out calls that stood between the draws.
        first_drawn, then_drawn = (sorted({draw.source for draw in run.trace.draws}) for run in (base, again))
        yield exact(
            first_drawn == then_drawn,
            f"drawn from {', '.join(first_drawn) or 'nothing'} the first time and from "
            f"{', '.join(then_drawn) or 'nothing'} the second, although the pictures are the same",
            where=where,
            diagnosis="noise is kept from the first call, so that a generator which has moved on is ignored",
        )


def _on_a_new_object(plan: Plan) -> Mapping[str, Wish]:
    return {
        "base": plan.base,
        "wide": plan.wide,
        "fresh wide": plan.fresh_wide,
        "fresh base": plan.fresh_base,
    }


@rule("FM717", "depends-on-history", wishes=_on_a_new_object)
def depends_on_history(runs: Mapping[str, Run]) -> Iterator[Check]:
    """A call gives the same on a used model as on a new one: what ran before has no effect, bit for bit.

    How it goes wrong: position tables cached by the number of tokens, which two shapes share; the first size that is
    asked for decides a buffer; flags cached by the number of rows. A, B, A on one object cannot show this, since the
    first A has filled the cache.

    Checked: the model is built once more; on the new object the wide case runs first and the native case second, on
    the old one it was the other way round. States, velocities and pictures of both cases must agree. Not informative
    where `build` returns the same object again, or other weights.

    Fix: key a cache by everything that its content depends on. Source: value searched where two entries are equal,
    huggingface/diffusers issue 5746; property J of the collected defects.
    """
    for name in [name.removeprefix("fresh ") for name in runs if name.startswith("fresh ")]:
        used, fresh = runs[name], runs[f"fresh {name}"]
        for part, before, after, cause in _pairs(fresh, used):
            same = bitwise(before, after)
            size = f"{used.case.height}x{used.case.width}"
            yield exact(
                same,
                "" if same else f"{part} at {size} is another one on a new model object; {apart(before, after)}",
                where=f"runs {used.name} and {fresh.name}",
                diagnosis=f"{cause}; a cache that another size has filled?",
            )
            if not same:
                break


def _pairs(base: Run, again: Run) -> Iterator[tuple[str, Tensor, Tensor, str]]:
    """What both runs saw, in order: `(name, first, second, what a difference there means)`."""
    kept = "the loop keeps something from call to call"
    for one, other in zip(base.trace.of("velocity"), again.trace.of("velocity"), strict=False):
        start = "the initial state" if one.number == 0 else f"the state of {one.name}"
        cause = "text latent, noise or mapping is kept from an earlier call" if one.number == 0 else kept
        states = one.inputs.get("x"), other.inputs.get("x")
        if isinstance(states[0], Tensor) and isinstance(states[1], Tensor):
            yield start, states[0], states[1], cause
        if one.output is not None and other.output is not None:
            yield f"the output of {one.name}", one.output, other.output, "the network keeps something from call to call"
    yield "the result", base.result, again.result, "what follows the loop keeps something from call to call"


@rule("FM713", "process-changed", kinds=ENTRIES)
def process_changed(run: Run) -> Iterator[Check]:
    """Process-wide settings are as before: grad mode, default dtype, threads, deterministic flags, environment.

    How it goes wrong: `torch.set_grad_enabled(False)` without a context, `torch.set_default_dtype` while a model is
    loaded, `cudnn.benchmark = True` for speed. What breaks is the caller's next step, far away.

    Checked: the settings before and after every plain run and the loss; they are put back for the next run.

    Fix: context managers, or set them in the program and not in the library. Source: PyTorch, locally disabling
    gradient computation.
    """
    changes = run.trace.process_changes
    yield exact(not changes, f"{run.wish.kind} left process-wide settings changed: {', '.join(changes)}")


@rule("FM714", "train-mode-sampling")
def train_mode_sampling(run: Run) -> Iterator[Check]:
    """No dropout and no batch normalisation is in train mode while pictures are made.

    How it goes wrong: `inference_mode()` is taken for `eval()`, an adapter added after `eval()` starts in train mode,
    a preview in the middle of training never switches.

    Checked: every call of `text`, `velocity`, `sample` and `decode` that is a method of a module: whether a dropout
    layer with p > 0 or a batch normalisation inside it is in train mode. Functional dropout is not seen here, but it
    draws (FM706).

    Fix: `model.eval()` in `generate()`, and back in a `finally`. Source: train-mode layers during sampling,
    lucidrains/denoising-diffusion-pytorch issue 327.
    """
    for call in run.trace.calls:
        if call.role in _COMPONENTS:
            yield exact(
                not call.dropout,
                f"{call.role} ran with dropout or batch normalisation in train mode",
                where=call.name,
                diagnosis="eval() was never called" if call.training else "a layer inside was left in train mode",
            )


@rule("FM715", "grad-recording")
def grad_recording(run: Run) -> Iterator[Check]:
    """`generate()` records no gradients: grad mode is off whenever the velocity network is called.

    How it goes wrong: `@torch.no_grad()` is missing. Every step keeps its activations alive, and memory grows with the
    number of steps. Numbers are right, so this is a warning.

    Checked: grad mode at every velocity call of every plain run. A result with a graph is FM704.

    Fix: decorate `generate()`, or wrap the call in `torch.inference_mode()` in the subject if callers do so.
    Source: PyTorch, locally disabling gradient computation.
    """
    calls = run.trace.of("velocity")
    require(bool(calls), "the velocity network was never called")
    recording = [call.name for call in calls if call.grad]
    yield exact(
        not recording,
        f"gradients were recorded in {len(recording)} of {len(calls)} velocity calls",
        severity="warning",
        diagnosis="torch.no_grad() is missing around generate",
    )
