"""How a picture is asked for: candidates of the user's sampler, as expressions of `model`, `request` and `source`."""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from itertools import product
from typing import Any

import torch

from fmcheck.init.source import Source
from fmcheck.init.tokens import Tokens

__all__ = ["LIKELY", "Candidate", "candidates", "from_call", "roles_of"]

# Parameter names by what they are for. Only guesses: what a run does with the values decides.
NAMES = {
    "prompts": ("prompts", "prompt", "texts", "text", "captions", "caption", "batch"),
    "height": ("height", "h", "H", "rows", "image_height", "img_height"),
    "width": ("width", "W", "cols", "columns", "image_width", "img_width"),
    "size": ("size", "resolution", "image_size", "shape", "hw"),
    "steps": ("num_steps", "num_inference_steps", "steps", "n_steps", "sampling_steps", "iterations", "nfe", "K", "n",
              "num_iterations", "sample_steps", "timesteps"),
    "scale": ("guidance_scale", "cfg_scale", "cfg", "scale", "guidance", "w", "g", "s", "strength", "cfg_strength",
              "guidance_weight", "omega"),
    "generator": ("generator", "rng", "random", "gen", "seed_gen", "noise_source", "random_state"),
    "seed": ("seed",),
    "negative": ("negative_prompts",),
    "output_type": ("output_type",),
}  # fmt: skip
_EXPRESSIONS = {
    "prompts": "request.prompts",
    "height": "request.height",
    "width": "request.width",
    "steps": "request.num_steps",
    "scale": "request.guidance_scale",
    "generator": "request.generator",
    "seed": "request.case.seed",
    "negative": '[""] * len(request.prompts)',
    "output_type": '"pt"',
}
LIKELY = ("generate", "sample", "__call__", "text_to_image", "txt2img", "text2image", "run", "forward")
_NOT = ("loss", "train", "objective", "tokeni", "encode", "decode")


@dataclass
class Candidate:
    """One way to ask for pictures.

    `entry` is the path of the public function behind it, `roles` which of its parameters plays which part.
    """

    expression: str
    entry: str
    signature: str
    roles: dict[str, str] = field(default_factory=dict)
    tokens: Tokens | None = None
    accessor: str = ""

    def run(self, source: Source, model: Any, request: Any) -> Any:
        names = {"source": source.module, "model": model, "request": request, "import_module": import_module}
        return eval(self.expression, names)


def roles_of(parameters: list[inspect.Parameter]) -> dict[str, str]:
    """Parameter name by role, as far as names and annotations tell."""
    found: dict[str, str] = {}
    beside_h = any(parameter.name == "h" for parameter in parameters)
    for parameter in parameters:
        role = next((role for role, names in NAMES.items() if parameter.name in names), None)
        if parameter.name == "w" and beside_h:
            role = "width"
        if parameter.annotation is torch.Generator or "Generator" in str(parameter.annotation):
            role = "generator"
        if (
            role is not None
            and role not in found
            and not (role == "negative" and parameter.default is not parameter.empty)
        ):
            found[role] = parameter.name
    return found


def candidates(source: Source, model: Any, tokens: list[Tokens]) -> list[Candidate]:
    """The most likely first: those whose names tell the most, and every argument of which can be filled."""
    ranked: list[tuple[int, int, Candidate]] = []
    for rank, (head, entry, function, skip, before) in enumerate(_callables(source, model)):
        for score, candidate in _filled(head, entry, function, skip, before, tokens):
            ranked.append((-score, rank, candidate))
    return [candidate for *_, candidate in sorted(ranked, key=lambda item: item[:2])]


def _callables(source: Source, model: Any) -> Iterator[tuple[str, str, Any, int, list[inspect.Parameter]]]:
    """`(head of the expression, path, function, parameters to skip, parameters of a constructor before it)`."""
    kind = type(model)
    for name in dict.fromkeys((*LIKELY, *dir(kind))):
        member = inspect.getattr_static(kind, name, None)
        mine = next((k.__module__ for k in kind.__mro__ if name in vars(k)), "").partition(".")[0]
        plain = inspect.isfunction(member) and (not name.startswith("_") or name == "__call__")
        if plain and mine not in ("torch", "builtins", "abc") and not any(word in name for word in _NOT):
            yield f"model.{name}" if name != "__call__" else "model", name, getattr(model, name), 0, []
    for name, value in vars(source.module).items():
        if (
            getattr(value, "__module__", "") != source.module.__name__
            or name.startswith("_")
            or any(word in name.lower() for word in _NOT)
        ):
            continue
        if inspect.isfunction(value) and value is not source.builder:
            yield f"source.{name}", f"{source.module.__name__}:{name}", value, 1, []
        elif inspect.isclass(value) and value not in type(model).__mro__:
            yield from _holders(source, name, value)


