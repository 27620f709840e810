"""FM9: training against inference: time argument and law, path, target, null rows, autoencoder, randomness."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from fmcheck.plan import Plan, Run, Wish
from fmcheck.record.training import TrainingReading
from fmcheck.record.training_pair import TrainingPair, other_data_ends
from fmcheck.rules.evidence import exact, require, require_finite, within
from fmcheck.rules.fm9_checks import (
    encoded_images,
    law_of_null_times,
    null_counts,
    null_rows_exchanged,
    null_rows_trained,
    path_rounding,
    rows_on_line,
    share_of_null,
    times_of_answers,
    times_on_line,
    tokens_of,
)
from fmcheck.rules.fm9_explain import (
    distance_to_law,
    explain_argument,
    explain_path,
    explain_times,
    feeds_path,
    other_units,
)
from fmcheck.rules.fm9_pull import pulls
from fmcheck.rules.registry import Check, rule
from fmcheck.spec import FlowSpec
from fmcheck.tolerance import ks_critical, told_bound

# With so many, uniform and logit-normal(0, 1) times are told from each other in at least 99 of 100 runs.
_ENOUGH_TIMES = 832
# About 26 null rows at the usual probability of 0.1; FM905 says nothing about their exchange when they are too few.
_PAIRS = 256


def _reading(run: Run) -> TrainingReading:
    return TrainingReading(run.trace, run.subject.spec)


@rule(
    "FM901",
    "train-time-argument",
    conventions=("time_argument",),
    needs=("velocity", "velocity.time", "loss", "encode"),
    wishes=lambda plan: {"loss": plan.loss},
    follow_up=lambda plan, runs: _moved_loss(plan, runs),
)
def train_time_argument(runs: Mapping[str, Run]) -> Iterator[Check]:
    """In training the network is told the time of its state: `argument = offset + slope t` for the `t` of `x_t`.

    How it goes wrong: `1 - t` on one side only, the log-SNR of another schedule, `t` where inference passes `4 - 8t`,
    a time drawn twice, a time rounded to an integer step. The network learns a velocity for times that the sampler
    never names.

    Checked: in one training loss, every conditional row's time is solved from its own state by least squares on the
    line from the text latent to the encoded image, whatever the code looks like, and compared with the argument.
    Where the source end cannot be seen (flows from noise, sizes that need a projection), the loss is repeated with
    other encoded images and the same draws: `x_t' - x_t = t (x1' - x1)`. Rows that are on no such line are FM903.
    A path that runs backwards cannot be told from a reversed time.

    Fix: compute the argument by the function that the sampler uses. Source: the contract of training and inference,
    property M of the collected defects.
    """
    run = runs["loss"]
    reading, spec = _reading(run), run.subject.spec
    pair = TrainingPair(reading, _reading(runs["moved"])) if "moved" in runs else None
    rows, time, rounding = times_on_line(reading) if pair is None else times_of_answers(pair)
    require(len(rows) > 0, "no conditional row lies on the declared path (see FM903)")
    told, allowed = reading.told[rows], rounding + told_bound(spec, reading.argument_dtype)
    require_finite(told, time)
    used = (told - time).abs()
    worst = int((used / allowed).argmax())
    yield within(
        float(used[worst]),
        float(allowed[worst]),
        f"the network is told t = {float(told[worst]):.6g} of a state at t = {float(time[worst]):.6g}; "
        f"{int((used > allowed).sum())} of {len(rows)} rows disagree",
        where=f"run {run.name}, row {int(rows[worst])} of {reading.batch}",
        diagnosis=lambda: explain_argument(told, reading.arguments[rows], time, spec),
    )


def _moved_loss(plan: Plan, runs: Mapping[str, Run]) -> dict[str, Wish]:
    loss = runs["loss"]
    unseen = loss.failure is None and _reading(loss).unknown_source is not None
    return {"moved": plan.moved_loss} if unseen else {}


def _loss_runs(plan: Plan) -> dict[str, Wish]:
    return {"large": plan.large_loss}


@rule(
    "FM902",
    "train-time-distribution",
    conventions=("time_distribution",),
    needs=("velocity", "velocity.time", "loss"),
    wishes=_loss_runs,
)
def train_time_distribution(runs: Mapping[str, Run]) -> Iterator[Check]:
    """Training times follow the declared law, one draw a row: `sup |F_n(t) - F(t)| <= sqrt(ln(2 / p) / 2n)`.

    How it goes wrong: uniform times where the sampler's grid follows logit-normal quantiles, a mean or spread from
    another config, integer division that leaves a few values, a clamp, a sign that mirrors the law.

    Checked: the times that the network is told in one loss over many small images, by the Kolmogorov-Smirnov
    distance. The critical distance (0.09 for 1024 rows) makes all statistical rules together raise at most one false
    alarm in a million runs; uniform times in place of logit-normal(0, 1) ones, 0.117 away, or the reverse, are then
    found with a probability above 0.9999 (exact binomial bound), and too few independent times for 0.99 only ever
    fail. It cannot see deviations smaller than that distance, nor laws that depend on the resolution. One time for a
    whole batch is a warning, as many code bases do that on purpose.

    Fix: draw times in one function and build the sampler's grid from its law, or declare the other law in
    `time_distribution`, `grid_mean`, `grid_std`. Source: Massart, Annals of Probability 18 (1990), for the bound;
    logit-normal times, arXiv 2403.03206, section 3.1.
    """
    run = runs["large"]
    reading, spec = _reading(run), run.subject.spec
    told = reading.told
    require_finite(told)
    yield exact(
        len(set(told.tolist())) > 1,
        f"all {len(told)} rows of a training batch share one time, so its law cannot be tested",
        where=f"run {run.name}",
        severity="warning",
    )
    times = _independent(told)
    distance = distance_to_law(times, spec, told_bound(spec, reading.argument_dtype))
    critical = ks_critical(len(times))
    require(
        len(times) >= _ENOUGH_TIMES or distance > critical,
        f"only {len(times)} independent times, {_ENOUGH_TIMES} are needed",
    )
    yield within(
        distance,
        critical,
        f"the times of {len(times)} training rows are not {_law(spec)} (Kolmogorov-Smirnov distance)",
        where=f"run {run.name}",
        diagnosis=lambda: explain_times(times, spec),
    )


def _independent(times: Tensor) -> Tensor:
    """One time of each draw, where groups of rows share theirs; a coarse law repeats values unevenly."""
    values, counts = times.unique(return_counts=True)  # type: ignore[no-untyped-call]
    shared = len(values) < len(times) and bool((counts == counts[0]).all())
    return values if shared else times


def _law(spec: FlowSpec) -> str:
    if spec.time_distribution == "uniform":
        return "uniform"
    return f"logit-normal with mean {spec.grid_mean:g} and std {spec.grid_std:g}"


@rule("FM903", "train-path", conventions=("sigma_min",), needs=("velocity", "loss", "text", "encode"), kinds=("loss",))
def train_path(run: Run) -> Iterator[Check]:
    """The training state lies on the declared path: `x_t = (1 - (1 - s_min) t) x0 + t x1` for some `t`.

    How it goes wrong: noise is added that the sampler never sees, `sigma_min` is in the target but not in the path,
    the image latent lacks shift or scale, images and prompts of different rows are paired, the text latent is reshaped
    in another order than at inference.

    Checked: in one training loss, the distance of every conditional row's state from the line between the text latent
    as recorded, reshaped, and the encoder's output (as it is, or with the spec's shift and scale applied). The time on
    the line is free; FM901 compares it. It cannot see whether the encoder's own units are the right
    ones (see FM607).

    Fix: build `x_t` from the tensors that inference starts and ends with. Source: conditional optimal transport path,
    arXiv 2210.02747, eq. 22.
    """
    reading = _reading(run)
    on, off = rows_on_line(reading)
    require(len(on) + len(off) > 0, "no conditional row, or both ends of the path are equal in every row")
    line, allowed = reading.line, path_rounding(reading)
    judged = torch.cat([on, off])
    worst = int(judged[(line.residual / allowed)[judged].argmax()])
    yield within(
        float(line.residual[worst]),
        float(allowed[worst]),
        f"{len(off)} of {len(judged)} conditional rows are not on the path from the text latent to {line.end.name}; "
        "distance from it, and what rounding allows",
        where=f"row {worst} of {reading.batch}",
        diagnosis=lambda: explain_path(reading, off),
    )


@rule(
    "FM904",
    "train-target",
    conventions=("prediction", "sigma_min"),
    needs=("velocity", "loss", "encode"),
    kinds=("loss",),
)
def train_target(run: Run) -> Iterator[Check]:
    """The loss pulls the network towards the declared target: `sign(d loss / d v) = sign(v - (x1 - (1 - s_min) x0))`.

    How it goes wrong: the target's sign is that of the other convention, the target is the image or the noise although
    the sampler integrates a velocity, the path's `sigma_min` is missing. Training converges all the same.

    Checked: in one training loss, the gradient by the network's own output, element by element, in conditional rows
    on the declared path. It holds for every loss that adds up a convex function of each element's error, with any
    weights that are not negative; for other losses expect a failure. A difference between two targets shows only where
    an output lies between them, so a `sigma_min` far below the spread of the outputs cannot be seen here (FM903 sees
    it in the path). Where the source end cannot be seen, it is solved from state, time and image. Not informative
    without a gradient.

    Fix: compute the target with the path, in one function. Source: arXiv 2210.02747, eq. 23.
    """
    reading, spec = _reading(run), run.subject.spec
    require_finite(reading.gradient, reading.output, reading.state)
    require(bool(reading.gradient.any()), "the gradient of the loss by the network's output is zero everywhere")
    on_path = None if reading.unknown_source else rows_on_line(reading)[0]
    require(on_path is None or len(on_path) > 0, "no conditional row lies on the declared path (see FM903)")
    # Of the units that x1 may have, those that agree best (or that a known mistake explains) are the loss's own.
    found = list(pulls(reading, on_path))
    pull = min(found, key=lambda pull: pull.against(pull.target(spec))[0])
    if pull.against(pull.target(spec))[0]:
        pull = next((other for other in found if other.explain(spec)), pull)
    wrong, judged = pull.against(pull.target(spec))
    require(judged > 0, "every output is within rounding of its target")
    yield exact(
        wrong == 0,
        f"the gradient pulls {wrong} of {judged} outputs away from the declared target ({spec.prediction!r}, "
        f"x1 is {pull.end}, x0 is {'solved from the state' if on_path is None else 'the text latent'})",
        where=f"{len(pull.output)} conditional rows of {reading.batch}",
        diagnosis=lambda: pull.explain(spec),
    )


@rule(
    "FM905",
    "train-null",
    conventions=("null_probability", "null_means_unconditional"),
    needs=("velocity", "velocity.null", "loss"),
    wishes=lambda plan: _null_runs(plan),
)
def train_null(runs: Mapping[str, Run]) -> Iterator[Check]:
    """A declared share of rows trains the unconditional velocity, and they are the rows that the indicator marks.

    How it goes wrong: the indicator is inverted against inference, is drawn and never passed, rows are dropped with
    another probability, or the dropout acts in train mode only and the loss is computed in eval mode; images are
    exchanged in other rows than the marked ones, or in none; marked rows are left out of the loss, are always the
    first ones, or are those with the earliest times. Guidance then extrapolates from a velocity that was never trained.

    Checked: the number of marked rows among many, by the exact binomial tails, the law of their times, and that they
    are no block (all statistical rules together raise at most one false alarm in a million runs); that the loss pulls
    at them. And whose image each row's state follows, when the same loss is repeated
    with other encoded images: no row that is not marked may follow another row's. Where the flow starts at the text
    latent, marked rows that all keep their own image are a warning, since their source still knows the prompt. A
    code base that decides once for a whole batch is outside of the declared law.

    Fix: draw the indicator once a row and use the same tensor for the network and for the exchange of images; call
    `model.train()` in `Subject.loss` if rows are dropped in train mode only. Source: classifier-free guidance, arXiv
    2207.12598, algorithm 1; the null indicator, CrossFlow, arXiv 2412.15213.
    """
    large, spec = _reading(runs["large"]), runs["large"].subject.spec
    null = large.null
    yield exact(
        null is not None or spec.null_probability == 0,
        f"no null indicator is passed in training, although {spec.null_probability:g} of the rows should be null",
        where=f"run {runs['large'].name}",
    )
    if null is not None:
        yield share_of_null(runs["large"], null)
        yield from law_of_null_times(runs["large"], large, null)
        yield from null_rows_trained(_reading(runs["pairs"]))
    if "moved" in runs and null is not None:
        yield from null_rows_exchanged(TrainingPair(_reading(runs["pairs"]), _reading(runs["moved"])))


def _null_runs(plan: Plan) -> dict[str, Wish]:
    large = plan.large_loss
    pairs = Wish("loss-pairs", large.case.with_batch(_PAIRS), kind="loss")
    if "encode" not in plan.subject.points:
        return {"large": large, "pairs": pairs}
    moved = replace(pairs, name="loss-pairs-other-ends", disturbances=(other_data_ends(),))
    return {"large": large, "pairs": pairs, "moved": moved}


@rule("FM906", "train-autoencoder", needs=("velocity", "loss", "encode"), kinds=("loss",))
def train_autoencoder(run: Run) -> Iterator[Check]:
    """Training encodes each image once, as it was handed in, by the declared encode point: `x1 = encode(image)`.

    How it goes wrong: training goes through another pair of functions than inference, images are scaled to another
    range on the way, are mirrored or permuted after their prompts were read, or the encoded latent is thrown away.

    Checked: in one training loss, that the encode point is called on as many rows as there are images, what enters
    it against the images in the range of `decode_range` (or `image_range`), that its output explains more of the
    states than it leaves over, and in the flow's units, and that prompts go through the text point. Another range is a
    warning, since the two ends of a codec may differ. It cannot see what happens inside of the encoder, so an encoder
    in the flow's units whose output is scaled once more passes for one in the decoder's units (see FM607).

    Fix: call the pair that generation ends with. Source: development log, defect 2.
    """
    reading, points = _reading(run), run.subject.points
    calls = [call for call in run.trace.of("encode") if isinstance(call.inputs.get("x"), Tensor)]
    yield exact(
        bool(calls),
        f"the loss never calls the encode point {points['encode'].path!r}, so images are encoded by another function",
    )
    if calls:
        encoded = [len(call.inputs["x"]) for call in calls]
        yield exact(
            sum(encoded) == reading.batch, f"the encode point gets {encoded} rows in a loss of {reading.batch} images"
        )
        yield from encoded_images(run, [call.inputs["x"] for call in calls])
    if "text" in points and run.subject.spec.initial_state == "text_latent":
        yield exact(
            bool(run.trace.of("text")),
            f"the loss never calls the text point {points['text'].path!r}, so prompts are encoded by another function",
        )
    # Of null rows nothing is asked, and a small batch may have no others.
    if calls and reading.unknown_source is None and bool(reading.conditional.any()):
        yield exact(
            feeds_path(reading),
            "the output of the encode point explains less of the training states than it leaves over",
            diagnosis="the path ends at another latent than the encoded image",
        )
        units = other_units(reading)
        yield exact(units is None, "the encoded image enters the path in other units", diagnosis=units)


@rule(
    "FM908",
    "train-text-mask",
    needs=("velocity", "loss", "tokenize", "text", "text.attention_mask"),
    wishes=lambda plan: {"loss": plan.loss, "base": plan.base},
)
def train_text_mask(runs: Mapping[str, Run]) -> Iterator[Check]:
    """Training shows the text encoder as many tokens of a prompt as sampling does.

    How it goes wrong: the loss passes a mask of ones, or none, so that padding is read as words; prompts are padded or
    cut to another length by the data loader. The encoder learns latents that sampling never makes.

    Checked: the number of valid tokens that the mask leaves of every prompt that both a loss and a sampling run have.
    Not informative where either passes no mask with a row for every prompt.

    Fix: hand the tokenizer's mask to the same text encoder in both. Source: mask used for the text encoder and not
    handed on, huggingface/diffusers issue 11724; property M of the collected defects.
    """
    loss, base = runs["loss"], runs["base"]
    trained, sampled = tokens_of(loss), tokens_of(base)
    require(bool(trained) and bool(sampled), "no mask with a row for every prompt is passed to the text encoder")
    # A row that is dropped to train the unconditional branch shows the empty prompt.
    dropped = null_counts(base)
    unseen = not dropped and not base.reading.guided and base.subject.spec.null_probability > 0
    shared = trained.keys() & sampled.keys()
    require(
        not unseen or all(trained[prompt] == sampled[prompt] for prompt in shared),
        "guidance is off in the native case, so that what a dropped prompt shows is not seen",
    )
    for prompt in shared:
        yield exact(
            trained[prompt] == sampled[prompt] or trained[prompt] in dropped,
            f"the text encoder is shown {trained[prompt]} tokens of {prompt!r} in training and {sampled[prompt]} in "
            "sampling",
            diagnosis="the loss passes another mask than the tokenizer's",
        )
