"""FM6, continued: pictures still show what their prompts ask for, as a judge sees it."""

import statistics
from collections.abc import Iterator, Mapping

from torch import Tensor

from fmcheck.golden import Golden
from fmcheck.judging import scores_of
from fmcheck.plan import Plan, Run, Wish
from fmcheck.rules.evidence import given, measured, require, require_finite, within
from fmcheck.rules.registry import Check, rule
from fmcheck.tensors import describe
from fmcheck.tolerance import SHARE, drop_of, drop_shows, half_width

# Of the interval that is told; what decides is the exact test.
_CONFIDENCE = 0.95
# Prompts and scores that a diagnosis names.
_WORST = 3


def _golden_run(plan: Plan) -> dict[str, Wish]:
    return {} if plan.golden is None else {"golden": plan.golden}


@rule(
    "FM609",
    "worse-pictures",
    needs=("velocity", "golden"),
    wishes=_golden_run,
    costly="makes and judges the pictures of the golden scores, which takes a few seconds on a small model",
)
def worse_pictures(runs: Mapping[str, Run]) -> Iterator[Check]:
    """Pictures score no lower than the golden scores of the same prompts: `mean(new) >= mean(golden)`, but for luck.

    How it goes wrong: what is consistent and still wrong. Two words exchange their embeddings, a tokenizer maps `left`
    to `right`, a layer is not in the checkpoint and keeps its random start, a block is skipped, `log_var` is used as a
    standard deviation in training and sampling alike. Every number agrees with every other; only the picture is wrong.

    Checked: one run with the prompts, the seed and the settings of the golden scores, judged by the subject's judge:
    the mean of the headline score, and of every other one, against those of several seeds, paired by prompt, by an
    exact permutation test that holds for correct code with any other noise (`fmcheck.tolerance.exchange`). All
    statistical rules together raise at most one false alarm in a million runs. It cannot see what the judge does not,
    nor a fall that luck explains: with 8 golden seeds, at least 8 prompts must fall. Not informative where no fall
    could show.

    Fix: look at the pictures of the prompts that fell most, and at the score that fell most; if a change was meant to
    change the pictures, make the golden scores again (`fmcheck tiny golden` for the tiny model). Source: Fisher, The
    Design of Experiments (1935), section 21, for the test; GenEval, arXiv 2310.11513, for scores by attribute.
    """
    run = runs["golden"]
    judge = given(run.subject.judge, "the subject declares no judge")
    golden = given(judge.golden, "there are no golden scores")
    images = run.result
    shaped = images.dim() == 4 and len(images) == len(golden.prompts) and images.is_floating_point()
    require(shaped, f"generate returned {describe(images)} for {len(golden.prompts)} prompts (see FM702)")
    require_finite(images)
    require(
        drop_shows(golden.scores[judge.headline]),
        f"the golden scores have a mean of {golden.mean(judge.headline):.3g}: even pictures with nothing right would be"
        " no lower than luck explains; more seeds, more prompts or a better model are needed",
    )
    # Values outside of the range are FM703's.
    scores = scores_of(judge, golden.prompts, images, run.subject.spec.image_range)
    yield measured(f"{judge.headline} {_compared(golden, judge.headline, scores[judge.headline])}")
    # The parts share what one test may have, and the one that fell furthest speaks for them.
    parts = [name for name in golden.scores if name != judge.headline and name in scores]
    drops = {name: drop_of(golden.scores[name], scores[name].tolist(), SHARE / len(parts)) for name in parts}
    worst = max(parts, key=lambda name: drops[name].ratio, default=None)
    drops[judge.headline] = drop_of(golden.scores[judge.headline], scores[judge.headline].tolist())
    for name in [judge.headline, *([worst] if worst else [])]:
        yield within(
            drops[name].used,
            drops[name].allowed,
            f"pictures have a mean {name} of {_compared(golden, name, scores[name])}; a fall by more than "
            f"{drops[name].allowed:.3f} is no luck (chance of this one {drops[name].chance:.1g})",
            where=f"{len(golden.prompts)} prompts, {golden.num_steps} steps, guidance {golden.guidance_scale:g}, seed "
            f"{golden.seed}, paired with {golden.seeds} golden seeds",
            diagnosis=lambda name=name: _explain(golden, name, judge.headline, scores),  # type: ignore[misc]
        )


def _apart(golden: Golden, name: str, new: Tensor) -> list[float]:
    """New scores minus the mean golden score of the same prompt, `[N]`."""
    before = [statistics.fmean(column) for column in zip(*golden.scores[name], strict=True)]
    return [value - old for value, old in zip(new.tolist(), before, strict=True)]


def _compared(golden: Golden, name: str, new: Tensor) -> str:
    apart = _apart(golden, name, new)
    text = f"{float(new.mean()):.3f} where the golden one is {golden.mean(name):.3f}: {statistics.fmean(apart):+.3f}"
    if len(apart) > 1:
        half = half_width(apart, 1 - _CONFIDENCE)
        text += f" ± {half:.3f} ({_CONFIDENCE:.0%}, Student's t over the prompts)"
    return text


def _explain(golden: Golden, name: str, headline: str, scores: Mapping[str, Tensor]) -> str:
    """Which parts of the score fell most, and on which prompts."""
    changes = {part: float(scores[part].mean()) - golden.mean(part) for part in golden.scores if part in scores}
    fallen = sorted((change, part) for part, change in changes.items() if part != headline and change < 0)[:_WORST]
    parts = ", ".join(f"{part} from {golden.mean(part):.2f} to {golden.mean(part) + c:.2f}" for c, part in fallen)
    apart = _apart(golden, name, scores[name])
    worst = sorted(range(len(apart)), key=apart.__getitem__)[:_WORST]
    prompts = "; ".join(f"{golden.prompts[i]!r} ({apart[i]:+.2f})" for i in worst)
    return f"fell most: {parts or name}; worst prompts: {prompts}"
