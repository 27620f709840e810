"""FM4, continued: the text latent that training starts at against the one that sampling starts at, as random draws."""

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fmcheck.plan import Plan, Run, Wish
from fmcheck.record.trace import Call
from fmcheck.rules.evidence import require, require_finite, within
from fmcheck.rules.registry import Check, rule
from fmcheck.tolerance import EXPLAINED, coarser, half_digits, signed_mean_bound, signed_sum_bound

__all__ = ["Draws", "draws_by_prompt"]


def _text_runs(plan: Plan) -> dict[str, Wish]:
    from_text = plan.subject.spec.initial_state == "text_latent"
    return {"sampled": plan.few_prompts, "trained": plan.large_loss} if from_text else {}


@rule("FM406", "drifted-text-latent", needs=("velocity", "text", "loss"), wishes=_text_runs)
def drifted_text_latent(runs: Mapping[str, Run]) -> Iterator[Check]:
    """Training and sampling draw the latent of a prompt from one law: `z = mu + sigma eps`, the same `mu` and `sigma`.

    How it goes wrong: one of them takes the mean without noise, a temperature or `log_var` in place of `log_var / 2`
    scales the noise of one side, the latent is normalised or rescaled on one side, one noise serves a whole batch.
    The velocity is then asked for at states that it was never trained on, and no shape shows it.

    Checked: draws of the same prompts (told by the tokens that the text point gets) in one sampling run and in one
    loss with another seed, by two tests without tolerances; all statistical rules together raise at most one false
    alarm in a million runs. Place: with two independent differences `d`, `d'` between the two sides, every product
    `d d'` is symmetric about zero unless the means differ. Width: differences `e` within sampling and `f` within
    training make `(e^2 - f^2) / (e^2 + f^2)`, which is symmetric unless the widths differ. On the tiny model it sees
    means an eighth of the noise apart, and widths that differ by 6%, in 19 of 20 runs and more. It takes `eps` to be
    independent and symmetric, number by number, as `randn` is. Not informative with active dropout in the text
    encoder, and where no tokens or texts show whose latent a row is.

    Fix: one text encoder and one draw for both, each with the caller's generator. Source: Hoeffding, Journal of the
    American Statistical Association 58 (1963), theorem 2; the text latent as the source, arXiv 2412.15213, section 4.1.
    """
    require(bool(runs), "the flow starts at noise, not at the text latent")
    sampled, trained = runs["sampled"], runs["trained"]
    active = [call.name for run in runs.values() for call in run.trace.of("text") if call.dropout]
    require(not active, "dropout is active in the text encoder, so its latents have no one law")
    draws = Draws(draws_by_prompt(sampled), draws_by_prompt(trained), _coarsest(runs))
    require(bool(draws.prompts), "no prompt was encoded twice in sampling and twice in training")
    where = f"runs {sampled.name} and {trained.name}, {len(draws.prompts)} prompts"
    used, allowed = draws.place
    yield within(
        used,
        allowed,
        f"the latents of a prompt lie {draws.shift:.3g} apart in sampling and in training (root mean square), where "
        f"their noise is {draws.noise:.3g} wide; signed sum of products, in units of its norm",
        where=where,
        diagnosis=lambda: _explain_place(draws),
    )
    yield within(
        abs(draws.width),
        signed_mean_bound(draws.pairs),
        f"the noise of the text latent is about {draws.ratio:.3g} times as wide in sampling as in training; mean of "
        "signed squares",
        where=where,
        diagnosis=lambda: _explain_width(draws),
    )


def draws_by_prompt(run: Run) -> dict[Hashable, Tensor]:
    """The text latents of a run by what the text point was told, `[n, D]` float64 each.

    Raises:
        NotInformative: what it was told are neither tokens nor texts, one a row, or a latent is not finite.
    """
    found: dict[Hashable, list[Tensor]] = {}
    for call in run.trace.of("text"):
        rows = call.output
        require_finite(rows)
        told = _told(call)
        known = rows is not None and len(told) == len(rows)
        require(known, "the text point is not told tokens or texts with a row for every latent")
        for prompt, row in zip(told, () if rows is None else rows, strict=True):
            found.setdefault(prompt, []).append(row.detach().cpu().double().flatten())
    return {prompt: torch.stack(latents) for prompt, latents in found.items()}


def _told(call: Call) -> list[Hashable]:
    """What stands for the prompt of each row: its valid tokens, or its text."""
    told, mask = call.inputs.get("input_ids"), call.inputs.get("attention_mask")
    if isinstance(told, Tensor) and told.dim() == 2 and not told.is_floating_point():
        valid = mask.bool() if isinstance(mask, Tensor) and mask.shape == told.shape else torch.ones_like(told).bool()
        return [tuple(row[keep].tolist()) for row, keep in zip(told, valid, strict=True)]
    texts = told if isinstance(told, list | tuple) else []
    return list(texts) if all(isinstance(text, str) for text in texts) else []


def _coarsest(runs: Mapping[str, Run]) -> torch.dtype:
    outputs = [call.output for run in runs.values() for call in run.trace.of("text")]
    return coarser(*(output.dtype for output in outputs if output is not None and output.is_floating_point()))


