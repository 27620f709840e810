"""FM8: batch and text: rows independent of neighbours and order, padding and masked tokens without effect."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from fmcheck.plan import Plan, Run, Wish
from fmcheck.rules.evidence import bitwise, exact, require, require_finite
from fmcheck.rules.fm8_rows import (
    close,
    half_of_digits,
    has_rows,
    image_of,
    parting,
    row_changed,
    row_kept,
    same_images,
    same_rows,
)
from fmcheck.rules.registry import Check, rule


def _neighbour_runs(plan: Plan) -> dict[str, Wish]:
    rows = range(plan.native.batch) if plan.native.batch > 1 else ()
    return {"base": plan.base} | {str(row): plan.neighbours(row) for row in rows}


@rule("FM801", "batch-leak", wishes=lambda plan: _leak_runs(plan), judges_crashes=True)
def batch_leak(runs: Mapping[str, Run]) -> Iterator[Check]:
    """A row does not depend on its neighbours: `image[i](prompts) = image[i](other prompts in all rows but i)`.

    How it goes wrong: statistics are taken over the batch axis, attention runs over a flattened batch, a value per
    row is broadcast along the width because B equals w, padding to the longest prompt is not masked. A user then gets
    another picture depending on who else is being served.

    Checked: every row of the native batch, and one row of a size at which B equals w where there is one. Its image and
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
    if "size" in runs and runs["size"].failure is None and runs["size 0"].failure is None:
        yield _undisturbed(runs["size"], runs["size 0"], 0)


def _leak_runs(plan: Plan) -> dict[str, Wish]:
    size = plan.other_size
    other = {"size": size, "size 0": plan.neighbours(0, size.case)} if size.case.batch > 1 else {}
    return _neighbour_runs(plan) | other


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
    partial = [
        call.name for call in base.trace.calls if call.role in ("text", "velocity") and not has_rows(call, batch)
    ]
    require(not partial, f"{next(iter(partial), '')} has not a row for every prompt, so rows cannot be told apart")
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
        half_of_digits(base, expected),
        "prompts rotated by one row do not give images rotated by one row",
        diagnosis="the images stay in their order"
        if bitwise(found, image)
        else "a row's number or place has an effect",
    )


@rule(
    "FM804",
    "padding-leak",
    needs=("velocity", "tokenize", "pad"),
    wishes=lambda plan: {"base": plan.base, "padded": plan.padded},
)
def padding_leak(runs: Mapping[str, Run]) -> Iterator[Check]:
    """More padding changes nothing: `G(ids + padding, mask + 0) = G(ids, mask)`.

    How it goes wrong: the mask is built for the tokenizer's length and ignored later, is used in the text encoder but
    not in the network, is added as 0 and 1 to the scores, or a mean is taken over all tokens.

    Checked: the images with three more padding tokens a row and the same noise. Other lengths mean other kernels, so
    half of the digits are asked for.

    Fix: pass the mask to everything that reads tokens, as a boolean. A model that was trained without a mask must be
    fed one fixed length; declare that as an expected failure. Source: property G of the collected defects.
    """
    base, padded = runs["base"], runs["padded"]
    lengths = _token_tensors(base), _token_tensors(padded)
    require(
        not lengths[0] or any(a.shape != b.shape for a, b in zip(*lengths, strict=False)),
        "the padded tokens reach the model with the same length (cut off, or padded to one length before)",
    )
    yield from same_images(base, padded, "three more padding tokens a row change the images")


@rule(
    "FM805",
    "masked-text-leak",
    needs=("velocity", "tokenize", "masked"),
    wishes=lambda plan: {"base": plan.base, "masked": plan.masked},
)
def masked_text_leak(runs: Mapping[str, Run]) -> Iterator[Check]:
    """Tokens under the mask have no influence at all: other values there give the same images, bit for bit.

    How it goes wrong: a mask that is added as a small negative number, that is inverted, that covers keys but not a
    pooled mean, or that one of several text encoders never gets.

    Checked: both runs have the same shapes and noise, and only the values under the mask differ, so the images must
    agree in every bit (measured on CPU). Not informative where nothing lies under a mask in the native prompts, or
    where the values under it never reach the model.

    Fix: mask scores with minus infinity (or the dtype's lowest number) and weigh pooled means by the mask. Source:
    property G of the collected defects.
    """
    base, masked = runs["base"], runs["masked"]
    tokens = _token_tensors(base), _token_tensors(masked)
    require(
        not tokens[0] or any(not bitwise(a, b) for a, b in zip(*tokens, strict=False)),
        "no token under a mask differs between the two runs (prompts of one length?)",
    )
    for row in range(base.case.batch):
        yield row_kept(base, masked, row, "the tokens under its mask were replaced")


def _token_tensors(run: Run) -> list[Tensor]:
    """The integer tensors that the run was given, read where they first appear."""
    for call in run.trace.calls:
        values = [v for v in call.inputs.values() if isinstance(v, Tensor) and not v.is_floating_point()]
        if call.role in ("generate", "text") and values:
            return values
    return []


@rule("FM806", "rows-alike", wishes=lambda plan: _two_neighbour_runs(plan))
def rows_alike(runs: Mapping[str, Run]) -> Iterator[Check]:
    """The prompt of a row shows in its image: another prompt gives another image, and so do two rows with two prompts.

    How it goes wrong: all rows get the first row's embedding, the prompt is replaced by its null, a cache answers with
    the last prompt, the tokenizer maps everything to one token.

    Checked: the same seed with other prompts, row by row, and all rows of the native batch with each other. It does
    not ask whether the picture shows what the prompt says.

    Fix: follow the tokens of one row to its state. Source: property B of the collected defects, for the prompt.
    """
    base = runs["base"]
    batch, prompts = base.case.batch, base.case.prompts
    require(batch > 1, "the native case has a single row, so there are no rows to tell apart")
    for row in range(batch):
        other = runs["1" if row == 0 else "0"]
        if other.case.prompts[row] != prompts[row]:
            yield exact(
                not bitwise(image_of(base, row), image_of(other, row)),
                f"the image of row {row} is the same, bit for bit, with another prompt",
                where=f"row {row} of {batch}, runs base and {other.name}",
                diagnosis=_prompt_lost(base, other, row),
            )
        for earlier in range(row):
            if prompts[earlier] != prompts[row]:
                yield exact(
                    not bitwise(image_of(base, row), image_of(base, earlier)),
                    f"rows {earlier} and {row} have different prompts and the same image, bit for bit",
                    where="run base",
                    diagnosis="one row's prompt and noise serve several rows",
                )


def _two_neighbour_runs(plan: Plan) -> dict[str, Wish]:
    """Enough to give every row another prompt once."""
    return {name: wish for name, wish in _neighbour_runs(plan).items() if name in ("base", "0", "1")}


def _prompt_lost(base: Run, other: Run, row: int) -> str | None:
    texts = [(a, b) for a, b in zip(base.trace.of("text"), other.trace.of("text"), strict=False)]
    if not texts:
        return None
    batch = base.case.batch
    if all(same_rows(a.output, b.output, row, batch) for a, b in texts):
        return "the text encoder answers the same for both prompts"
    return "the text latent differs, but does not reach the image"


def _share(flags: Tensor) -> str:
    return f"{int(flags.sum())} of {flags.numel()} values"
