"""Asking the user's sampler for small pictures: which candidate answers, at which size, and every run watched once."""

import inspect
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fmcheck.case import Case
from fmcheck.errors import DeclarationError
from fmcheck.init.calling import LIKELY, Candidate, candidates, from_call
from fmcheck.init.explore import Watched, tensors_in, watch
from fmcheck.init.places import paths, user_modules
from fmcheck.init.source import Source
from fmcheck.init.tokens import Tokens, find_tokens
from fmcheck.subject import Request
from fmcheck.tensors import describe

__all__ = ["Driver", "find_driver"]

PROMPTS = ("a red bird on a branch", "two small boats")
STEPS, SCALE, OTHER_SCALE = 6, 2.5, 4.0
_SIZES = ((64, 96), (64, 64), (256, 256), (128, 192), (256, 384), (512, 512))


@dataclass
class Driver:
    """A sampler that answered, with its native case; runs are kept by what differs between them."""

    source: Source
    model: Any
    candidate: Candidate
    case: Case
    others: list[str] = field(default_factory=list)
    _runs: dict[tuple[Any, ...], Watched] = field(default_factory=dict)

    def run(self, **changes: Any) -> Watched:
        """A watched run of the native case with some fields changed.

        Raises:
            Exception: whatever the user's sampler raises.
        """
        case = self.case.but(**changes)
        key = (case.height, case.width, case.num_steps, case.guidance_scale, case.seed)
        if key not in self._runs:
            self._runs[key] = watch(self.model, self.paths, lambda: self._ask(case))
        return self._runs[key]

    @cached_property
    def paths(self) -> list[str]:
        """Everything that is watched."""
        modules = user_modules(self.source.module, self.model)
        return list(paths(self.model, modules, self.source.builder))

    def tried(self, **changes: Any) -> Watched | None:
        """The same, or None where the sampler refuses the case."""
        try:
            return self.run(**changes)
        except Exception:
            return None

    def _ask(self, case: Case) -> Any:
        return self.candidate.run(self.source, self.model, request_for(self, case))

    def images(self, watched: Watched) -> Tensor:
        return next(t for accessor, t in tensors_in(watched.returned) if accessor == self.candidate.accessor)


def request_for(driver: Driver, case: Case) -> Request:
    tokens = driver.candidate.tokens
    inputs = tokens.make(driver.source, driver.model, list(case.prompts)) if tokens else {}
    return Request(case, inputs, torch.Generator().manual_seed(case.seed))


def find_driver(source: Source, call: str | None = None, generate: str | None = None) -> Driver:
    """The first candidate that returns pictures of the size asked for, at a size at which nothing is warned about.

    Raises:
        DeclarationError: none does; the message shows what was tried and names `--call`.
    """
    model = source.build(Case())
    tokens = find_tokens(source, model)
    tried: dict[str, str] = {}
    fallback: Driver | None = None
    for size in _SIZES:
        answered: list[Driver] = []
        for candidate in _chosen(source, model, tokens, call, generate):
            if answered and candidate.entry == answered[0].candidate.entry:
                continue
            case = Case(prompts=PROMPTS, height=size[0], width=size[1], num_steps=2, guidance_scale=SCALE)
            driver = Driver(source, model, candidate, case)
            try:
                watched = watch(model, [], lambda d=driver, c=case: d._ask(c))  # type: ignore[misc]
                accessor = _accessor(watched, size)
            except Exception as error:
                tried[candidate.expression] = f"{type(error).__name__}: {error}"
                continue
            if accessor is None:
                tried[candidate.expression] = _returned_otherwise(watched, size)
                continue
            candidate.accessor = accessor
            answered.append(replace(driver, case=case.but(num_steps=STEPS)))
        if answered:
            answered[0].others = [d.candidate.signature for d in answered[1:]]
            fallback = fallback or answered[0]
            if not answered[0].run(num_steps=2).warnings:
                return answered[0]
    if fallback is None:
        raise DeclarationError(_nothing(source, model, tried))
    return fallback


def _chosen(
    source: Source, model: Any, tokens: list[Tokens], call: str | None, generate: str | None
) -> list[Candidate]:
    if generate is not None:
        module, _, name = generate.partition(":")
        if not module or not name:
            raise DeclarationError(f"--generate: expected package.module:function; found {generate!r}")
        return [Candidate(f'import_module("{module}").{name}(model, request)', generate, generate)]
    if call is None:
        return candidates(source, model, tokens)
    text = from_call(call)
    entry = call.partition("(")[0].removeprefix("model.").replace("source.", f"{source.module.__name__}:")
    made = tokens if "inputs" in text else [None]
    return [Candidate(text, "__call__" if entry == "model" else entry, call, {}, one) for one in made]


def _accessor(watched: Watched, size: tuple[int, int]) -> str | None:
    wanted = (len(PROMPTS), 3, *size)
    for accessor, tensor in tensors_in(watched.returned):
        if tuple(tensor.shape) == wanted and tensor.is_floating_point():
            return accessor
    return None


def _returned_otherwise(watched: Watched, size: tuple[int, int]) -> str:
    wanted = f"float pictures {[len(PROMPTS), 3, *size]} were asked for"
    found = [describe(tensor) for _, tensor in tensors_in(watched.returned)]
    return f"returned {', '.join(found[:3])}, and {wanted}" if found else f"returned no tensor, and {wanted}"


def _nothing(source: Source, model: Any, tried: dict[str, str]) -> str:
    shown = "\n".join(f"  {expression}: {reason[:160]}" for expression, reason in list(tried.items())[:6])
    kind = type(model)
    own = [n for k in kind.__mro__ if k.__module__.partition(".")[0] not in ("torch", "builtins") for n in vars(k)]
    own = [n for n in dict.fromkeys(own) if inspect.isfunction(getattr(kind, n)) and (n[0] != "_" or n == "__call__")]
    # Likely ones first, and all with their signature: it shows which argument nobody could fill.
    own.sort(key=lambda n: n not in LIKELY)
    what = f"tried:\n{shown}" if tried else "every function has an argument that cannot be filled, or no steps"
    methods = "\n".join(f"  {n}{inspect.signature(getattr(kind, n))}"[:200] for n in own[:12])
    return (
        f"init: nothing of {source.target} could be made to return pictures [2, 3, H, W]; {what}\n"
        f"methods of {kind.__name__}:\n{methods or '  none'}\n"
        'say it with --call "model.generate(prompts, steps={num_steps}, cfg={guidance_scale}, height={height}, '
        'width={width}, generator={generator})", or --generate package.module:function, which is given (model, request)'
    )
