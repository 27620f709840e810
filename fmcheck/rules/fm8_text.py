"""FM8, continued: prompts: padding and masked tokens without effect, every word of a prompt with one."""

from collections.abc import Iterator, Mapping

from torch import Tensor

from fmcheck.plan import Plan, Run, Wish
from fmcheck.rules.evidence import bitwise, ever_moves, exact, require, require_finite, unconditional_only
from fmcheck.rules.fm8_batch import neighbour_runs
from fmcheck.rules.fm8_rows import image_of, row_kept, same_images, same_rows
from fmcheck.rules.registry import Check, rule


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


@rule("FM806", "rows-alike", wishes=lambda plan: _twoneighbour_runs(plan), judges_crashes=True)
def rows_alike(runs: Mapping[str, Run]) -> Iterator[Check]:
    """The prompt of a row shows in its image: another prompt gives another image, and so do two rows with two prompts.

    How it goes wrong: all rows get the first row's embedding, the prompt is replaced by its null, a cache answers with
    the last prompt, the tokenizer maps everything to one token or cuts the end of the prompt off.

    Checked: the same seed with other prompts, row by row, at the native size and at another one; the longest prompt
    without its last word; and all rows of the native batch with each other. It does not ask whether the picture shows
    what the prompt says.

    Fix: follow the tokens of one row to its state. Source: property B of the collected defects, for the prompt.
    """
    base = runs["base"]
    batch, prompts = base.case.batch, base.case.prompts
    failure = next((run.failure for name, run in runs.items() if run.failure and not name.startswith("size")), None)
    require(failure is None, str(failure))
    require(batch > 1, "the native case has a single row, so there are no rows to tell apart")
    moves = ever_moves(base) or base.subject.spec.initial_state == "text_latent"
    require(moves, "every velocity is zero (zero-initialised output layer?), and the flow starts at noise")
    require(not unconditional_only(base), "at this scale the result is the unconditional branch, which has no prompt")
    require_finite(base.result)
    yield from _other_prompts_at_another_size(runs)
    yield _end_of_prompt(base, runs["cut"])
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


def _twoneighbour_runs(plan: Plan) -> dict[str, Wish]:
    """Enough to give every row another prompt once."""
    few = {name: wish for name, wish in neighbour_runs(plan).items() if name in ("base", "0", "1")}
    size = plan.other_size
    return few | {"size": size, "size 0": plan.neighbours(0, size.case), "cut": plan.cut_short}


def _other_prompts_at_another_size(runs: Mapping[str, Run]) -> Iterator[Check]:
    before, after = runs["size"], runs["size 0"]
    # A size that the pipeline refuses says nothing about its prompts.
    if before.failure is None and after.failure is None:
        for row in range(1, before.case.batch):
            yield exact(
                not bitwise(image_of(before, row), image_of(after, row)),
                f"at {before.case.height}x{before.case.width} the image of row {row} is the same, bit for bit, with "
                "another prompt",
                where=f"row {row} of {before.case.batch}, runs {before.name} and {after.name}",
                diagnosis=_prompt_lost(before, after, row),
            )


def _end_of_prompt(base: Run, cut: Run) -> Check:
    row = next((i for i, p in enumerate(base.case.prompts) if p != cut.case.prompts[i]), None)
    if row is None or not cut.case.prompts[row]:
        return exact(True, "the prompts have no two words, so their end was not tested", severity="note")
    return exact(
        not bitwise(image_of(base, row), image_of(cut, row)),
        f"the image of row {row} is the same, bit for bit, without the last of the "
        f"{len(base.case.prompts[row].split())} words of its prompt",
        where=f"row {row} of {base.case.batch}, runs base and {cut.name}",
        diagnosis="the prompt is cut off before its end" if _prompt_lost(base, cut, row) else None,
    )


def _prompt_lost(base: Run, other: Run, row: int) -> str | None:
    texts = [(a, b) for a, b in zip(base.trace.of("text"), other.trace.of("text"), strict=False)]
    if not texts:
        return None
    batch = base.case.batch
    if all(same_rows(a.output, b.output, row, batch) for a, b in texts):
        return "the text encoder answers the same for both prompts"
    return "the text latent differs, but does not reach the image"
