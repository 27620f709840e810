"""The plan: which runs of a subject there are to wish for. Equal wishes are one run."""

import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fmcheck.case import Case
from fmcheck.errors import NotInformative
from fmcheck.record.disturb import change_argument, change_input, change_output, raise_in
from fmcheck.record.training_pair import other_data_ends
from fmcheck.subject import Subject
from fmcheck.tensors import describe
from fmcheck.wish import Run, Wish

__all__ = ["OTHER_PROMPTS", "Plan", "Run", "Wish"]

OTHER_PROMPTS = (
    "a small white star on a green background",
    "a large orange square, bottom left",
    "a blue circle on a red background, top right",
    "a large black triangle",
)


class Plan:
    """The runs that a subject allows, derived from its native case. Rules pick from these, so that runs are shared.

    Args:
        nproc: how many processes rules about ranks are given; 1 where there are no such runs.
    """

    def __init__(self, subject: Subject, *, nproc: int = 1) -> None:
        self.subject = subject
        self.native = subject.case
        self.nproc = nproc

    def _wish(self, name: str, *, case: Case | None = None, **rest: Any) -> Wish:
        return Wish(name, case or self.native, **rest)

    # Plain runs: undisturbed, all of them judged by every trace rule.

    @cached_property
    def base(self) -> Wish:
        """The native case."""
        return self._wish("base")

    @cached_property
    def unguided(self) -> Wish:
        """The native case at the neutral guidance scale."""
        return self._wish("unguided", case=self.native.but(guidance_scale=self.subject.spec.neutral_scale))

    @cached_property
    def other_scale(self) -> Wish:
        """Another guidance scale, on the same side of the neutral one, not a round number, and guided in any case."""
        spec, scale = self.subject.spec, self.native.guidance_scale
        beyond = scale - spec.neutral_scale
        other = spec.neutral_scale + 1.5 * beyond + math.copysign(0.125, beyond)
        if spec.guidance_weight(other) == 0 and spec.guidance_from is not None:
            other = max(spec.guidance_from, spec.neutral_scale) + 1.625
        return self._wish("other-scale", case=self.native.but(guidance_scale=other))

    @cached_property
    def one_step(self) -> Wish:
        """A single step and a single prompt."""
        return self._wish("one-step", case=self.native.with_batch(1).but(num_steps=1))

    @cached_property
    def more_steps(self) -> Wish:
        """Twice the steps."""
        return self._wish("more-steps", case=self.native.but(num_steps=2 * self.native.num_steps))

    @cached_property
    def many_steps(self) -> Wish:
        """Fifty steps, barely guided, at the smallest size: where a cap or a threshold on small steps shows."""
        case = self.small.with_batch(2).but(num_steps=50, guidance_scale=self._scale(0.4375))
        return self._wish("many-steps", case=case)

    @cached_property
    def crowd(self) -> Wish:
        """Nine prompts, strongly guided, at the smallest size: where a chunk size or a cap on the scale shows."""
        case = self.small.with_batch(9).but(num_steps=2, guidance_scale=self._scale(7.1875))
        return self._wish("crowd", case=case)

    @cached_property
    def larger(self) -> Wish:
        """One prompt at a size with more pixels than the native one, where there is such a size."""
        case, multiple = self.native, self.subject.spec.multiple
        height, width = self.legal(case.height + 2 * multiple, case.width + multiple)
        return self._wish("larger", case=case.with_batch(1).but(height=height, width=width, num_steps=2))

    @cached_property
    def wide(self) -> Wish:
        """Another shape with the same number of pixels: half as high and twice as wide, when that is allowed."""
        case, multiple = self.native, self.subject.spec.multiple
        height, width = case.height // 2, case.width * 2
        if height % multiple or height == 0:
            height, width = case.height, case.width + multiple
        height, width = self.legal(height, width)
        return self._wish("wide", case=case.but(height=height, width=width))

    @cached_property
    def tall(self) -> Wish:
        """The size of `wide` with height and width exchanged."""
        case = self.wide.case
        height, width = self.legal(case.width, case.height)
        return self._wish("tall", case=case.with_batch(2).but(height=height, width=width, num_steps=2))

    @cached_property
    def unguided_crowd(self) -> Wish:
        """Unguided, with as many rows as the guided native case has in a doubled call: where a cache by rows shows."""
        case = self.small.with_batch(2 * self.native.batch)
        scale = self.subject.spec.neutral_scale
        return self._wish("unguided-crowd", case=case.but(num_steps=2, guidance_scale=scale))

    def _scale(self, weight: float) -> float:
        """The guidance scale of a weight, or of the next larger one that the spec calls guided."""
        spec = self.subject.spec
        scale = spec.neutral_scale + weight
        return scale if spec.guidance_weight(scale) else (spec.guidance_from or 0.0) + weight

    def legal(self, height: int, width: int) -> tuple[int, int]:
        """The size itself, or the declared legal one with the nearest number of rows and columns."""
        sizes = self.subject.sizes
        if sizes is None:
            return height, width
        best = min(sizes, key=lambda size: abs(math.log(size[0] / height)) + abs(math.log(size[1] / width)))
        return best[0], best[1]

    @cached_property
    def small(self) -> Case:
        """The native case at the smallest legal size that is two cells high and three wide."""
        multiple = self.subject.spec.multiple
        height, width = self.legal(2 * multiple, 3 * multiple)
        return self.native.but(height=height, width=width)

    @cached_property
    def other_size(self) -> Wish:
        """Fewer pixels, not square, and `B == w` of the latent where that is possible: broadcast faults show there."""
        native, multiple = self.native, self.subject.spec.multiple
        cells = max(2, min(native.height, native.width) // multiple // 2)
        width, height = cells * multiple, (cells + 1) * multiple
        if (height, width) == (native.height, native.width):
            height += multiple
        height, width = self.legal(height, width)
        batch = width // self.subject.spec.downsampling
        case = native.but(height=height, width=width, num_steps=3)
        return self._wish("other-size", case=case.with_batch(batch) if batch <= 4 else case)

    @cached_property
    def low_precision(self) -> Wish | None:
        """The native case with the network in the first lower precision that the subject allows."""
        lower = [d for d in self.subject.dtypes if d in ("bfloat16", "float16") and d != self.native.dtype]
        return self._wish(lower[0], case=self.native.but(dtype=lower[0])) if lower else None

    @cached_property
    def plain(self) -> tuple[Wish, ...]:
        """Every plain `generate` run."""
        runs = (
            self.base,
            self.unguided,
            self.other_scale,
            self.one_step,
            self.more_steps,
            self.wide,
            self.other_size,
            self.many_steps,
            self.crowd,
            self.larger,
            self.tall,
            self.unguided_crowd,
            self.low_precision,
        )
        # Equal wishes are one run: a native case of one step and one prompt is `one_step` itself.
        return tuple(dict.fromkeys(run for run in runs if run is not None))

    # Related runs.

    @cached_property
    def again(self) -> Wish:
        """The native case once more, after another size and another seed: A, B, A on one object."""
        return self._wish("again", after=(self.base, self.other_size, self.other_seed), turn=1)

    @cached_property
    def after_fault(self) -> Wish:
        """The native case once more, after a run that ended in an exception inside the velocity network."""
        return self._wish("after-fault", after=(self.base, self.fault("velocity")), turn=2)

    @cached_property
    def fresh_wide(self) -> Wish:
        """The wide case as the first call of a new model object."""
        return self._wish("fresh-wide", case=self.wide.case, fresh=True)

    @cached_property
    def fresh_base(self) -> Wish:
        """The native case as the second call of a new model object."""
        return self._wish("fresh-base", fresh=True, after=(self.fresh_wide,))

    def extreme_scale(self, name: str, weight: float) -> Wish:
        """A guidance weight that no default has, in two steps at the smallest size."""
        scale = self.subject.spec.neutral_scale + weight
        return self._wish(name, case=self.small.with_batch(2).but(num_steps=2, guidance_scale=scale))

    @cached_property
    def other_size_again(self) -> Wish:
        """The other size once more, right after the native one came back.

        The global generators are disturbed, since every run starts at the same state of them: a layer that is built
        anew with random weights would get the same ones otherwise.
        """
        # Wished for by no other rule, so that it is made now, whatever sizes were asked for since `again`.
        back = self._wish("back-at-native-size", case=self.native.but(num_steps=1), turn=1)
        after = (self.again, back)
        return self._wish("other-size-again", case=self.other_size.case, disturb_rng=20250826, after=after)

    @cached_property
    def other_seed(self) -> Wish:
        return self._wish("other-seed", case=self.native.but(seed=_next_seed(self.native)))

    @cached_property
    def other_rng(self) -> Wish:
        """The native case with disturbed global random generators."""
        return self._wish("other-global-rng", disturb_rng=20250826)

    @cached_property
    def padded(self) -> Wish:
        return self._wish("padded", tokens="padded")

    @cached_property
    def masked(self) -> Wish:
        return self._wish("masked", tokens="masked")

    def neighbours(self, row: int, case: Case | None = None) -> Wish:
        """Other prompts in every row but one, of the native case or another one."""
        case = case or self.native
        prompts = [p if i == row else OTHER_PROMPTS[i % 4] for i, p in enumerate(case.prompts)]
        return self._wish(f"neighbours-of-{row}", case=case.but(prompts=tuple(prompts)))

    @property
    def longest(self) -> int:
        """The row whose prompt has the most words."""
        return max(range(self.native.batch), key=lambda row: len(self.native.prompts[row].split()))

    @cached_property
    def cut_short(self) -> Wish:
        """The longest prompt without its last word."""
        prompts = list(self.native.prompts)
        prompts[self.longest] = " ".join(prompts[self.longest].split()[:-1])
        return self._wish("cut-short", case=self.native.but(prompts=tuple(prompts)))

    @cached_property
    def row_times(self) -> Wish:
        """The network is told another time in every row but the first, and in the first B rows only."""
        offset, batch = self.subject.spec.time_map[1] / 4, self.native.batch

        def shift(inputs: dict[str, Any]) -> dict[str, Any]:
            time = inputs.get("time")
            if not isinstance(time, Tensor) or time.dim() == 0 or len(time) % batch:
                raise NotInformative("the network is not told a time for every row")
            rows = torch.arange(len(time), device=time.device)
            others = (rows > 0) & (rows < batch)
            return {"time": torch.where(others.reshape(-1, *(1,) * (time.dim() - 1)), _later(time, offset), time)}

        return self._wish("row-times", disturbances=(change_input("time + 1/4 in later rows", "velocity", shift),))

    def poisoned(self, row: int) -> Wish:
        """NaN in every row but one of all that the velocity network (and the text encoder) return."""
        batch = self.native.batch

        def poison(inputs: dict[str, Any], output: Tensor) -> Tensor:
            ids = inputs.get("input_ids")
            if "input_ids" in inputs and not (isinstance(ids, Tensor) and len(ids) == len(output)):
                # A text as it stands, or the tokens of one prompt: no rows that could be told apart.
                return output
            if not output.dim() or len(output) % batch:
                raise NotInformative(f"{describe(output)} has not a row for every one of {batch} prompts")
            keep = torch.arange(len(output), device=output.device) % batch == row
            return torch.where(keep.reshape(-1, *(1,) * (output.dim() - 1)), output, math.nan)

        roles = ("text", "velocity") if "text" in self.subject.points else ("velocity",)
        changes = tuple(change_output(f"NaN outside row {row} of {role}", role, poison) for role in roles)
        return self._wish(f"poison-around-{row}", disturbances=changes)

    @cached_property
    def permuted(self) -> Wish:
        """The prompts in rotated order, each with the text latent that it has in the base run."""
        return self._wish("permuted", case=self.rotated.case, rotates_text_of=self.base)

    @cached_property
    def rotated(self) -> Wish:
        """The prompts in rotated order, and nothing else changed: every row keeps the noise of its place."""
        prompts = self.native.prompts
        return self._wish("rotated", case=self.native.but(prompts=prompts[1:] + prompts[:1]))

    def fault(self, role: str) -> Wish:
        """An exception inside an observation point."""
        return self._wish(f"fault-in-{role}", disturbances=(raise_in(role),))

    @cached_property
    def nan_velocity(self) -> Wish:
        """Every velocity is NaN."""
        change = change_output("all NaN", "velocity", lambda _, v: torch.full_like(v, math.nan))
        return self._wish("nan-velocity", disturbances=(change,))

    @cached_property
    def shifted_time(self) -> Wish:
        """The network is told times that are a quarter of the range away."""
        offset = self.subject.spec.time_map[1] / 4

        def shift(inputs: dict[str, Any]) -> dict[str, Any]:
            time = inputs.get("time")
            return {} if time is None else {"time": _later(time, offset)}

        return self._wish("shifted-time", disturbances=(change_input("time + 1/4", "velocity", shift),))

    def argument(self, name: str, value: Any, label: str) -> Wish:
        """Another value for one argument of the public entry."""
        return self._wish(f"argument-{name}", disturbances=(change_argument(f"{name} = {label}", name, value),))

    @cached_property
    def impossible_sizes(self) -> dict[str, Wish]:
        """Sizes that no correct pipeline can return; none where every size is legal."""
        multiple, case = self.subject.spec.multiple, self.native
        if multiple == 1:
            return {}
        return {
            "height off by one": self._wish("bad-height", case=case.but(height=case.height + 1)),
            "width off by half a cell": self._wish("bad-width", case=case.but(width=case.width + multiple // 2)),
        }

    @cached_property
    def loss(self) -> Wish:
        """One training loss on images of the native size."""
        return self._wish("loss", kind="loss", case=self.native.with_batch(16))

    @cached_property
    def large_loss(self) -> Wish:
        """One training loss with many small images, for the distribution of its times and null rows."""
        multiple = self.subject.spec.multiple
        height, width = self.legal(multiple, multiple)
        case = self.native.with_batch(1024).but(height=height, width=width, seed=_next_seed(self.native))
        return self._wish("large-loss", kind="loss", case=case)

    @cached_property
    def moved_loss(self) -> Wish:
        """That loss with the same draws and other encoded images."""
        return self._wish("loss-other-ends", kind="loss", case=self.loss.case, disturbances=(other_data_ends(),))

    @cached_property
    def few_prompts(self) -> Wish:
        """A few prompts many times over in one small unguided step: many draws of the same text latents."""
        case, scale = self.large_loss.case, self.subject.spec.neutral_scale
        case = case.but(prompts=self.native.prompts[:4], seed=self.native.seed, num_steps=1, guidance_scale=scale)
        return self._wish("few-prompts", case=case.with_batch(64))

    @property
    def golden(self) -> Wish | None:
        """The pictures that the judge has golden scores of; None where it has none."""
        judge = self.subject.judge
        golden = None if judge is None else judge.golden
        if golden is None:
            return None
        case = self.native.but(
            prompts=golden.prompts,
            guidance_scale=golden.guidance_scale,
            num_steps=golden.num_steps,
            height=golden.height,
            width=golden.width,
            seed=golden.seed,
        )
        return self._wish("golden", case=case)

    def describe(self) -> Mapping[str, Case]:
        """Name and case of the plain runs, for reports."""
        return {wish.name: wish.case for wish in self.plain}


def _later(time: Any, offset: float) -> Any:
    """A time argument moved on in its own dtype: an embedding table takes no fractions."""
    whole = isinstance(time, int) or (isinstance(time, Tensor) and not time.is_floating_point())
    return time + (round(offset) if whole else offset)


def _next_seed(case: Case) -> int:
    return (case.seed + 1) % 2**63
