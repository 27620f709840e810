"""FM8: parity of a compiled network, and what makes it compile again."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from fmcheck.parity import compiled_run, counted_runs
from fmcheck.plan import Run
from fmcheck.record.compiled import Compiled, Counted, CountedCall, forget_compiled
from fmcheck.rules.evidence import exact, measured, require, within
from fmcheck.rules.fm8_parting import agree
from fmcheck.rules.registry import Check, rule
from fmcheck.tolerance.compiling import numbers_allowed, sizes_allowed


@rule(
    "FM811",
    "compiling-changes-result",
    wishes=lambda plan: {"base": plan.fresh_base, "compiled": compiled_run(plan)},
    costly="compiles the network, which takes about 30 s",
    finish=forget_compiled,
)
def compiling_changes_result(runs: Mapping[str, Run]) -> Iterator[Check]:
    """A compiled network answers what it answers uncompiled, up to rounding: `compile(v)(x, t) = v(x, t)`.

    How it goes wrong: a branch on `torch.compiler.is_compiling()` takes a path that nobody tested; a custom kernel
    registers a wrong fake or a wrong in-place annotation; a tensor is read after it was written to in place through
    another view; a random layer is traced as a constant.

    Checked: the native case with the network through `torch.compile` (inductor; aot_eager where inductor does not
    work, and the report says which), tensor by tensor against `fmcheck.tolerance.devices.event_bound`: fused kernels
    sum in another order. Not informative where the network cannot be compiled at all.

    Fix: one path for both; test custom operators with `torch.library.opcheck`. Source: PyTorch, torch.compile
    troubleshooting, accuracy debugging.
    """
    base, compiled = runs["base"], runs["compiled"]
    call = compiled.wish.disturbances[0].around
    backend = call.backend if isinstance(call, Compiled) else ""
    require(bool(backend), "the velocity network was never called")
    yield measured(f"the network compiles with {backend}")
    yield from agree(base, compiled, f"compiled by {backend}")


@rule(
    "FM812",
    "compiles-again",
    wishes=counted_runs,
    judges_crashes=True,
    costly="traces the network at a dozen sizes, which takes about 10 s",
    finish=forget_compiled,
)
def compiles_again(runs: Mapping[str, Run]) -> Iterator[Check]:
    """A compiled network is compiled for its shapes and for nothing else: no step, time or scale makes it compile anew.

    How it goes wrong: the time arrives as a Python float that enters the graph, `.item()` and an `if` on it, a counter
    of steps kept on the module, a cache that is keyed by shapes: the network is compiled at every step or every new
    size, until the compiler gives up and runs it uncompiled, slower than if nobody had asked for it.

    Checked: small cases of several batches, heights, widths and scales through one compiled network, with a backend
    that only counts. A third call of the same shapes must compile nothing (the second may see a table that the first
    has filled, and the compiler takes a Python number for a constant at first); and of several sizes of an axis the
    last one must not be compiled for again (`fmcheck.tolerance.compiling`). A warning, since the numbers are right; a
    network that cuts its batch into chunks, say, really is another program for every number of them.

    Fix: pass times as tensors; keep counters and caches out of the network, or mark what varies with
    `torch._dynamo.mark_dynamic`. Source: PyTorch, torch.compile, dynamic shapes and recompilation.
    """
    first = next(iter(runs.values()))
    require(first.failure is None, f"run {first.name!r}: {first.failure}")
    counted = first.wish.disturbances[0].around
    calls = counted.calls if isinstance(counted, Counted) else []
    require(bool(calls), "the velocity network was never called")
    yield from _again(calls)
    kinds: dict[tuple[object, ...], list[CountedCall]] = {}
    for call in calls:
        kinds.setdefault(call.kind, []).append(call)
    for group in kinds.values():
        yield from _by_axis(group)


def _by_axis(calls: Sequence[CountedCall]) -> Iterator[Check]:
    """Every axis that varied, once: axes that always have the same size as each other are one."""
    named: dict[tuple[int, ...], str] = {}
    for tensor, axes in enumerate(zip(*(call.sizes for call in calls), strict=True)):
        for axis, sizes in enumerate(zip(*axes, strict=True)):
            named.setdefault(sizes, f"axis {axis} of tensor {tensor}")
    for sizes, name in named.items():
        # A symbol stands for sizes from 2 on, since 1 broadcasts; that is compiled for in any case.
        first = {size: call for size, call in reversed(list(zip(sizes, calls, strict=True))) if size > 1}
        further = [call for call in calls if any(call is found for found in first.values()) and call is not calls[0]]
        made = [call for call in further if call.compiled]
        if further:
            yield within(
                len(made),
                sizes_allowed(len(further)),
                f"the network was compiled for {len(made)} of {len(further)} further sizes of an axis",
                where=f"{name}, sizes {', '.join(map(str, dict.fromkeys(sizes)))}",
                diagnosis=_reason(made[-1]) if made else None,
                severity="warning",
            )


def _again(calls: Sequence[CountedCall]) -> Iterator[Check]:
    """Calls that differ from earlier ones in nothing but values; a second one may compile what the first has filled."""
    times_seen: Counter[tuple[object, ...]] = Counter()
    spare = numbers_allowed(calls[0])
    for number, call in enumerate(calls):
        times_seen[call.signature] += 1
        if times_seen[call.signature] < 3:
            continue
        spare -= call.compiled
        yield exact(
            not call.compiled or spare >= 0,
            f"call {number} compiled the network again, although its shapes had been seen "
            f"{times_seen[call.signature] - 1} times",
            where=_shapes(call),
            diagnosis=_reason(call),
            severity="warning",
        )
        if call.compiled and spare < 0:
            break


def _shapes(call: CountedCall) -> str:
    return "shapes " + " ".join(str(list(sizes)) for sizes in call.sizes)


def _reason(call: CountedCall) -> str:
    return f"the guard that failed: {call.reason}" if call.reason else "the compiler names no guard"