@dataclass(frozen=True)
class Draws:
    """Text latents of the same prompts in sampling and in training, by prompt, `[n, D]` each."""

    sampled: Mapping[Hashable, Tensor]
    trained: Mapping[Hashable, Tensor]
    dtype: torch.dtype

    @cached_property
    def prompts(self) -> list[tuple[Tensor, Tensor]]:
        """Both sides of the prompts that were drawn at least twice on each."""
        both = [(rows, self.trained[told]) for told, rows in self.sampled.items() if told in self.trained]
        return [(a, b) for a, b in both if min(len(a), len(b)) > 1 and a.shape[1] == b.shape[1]]

    @cached_property
    def place(self) -> tuple[float, float]:
        """`sum(d d') / norm(d d')`, and what it may be: the bound, and what rounding of the means adds to the sum."""
        products = torch.cat([_products(a, b) for a, b in self.prompts])
        rounding = torch.cat([self._rounding(a, b).square() for a, b in self.prompts])
        norm = float(products.norm())
        if norm == 0:
            return 0.0, signed_sum_bound()
        return float(products.sum()) / norm, signed_sum_bound() + float(rounding.sum()) / norm

    def _rounding(self, a: Tensor, b: Tensor) -> Tensor:
        """How far kernels that round differently may move the mean latent of a prompt, `[D]`."""
        return half_digits(self.dtype) * (a.abs().mean(0) + b.abs().mean(0)) / 2

    @cached_property
    def _signed(self) -> Tensor:
        """`(e^2 - f^2) / (e^2 + f^2)` of every number of every pair; rounding counts in the denominator alone."""
        found = []
        for a, b in self.prompts:
            (e, of_a), (f, of_b) = _differences(a), _differences(b)
            pairs = min(len(e), len(f))
            e, f, size = e[:pairs].square(), f[:pairs].square(), of_a[:pairs] + of_b[:pairs]
            floor = (half_digits(self.dtype) * size).square()
            # Numbers that are exactly 0 on both sides are equally wide.
            found.append(((e - f) / (e + f + floor)).nan_to_num(0.0).flatten())
        return torch.cat(found)

    @property
    def width(self) -> float:
        """Mean of the signed squares: between -1, no noise in sampling, and 1, none in training."""
        return float(self._signed.mean())

    @property
    def pairs(self) -> int:
        return self._signed.numel()

    @property
    def ratio(self) -> float:
        """Width of the noise in sampling over that in training, for normal noise.

        `E (c^2 g^2 - h^2) / (c^2 g^2 + h^2) = (c - 1) / (c + 1)` for normal `g` and `h`, since `g / h` is Cauchy.
        """
        return (1 + self.width) / (1 - self.width) if self.width < 1 else float("inf")

    @property
    def shift(self) -> float:
        """Distance of the means, root mean square: the products of independent differences have its square as mean."""
        products = torch.cat([_products(a, b) for a, b in self.prompts])
        return math.sqrt(max(0.0, float(products.mean())))

    @property
    def noise(self) -> float:
        """Width of the noise in training, root mean square."""
        differences = torch.cat([_differences(b)[0].flatten() for _, b in self.prompts])
        return math.sqrt(float(differences.square().mean()) / 2)

    def scaled(self, factor: float) -> "Draws":
        """The same with the latents of training multiplied."""
        return Draws(self.sampled, {told: factor * rows for told, rows in self.trained.items()}, self.dtype)


def _products(a: Tensor, b: Tensor) -> Tensor:
    """`d d'` of one prompt, `[D]`: each the difference of two means over half of the rows of both sides."""
    return (a[0::2].mean(0) - b[0::2].mean(0)) * (a[1::2].mean(0) - b[1::2].mean(0))


def _differences(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Differences of neighbouring rows, `[n // 2, D]`, and the sizes of the numbers that they are of."""
    pairs = len(rows) // 2 * 2
    first, second = rows[0:pairs:2], rows[1:pairs:2]
    return first - second, first.abs() + second.abs()


def _still(rows: Tensor, dtype: torch.dtype) -> bool:
    """Whether rows of one prompt are equal, but for what kernels may round differently."""
    difference, size = _differences(rows)
    return bool((difference.abs() <= half_digits(dtype) * size).all())


def _explain_place(draws: Draws) -> str | None:
    a = torch.cat([a.mean(0) for a, _ in draws.prompts])
    b = torch.cat([b.mean(0) for _, b in draws.prompts])
    factor = float((a * b).sum() / b.square().sum())
    used, allowed = draws.scaled(factor).place
    if used <= allowed and abs(factor - 1) > EXPLAINED:
        return f"the latents of sampling are those of training multiplied by {factor:.3g}"
    if all(_still(rows, draws.dtype) for rows, _ in draws.prompts):
        return "rows of one prompt are equal within a batch: one noise for all of its rows"
    return None


def _explain_width(draws: Draws) -> str | None:
    for index, side in enumerate(("sampling", "training")):
        if all(_still(pair[index], draws.dtype) for pair in draws.prompts):
            return f"{side} takes the mean of the text latent, without noise, or one noise for a whole batch"
    return None