def _holders(source: Source, name: str, kind: type) -> Iterator[tuple[str, str, Any, int, list[inspect.Parameter]]]:
    """A sampler object that is made around the model."""
    try:
        parameters = list(inspect.signature(kind).parameters.values())
    except (TypeError, ValueError):
        return
    for method in LIKELY:
        function = vars(kind).get(method)
        if parameters and inspect.isfunction(function):
            bound = function.__get__(object())
            path = f"{source.module.__name__}:{name}.{method}"
            tail = "" if method == "__call__" else f".{method}"
            yield f"source.{name}(model{{}}){tail}", path, bound, 0, parameters[1:]


def _filled(
    head: str, entry: str, function: Any, skip: int, before: list[inspect.Parameter], tokens: list[Tokens]
) -> Iterator[tuple[int, Candidate]]:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    parameters = [p for p in signature.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if skip and (not parameters or roles_of(parameters[:1])):
        return
    parameters = parameters[skip:]
    roles, held = roles_of(parameters), roles_of(before)
    known = {**held, **roles}
    if "steps" not in known or not known.keys() & {"scale", "generator", "height", "size", "seed"}:
        return
    name = entry.rpartition(":")[2].rpartition(".")[2]
    score = 2 * len(known) + (3 if name in LIKELY else 0) + (2 if "model" in head[:6] else 0)
    inside = [f"{p}={_EXPRESSIONS[role]}" for role, p in held.items() if role in _EXPRESSIONS]
    head = head.format("".join(f", {text}" for text in inside)) if before else head
    first = ["model"] if skip else []
    for way, sized in product(_token_ways(parameters, roles, tokens), _sizes(roles)):
        made, texts = way
        filled = [f"{roles[r]}={_EXPRESSIONS[r]}" for r in roles if r in _EXPRESSIONS]
        call = f"{head}({', '.join([*first, *texts, *filled, *sized])})"
        yield score, Candidate(call, entry, f"{entry}{signature}", known, made)


def _sizes(roles: dict[str, str]) -> list[list[str]]:
    if "size" not in roles:
        return [[]]
    name = roles["size"]
    forms = ("(request.height, request.width)", "(request.width, request.height)", "request.height")
    return [[f"{name}={form}"] for form in forms]


def _token_ways(
    parameters: list[inspect.Parameter], roles: dict[str, str], tokens: list[Tokens]
) -> Iterator[tuple[Tokens | None, list[str]]]:
    """Tokens and the arguments that hand them over; none where the prompts are handed over as they are."""
    open_ = [p.name for p in parameters if p.name not in roles.values() and p.default is p.empty]
    if not open_:
        if "prompts" in roles:
            yield None, []
        return
    for made in tokens:
        if len(made.names) == len(open_):
            names = open_ if not set(open_) <= set(made.names) else [n for n in made.names if n in open_]
            named = made.named(names)
            yield named, [f'{name}=request.inputs["{name}"]' for name in names]
        elif len(open_) == 1:
            yield made, [f"{open_[0]}=dict(request.inputs)"]


def from_call(text: str) -> str:
    """The expression of `--call`: `prompts` and `{num_steps}`-like fields become those of the request."""
    for role, field_ in (("num_steps", "steps"), ("guidance_scale", "scale")):
        text = text.replace(f"{{{role}}}", _EXPRESSIONS[field_]).replace(f"{{{field_}}}", _EXPRESSIONS[field_])
    text = re.sub(r"\{(height|width|generator|prompts)\}", r"request.\1", text).replace("{seed}", "request.case.seed")
    return re.sub(r"(?<![\w.])prompts\b(?!\s*=[^=])", "request.prompts", text)
