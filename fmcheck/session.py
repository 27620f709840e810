"""One session per subject: every wished run is made once, and rules are judged over the runs they share."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fmcheck.case import Case
from fmcheck.drive import build_model, tokens_of
from fmcheck.errors import DeclarationError, NotInformative
from fmcheck.outcome import Evidence, Expected, Outcome
from fmcheck.parity import other_device
from fmcheck.plan import Plan, Run, Wish
from fmcheck.ranks.pool import Ranks
from fmcheck.record.boundary import boundaries
from fmcheck.record.disturb import change_output
from fmcheck.record.model_state import ModelState, modules_of
from fmcheck.record.recorder import record
from fmcheck.record.trace import Trace
from fmcheck.rules import Check, Rule
from fmcheck.rules.blame import wished
from fmcheck.subject import Subject
from fmcheck.tensors import all_finite, checks_enabled, has_values

__all__ = ["Models", "Session", "provides"]

# By device, dtype, and whether it is the second one: the model and its state as found, or why there is none.
Models = dict[tuple[str, str, bool], tuple[Any, ModelState] | DeclarationError]


class Session:
    """Runs of one subject, made when first wished for and then shared.

    Args:
        device, dtype, seed: replace those of the subject's native case.
        on_run: called with the name of every run before it is made, for progress displays.
        models: where built models are kept, for sessions that share them; by default each session builds its own.
        thorough: compare every weight bit for bit after every run; otherwise those that torch saw written to.
        without: codes of costly rules that are skipped, since nobody asked for them.
        ranks: makes the runs on several ranks; by default there are none.

    Raises:
        DeclarationError: a case that the subject cannot have, or a device that is not there for every rank.
    """

    def __init__(
        self,
        subject: Subject,
        *,
        device: str | None = None,
        dtype: str | None = None,
        seed: int | None = None,
        on_run: Callable[[str], None] | None = None,
        models: "Models | None" = None,
        thorough: bool = True,
        without: Collection[str] = (),
        ranks: Ranks | None = None,
    ) -> None:
        changes = {"device": device, "dtype": dtype, "seed": seed}
        native = subject.case.but(**{k: v for k, v in changes.items() if v is not None})
        _check_available(native, subject)
        self.subject = subject.but(case=native)
        self.subject.at(native)
        self._ranks = ranks or Ranks()
        self._ranks.check(native)
        self.plan = Plan(self.subject, nproc=self._ranks.count)
        self.models: Models = {} if models is None else models
        self._thorough, self._without = thorough, without
        self._runs: dict[Wish, Run | NotInformative | MemoryError] = {}
        self._wanted: dict[str, list[str]] = {}
        self._on_run = on_run or (lambda _: None)
        self.generate_seconds = 0.0
        self.calls = 0

    def model(self, case: Case, *, fresh: bool = False) -> tuple[Any, ModelState]:
        """The model for the case's device and dtype (or a second one, which is `fresh`), and its state as found.

        Raises:
            DeclarationError: `build` raised, a point does not exist on the model, or a weight is not finite.
            NotInformative: `build` makes no second model like the first.
        """
        key = (case.device, case.dtype, fresh)
        if key not in self.models:
            try:
                self.models[key] = self._made(case, fresh=fresh)
            except DeclarationError as error:
                # A build that failed is not tried again by every rule of a test suite.
                self.models[key] = copy(error)
                raise
        made = self.models[key]
        if isinstance(made, DeclarationError):
            raise copy(made)
        return made

    def _made(self, case: Case, *, fresh: bool) -> tuple[Any, ModelState]:
        model = build_model(self.subject, case)
        boundaries(model, self.subject.points)
        _check_finite(self.subject.name, model)
        made = model, ModelState(model)
        native = self.subject.case.but(dtype=case.dtype)
        if torch.device(case.device).type != torch.device(native.device).type:
            # Weights that are drawn on the device itself are others than those drawn on the native one.
            made[1].adopt(self.model(native)[1])
        if fresh:
            _check_twins(self.model(case), made)
        return made

    def run(self, wish: Wish, code: str = "") -> Run:
        """The run of a wish, made now if it was not made before.

        Raises:
            NotInformative: the subject cannot make the run (a tokenizer that refuses the prompts).
            MemoryError: the run exhausted the memory of its device.
        """
        if wish not in self._runs:
            for earlier in wish.after:
                self.run(earlier, code)
            self._on_run(wish.name)
            try:
                self._runs[wish] = self._on_ranks(wish) if wish.ranks else self._here(wish)
            except NotInformative as reason:
                self._runs[wish] = copy(reason)
            except (torch.OutOfMemoryError, MemoryError) as error:
                self._runs[wish] = MemoryError(str(error))
        self._wanted.setdefault(wish.name, []).append(code)
        made = self._runs[wish]
        if isinstance(made, Run):
            if isinstance(made.trace.error, torch.OutOfMemoryError | MemoryError):
                raise MemoryError(str(made.trace.error))
            return made
        # What is raised takes the frames that it passes along, and they hold this session: the kept one stays apart.
        raise copy(made)

    def _here(self, wish: Wish) -> Run:
        return Run(wish, self._at(wish.case), self._record(wish))

    def _at(self, case: Case) -> Subject:
        """The subject with the conventions of a case; where those cannot be told, as for a size that is refused,
        rules find none."""
        try:
            return self.subject.at(case)
        except DeclarationError:
            return self.subject

    def _on_ranks(self, wish: Wish) -> Run:
        self.calls += wish.ranks
        shares = self._ranks.run(wish, self._at(wish.case).spec)
        exhausted = next((share for share in shares if share.exhausted), None)
        if exhausted is not None:
            raise MemoryError(f"rank {exhausted.rank} of {wish.ranks}: {exhausted.error}")
        return Run(wish, self._at(wish.case), Trace(wish.case, wish.kind), shares)

    def forget(self) -> None:
        """Let go of every run."""
        self._runs.clear()

    def _record(self, wish: Wish) -> Any:
        model, baseline = self.model(wish.case, fresh=wish.fresh)
        disturbances = wish.disturbances
        if wish.rotates_text_of is not None:
            disturbances += (_rotated_text(self.run(wish.rotates_text_of)),)
        self.calls += wish.kind == "generate"
        trace = record(
            model,
            self.subject,
            wish.case,
            kind=wish.kind,
            inputs=tokens_of(self.subject, model, wish.case, wish.tokens),
            images=_images(self.subject, wish.case) if wish.kind == "loss" else None,
            disturbances=disturbances,
            disturb_rng=wish.disturb_rng,
            baseline=baseline,
            thorough=self._thorough,
            ambient=wish.ambient,
        )
        self.generate_seconds += trace.seconds
        return trace

    def judge(
        self,
        rule: Rule,
        expected: Expected | None = None,
        *,
        over: Sequence[Wish] | Mapping[str, Wish] | None = None,
    ) -> Outcome:
        """Judge one rule: make the runs it needs, collect its evidence, name the outcome.

        Args:
            over: judge these runs instead of those of the plan: a sequence for a trace rule, by name for a relation.
        """
        started = time.perf_counter()
        missing = self._missing(rule)
        if missing:
            return Outcome(rule=rule, status="skipped", reason=missing)
        evidence = Evidence()
        try:
            for run, case, judge in self._judgements(rule, over):
                evidence.collect(rule, run, case, judge)
        finally:
            rule.finish()
        return evidence.outcome(rule, expected, time.perf_counter() - started)

    def _missing(self, rule: Rule) -> str:
        if rule.code in self._without:
            return f"{rule.costly}, so only with --thorough or --select {rule.code}"
        for need in rule.needs:
            if need == "other_device":
                if other_device(self.subject.case.device) is None:
                    return "this machine has no CUDA or MPS device"
            elif need == "golden":
                if refusal := _without_golden(self.subject):
                    return refusal
            elif not provides(self.subject, need):
                return f"the subject declares no {need!r}"
        if rule.on_ranks and self._ranks.refusal:
            return self._ranks.refusal
        if rule.family == "FM1" and not checks_enabled():
            return "jaxtyping's runtime checks are switched off (JAXTYPING_DISABLE)"
        return ""

    def _judgements(
        self, rule: Rule, over: Sequence[Wish] | Mapping[str, Wish] | None
    ) -> Iterator[tuple[str, Case | None, Callable[[], Iterable[Check]]]]:
        if isinstance(over, Mapping) or rule.wishes is not None:
            yield "", None, partial(self._relation, rule, over)
        else:
            for wish in self._plain(rule) if over is None else over:
                if wish.kind in rule.kinds:
                    yield wish.name, wish.case, partial(self._single, rule, wish)

    def _plain(self, rule: Rule) -> Iterable[Wish]:
        wishes = list(self.plan.plain) if "generate" in rule.kinds else []
        if "loss" in rule.kinds and self.subject.loss is not None:
            wishes.append(self.plan.loss)
        return wishes

    def _single(self, rule: Rule, wish: Wish) -> Iterable[Check]:
        run = self.run(wish, rule.code)
        if run.failure and not rule.judges_crashes:
            raise NotInformative(f"run {run.name!r}: {run.failure}")
        return _evidence(rule, run)

    def _relation(self, rule: Rule, over: Sequence[Wish] | Mapping[str, Wish] | None) -> Iterable[Check]:
        wishes = over if isinstance(over, Mapping) else wished(rule, rule.wishes, self.plan)
        runs = {name: self.run(wish, rule.code) for name, wish in wishes.items()}
        if rule.follow_up is not None:
            later = wished(rule, rule.follow_up, self.plan, runs)
            runs |= {name: self.run(wish, rule.code) for name, wish in later.items()}
        crashed = next((run for run in runs.values() if run.failure), None)
        if crashed and not rule.judges_crashes:
            raise NotInformative(f"run {crashed.name!r}: {crashed.failure}")
        return _evidence(rule, runs)

    @property
    def made(self) -> Mapping[Wish, Run | NotInformative | MemoryError]:
        """Every wish that was tried, and its run, or why there is none."""
        return self._runs

    @property
    def wanted(self) -> dict[str, tuple[str, ...]]:
        """Name of every run made, and the rules that wanted it."""
        return {name: tuple(dict.fromkeys(code for code in codes if code)) for name, codes in self._wanted.items()}


def _evidence(rule: Rule, judged: Any) -> Iterator[Check]:
    """What the rule yields, begun only when it is asked for: a plain function that returns a list would begin now."""
    yield from rule.function(judged)


def provides(subject: Subject, need: str) -> bool:
    """Whether a subject declares a point, an argument of a point (`velocity.null`), or one of its own functions."""
    role, _, argument = need.partition(".")
    if argument:
        point = subject.points.get(role)
        return point is not None and point.arguments.get(argument) is not None
    if role in ("tokenize", "pad", "masked", "loss", "generate_rank", "shard"):
        return getattr(subject, role) is not None
    if role == "entry":
        return subject.entry is not None
    return role in subject.points


def _without_golden(subject: Subject) -> str:
    """Why there are no golden scores to compare with; empty when there are."""
    judge, case = subject.judge, subject.case
    if judge is None:
        return "the subject declares no 'judge'"
    if judge.golden is None:
        return "the subject's judge has no 'golden' scores"
    made, asked = (judge.golden.height, judge.golden.width), (case.height, case.width)
    if made != asked:
        return f"the golden scores are those of {made[0]}x{made[1]}, and this is {asked[0]}x{asked[1]}"
    if case.dtype != subject.dtypes[0]:
        return f"the golden scores are those of {subject.dtypes[0]}, and this is {case.dtype}"
    return ""


def _check_available(case: Case, subject: Subject) -> None:
    device = torch.device(case.device)
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device.type == "meta":
        raise DeclarationError(f"device {case.device!r}: there are no numbers on it to check; use --device cpu")
    if not available.get(device.type, True):
        raise DeclarationError(f"device {case.device!r}: this machine has none; use --device cpu")
    if case.dtype not in subject.dtypes:
        raise DeclarationError(
            f"dtype {case.dtype!r}: subject {subject.name!r} declares {', '.join(subject.dtypes)}; "
            "add it to Subject.dtypes if the model can"
        )


def _check_finite(name: str, model: Any) -> None:
    for prefix, module in modules_of(model).items():
        for parameter, tensor in module.named_parameters():
            if has_values(tensor) and not all_finite(tensor):
                path = ".".join(part for part in (prefix, parameter) if part)
                raise DeclarationError(
                    f"subject {name!r}: weight {path} holds NaN or infinity, so every number downstream would; "
                    "check the checkpoint that build() loads"
                )


def _check_twins(first: tuple[Any, ModelState], second: tuple[Any, ModelState]) -> None:
    if first[0] is second[0]:
        raise NotInformative("build returns one and the same object at every call, so no run is ever its first")
    if not first[1].equals(second[1]):
        raise NotInformative("build makes models with different weights although the global seed is the same")


def _rotated_text(base: Run) -> Any:
    outputs = [call.output for call in base.trace.of("text") if call.output is not None]
    if len(outputs) != 1 or len(outputs[0]) != base.case.batch:
        raise NotInformative("the text latent is not one tensor with a row a prompt, so its rows cannot be rotated")
    rotated = outputs[0].roll(-1, dims=0)
    return change_output("rotated text of the base run", "text", lambda _, __: rotated)


def _images(subject: Subject, case: Case) -> Tensor:
    """Smooth random pictures over the whole image range, `[B, channels, H, W]` float32, from the case's seed."""
    spec = subject.spec
    generator = torch.Generator().manual_seed(case.seed)
    coarse = torch.rand(case.batch, spec.image_channels, 5, 5, generator=generator)
    low, high = spec.image_range
    smooth = torch.nn.functional.interpolate(coarse, (case.height, case.width), mode="bilinear", align_corners=True)
    return (low + (high - low) * smooth).to(case.device)
