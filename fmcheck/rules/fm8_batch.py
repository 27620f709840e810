"""FM8: batch and text: rows independent of neighbours and order, padding and masked tokens without effect."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from fmcheck.plan import Plan, Run, Wish
from fmcheck.rules.evidence import bitwise, exact, require, require_finite
from fmcheck.rules.fm8_rows import (
    close,
    image_digits,
    image_of,
    parting,
    row_changed,
    row_kept,
    whole_calls,
)
from fmcheck.rules.registry import Check, rule

# Neither the longest nor the shortest prompt of the usual ones, so that sorting by length moves it.
_MIDDLE = 2


def neighbour_runs(plan: Plan) -> dict[str, Wish]:
    rows = range(plan.native.batch) if plan.native.batch > 1 else ()
    return {"base": plan.base} | {str(row): plan.neighbours(row) for row in rows}


@rule("FM801", "batch-leak", wishes=lambda plan: _leak_runs(plan), judges_crashes=True)
def batch_leak(runs: Mapping[str, Run]) -> Iterator[Check]:
    """A row does not depend on its neighbours: `image[i](prompts) = image[i](other prompts in all rows but i)`.

    How it goes wrong: statistics are taken over the batch axis, attention runs over a flattened batch, a value per
    row is broadcast along the width because B equals w, padding to the longest prompt is not masked. A user then gets
    another picture depending on who else is being served.

    Checked: every row of the native batch, one row of a size at which B equals w where there is one, and one row of
    nine. Its image and
    all its rows in the recorded calls are compared bit for bit, since both runs have the same shapes; where other
    prompts give other shapes (a longer padding), kernels may round differently and half of the digits are asked for.
    That equal shapes give equal bits is measured on CPU; on an accelerator a finding may also mean a kernel whose
    result depends on other rows by itself. It cannot see a leak between rows that the prompts do not reach (FM802 may).

    Fix: keep every reduction inside a row; unsqueeze values per row to `[B, 1, 1, 1]`. Source: batch invariance,
    property F of the collected defects; development log, defect 6.
    """
    base = runs["base"]
    failure = next((run.failure for name, run in runs.items() if run.failure and "size" not in name), None)
    require(failure is None, str(failure))
    require(base.case.batch > 1, "the native case has a single row, so no row has a neighbour")
    for row in range(base.case.batch):
        yield _undisturbed(base, runs[str(row)], row)
    # A size that the pipeline refuses says nothing about its batches.
    for name, row in (("size", 0), ("size nine", _MIDDLE)):
        if name in runs and runs[name].failure is None and runs[f"{name} kept"].failure is None:
            yield _undisturbed(runs[name], runs[f"{name} kept"], row)


def _leak_runs(plan: Plan) -> dict[str, Wish]:
    size = plan.other_size
    other = {"size": size, "size kept": plan.neighbours(0, size.case)} if size.case.batch > 1 else {}
    nine = {"size nine": plan.crowd, "size nine kept": plan.neighbours(_MIDDLE, plan.crowd.case)}
    return neighbour_runs(plan) | other | nine


def _undisturbed(base: Run, other: Run, row: int) -> Check:
    moved = any(row_changed(base, other, j) for j in range(base.case.batch) if j != row)
    require(moved, "other prompts change nothing in their own rows (see FM806), so a leak could not show")
    return row_kept(base, other, row, "the other prompts were replaced")


@rule("FM802", "nan-leak", wishes=lambda plan: _poison_runs(plan), judges_crashes=True)
def nan_leak(runs: Mapping[str, Run]) -> Iterator[Check]:
    """NaN in all other rows leaves a row finite and as it was, bit for bit: `0 * NaN` is NaN, so no leak is too small.

    How it goes wrong: as in FM801, also through a weight that happens to be zero or a leak below the last digit.
    One broken prompt then blackens everybody's pictures.

    Checked: for every row, that it is the same when all other rows of the text encoder's and the network's outputs
    are NaN. A pipeline that refuses NaN by raising is not judged. The outputs of the observed points are replaced, so
    leaks inside the network are seen from its second evaluation on, and inside the text encoder not at all.

    Fix: as for FM801. Source: `NaN` is absorbing in every sum and product (IEEE 754, section 6.2).
    """
    base = runs["base"]
    require(base.failure is None, f"run 'base': {base.failure}")
    batch = base.case.batch
    require(batch > 1, "the native case has a single row, so no row has a neighbour")
    require_finite(base.result)
    require(whole_calls(base), "the network is called on parts of the batch, whose rows are not told apart")
    refused = []
    for row in range(batch):
        poisoned = runs[str(row)]
        if poisoned.failure is not None:
            refused.append(poisoned.failure)
            continue
        require(
            _poison_arrived(poisoned, row), "NaN in the velocities never reaches the state or the image (see FM605)"
        )
        image = image_of(poisoned, row)
        yield exact(
            bool(torch.isfinite(image).all()),
            f"NaN in all other rows makes {_share(~torch.isfinite(image))} of the image of row {row} NaN or infinite",
            where=f"row {row} of {batch}",
            diagnosis=parting(base, poisoned, row).cause,
        )
        if bool(torch.isfinite(image).all()):
            yield row_kept(base, poisoned, row, "all other rows were filled with NaN")
    require(len(refused) < batch, f"the pipeline refuses NaN: {next(iter(refused), '')}")


def _poison_runs(plan: Plan) -> dict[str, Wish]:
    rows = range(plan.native.batch) if plan.native.batch > 1 else ()
    return {"base": plan.base} | {str(row): plan.poisoned(row) for row in rows}


def _poison_arrived(run: Run, row: int) -> bool:
    seen = [call.inputs.get("x") for call in run.trace.calls if call.role in ("velocity", "sample", "decode")]
    tensors = [run.result, *(x for x in seen if isinstance(x, Tensor))]
    others = [j for j in range(run.case.batch) if j != row]
    return any(not bool(torch.isfinite(x[j :: run.case.batch]).all()) for x in tensors for j in others)


@rule(
    "FM803",
    "order-dependence",
    needs=("velocity", "text"),
    wishes=lambda plan: {"base": plan.base, "permuted": plan.permuted},
)
def order_dependence(runs: Mapping[str, Run]) -> Iterator[Check]:
    """Permuted prompts with their noise give permuted images: `G(P z) = P G(z)`.

    How it goes wrong: results are put back in the wrong order after sorting by length or splitting the batch, a row's
    number enters the computation, the first row serves as reference for all.

    Checked: prompts and text latents rotated by one row, images against the rotated images. Rows may take other lanes
    of a kernel, so half of the digits are asked for. Not informative where the flow starts at noise, which stays
    with the row, or where the rows' images are equal.

    Fix: undo every sorting and splitting by the same index. Source: permutation equivariance, property F of the
    collected defects.
    """
    base, permuted = runs["base"], runs["permuted"]
    spec = base.subject.spec
    require(base.case.batch > 1, "the native case has a single row, so there is nothing to permute")
    require(spec.initial_state == "text_latent", "the flow starts at noise, which does not follow the prompts")
    image, found = base.result, permuted.result
    expected = image.roll(-1, dims=0)
    require(image.shape == found.shape, "the two runs return images of different shapes (see FM702)")
    require(not bitwise(image, expected), "all rows have the same image (see FM806)")
    require_finite(image, found)
    yield close(
        found,
        expected,
        image_digits(base),
        "prompts rotated by one row do not give images rotated by one row",
        diagnosis="the images stay in their order"
        if bitwise(found, image)
        else "a row's number or place has an effect",
    )


def _share(flags: Tensor) -> str:
    return f"{int(flags.sum())} of {flags.numel()} values"


@rule(
    "FM807",
    "row-time-ignored",
    needs=("velocity", "velocity.time"),
    wishes=lambda plan: {"base": plan.base, "times": plan.row_times, "shifted": plan.shifted_time},
)
def row_time_ignored(runs: Mapping[str, Run]) -> Iterator[Check]:
    """The velocity of a row depends on its own time and on no other row's: `v[i] = v(x[i], t[i])`.

    How it goes wrong: the network embeds the time of the first row and spreads it over the batch, or that of the
    first half over both. Samplers do not notice, since all rows have one time; in training, where every row has its
    own, all but one are told another row's time.

    Checked: the first network call of a run in which the recorder hands it a time that is a quarter of the range away
    in every row but the first (of a doubled batch, in the first half only): the velocities of those rows must change,
    and all others must stay, bit for bit. Not informative for a single row, for one time for all rows, and when the
    velocity does not depend on time.

    Fix: embed the whole `[N]` tensor of times. Source: one time a row, arXiv 2210.02747, section 4; property F of the
    collected defects.
    """
    batch = runs["base"].case.batch
    require(batch > 1, "the native case has a single row, so no row has another one's time")
    outputs = [run.trace.of("velocity")[0].output for run in runs.values() if run.trace.of("velocity")]
    given_all = [output for output in outputs if output is not None and len(output) >= batch]
    require(len(given_all) == len(runs), "the first network call has not a row for every prompt")
    require_finite(*given_all)
    plain, moved, shifted = given_all
    require(not torch.equal(plain, shifted), "the velocity does not depend on the time at all (see FM310)")
    for row in range(len(plain)):
        same, own = bitwise(plain[row], moved[row]), 0 < row < batch
        yield exact(
            same != own,
            f"the velocity of row {row} of {len(plain)} "
            + ("does not depend on its own time" if own else "changes with the times of other rows"),
            where=f"velocity[0], row {row}",
            diagnosis="the time of one row, or of one half, serves others too",
        )
