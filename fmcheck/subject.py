"""Subject: how to build a user's model, drive it, and where to look while it runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from fmcheck.case import Case
from fmcheck.errors import DeclarationError, did_you_mean
from fmcheck.judge import Judge
from fmcheck.spec import FlowSpec
from fmcheck.tensors import annotations_for

__all__ = ["ENTRIES", "ROLES", "Point", "Request", "Subject", "annotations_of", "completed_points"]

# What each observation point is for, and the arguments that rules read from its calls. An integer is the position
# in the signature (without self); a missing argument is simply absent from the event.
ROLES: Mapping[str, Mapping[str, str | int]] = MappingProxyType(
    {
        "generate": {},
        "text": {"input_ids": 0, "attention_mask": 1},
        "velocity": {"x": 0, "time": 1, "null": 2},
        "encode": {"x": 0},
        "sample": {"x": 0},
        "decode": {"x": 0},
        "loss": {},
    }
)

# The public functions: one outermost call of them is one run, whose sizes hold together.
ENTRIES = ("generate", "loss")


@dataclass(frozen=True)
class Point:
    """One observation point: a place in the user's model whose calls are recorded.

    Attributes:
        path: dotted path from the model (`vae.decode`, `nets.0`), or `package.module:name` for a function that lives
            in a module. A path that ends at an `nn.Module` observes its `forward`.
        arguments: which parameter of the call plays which part, by name or by position:
            `{"x": "sample", "time": "timestep", "null": None}`. None says that there is no such argument.
        output: where the tensor is in what the call returns: an index, a key or an attribute name. By default the
            first tensor found in a tensor, tuple, list, mapping or dataclass.
        when: only calls whose arguments have these values, for code that dispatches as `ae(x, fn="decode")`.

    Raises:
        DeclarationError: an empty path, or a selector that is neither a name, a position nor None.
    """

    path: str
    arguments: Mapping[str, str | int | None] = field(default_factory=dict)
    output: str | int | None = None
    when: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.path, str) or not all(self.path.replace(":", ".").split(".")):
            raise DeclarationError(f"Point: expected a dotted path such as 'vae.decode'; found {self.path!r}")
        for name in ("arguments", "when"):
            if not isinstance(getattr(self, name), Mapping):
                raise DeclarationError(
                    f"Point {self.path!r}: {name}: expected a mapping; found {getattr(self, name)!r}"
                )
        for argument, selector in self.arguments.items():
            self._check_selector(f"arguments[{argument!r}]", selector)
        self._check_selector("output", self.output)

    def _check_selector(self, what: str, selector: object) -> None:
        position = isinstance(selector, int) and not isinstance(selector, bool) and selector >= 0
        if not (position or isinstance(selector, str) or selector is None):
            raise DeclarationError(
                f"Point {self.path!r}: {what}: expected a name, a position from 0, or None; found {selector!r}"
            )


def completed_points(declared: Mapping[str, "str | Point | None"], who: str) -> dict[str, Point]:
    """Declared points by role, dotted paths made points, arguments completed with the defaults of the role.

    Raises:
        DeclarationError: something that is neither, or an argument that the role does not have (`who` declared it).
    """
    points: dict[str, Point] = {}
    for role, value in declared.items():
        if value is None:
            continue
        if not isinstance(value, str | Point):
            raise DeclarationError(f"{who}, {role}: expected a dotted path or a Point; found {type(value).__name__}")
        point = Point(value) if isinstance(value, str) else value
        known = ROLES[role]
        for argument in point.arguments if known else ():
            if argument not in known:
                hint = did_you_mean(argument, known)
                raise DeclarationError(f"{who}, {role}: unknown argument {argument!r}{hint}")
        points[role] = replace(point, arguments={**known, **point.arguments})
    return points


def annotations_of(spec: FlowSpec | None, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The annotations under a spec (or its defaults), with some replaced.

    A network that is told log-SNR takes one number a row (the rule of the house); others may take one for all.
    """
    spec = spec or FlowSpec()
    return annotations_for(
        overrides,
        text_starts_flow=spec.initial_state == "text_latent",
        scalar_time=spec.time_argument != "log_snr",
        tokens=spec.token_patch is not None,
        frames=spec.latent_frames is not None,
    )


@dataclass(frozen=True)
class Request:
    """What the subject's `generate` and `loss` are handed: the case, its tokens and its generator.

    `inputs` holds what `Subject.tokenize` returned (tensors on the case's device); it is empty without a tokenizer.
    `images` is `[B, channels, H, W]` in the spec's image range for `loss`, None for `generate`.
    """

    case: Case
    inputs: Mapping[str, Any]
    generator: torch.Generator
    images: Tensor | None = None

    @property
    def prompts(self) -> list[str]:
        return list(self.case.prompts)

    @property
    def height(self) -> int:
        return self.case.height

    @property
    def width(self) -> int:
        return self.case.width

    @property
    def num_steps(self) -> int:
        return self.case.num_steps

    @property
    def guidance_scale(self) -> float:
        return self.case.guidance_scale

    def keywords(self, **names: str | None) -> dict[str, Any]:
        """Height, width, num_steps, guidance_scale and generator as keyword arguments, under the sampler's own names.

        `keywords(steps="num_steps", w="guidance_scale")` passes the number of steps as `steps` and the scale as `w`;
        `keywords(prompt="prompts")` adds the prompts, and `keywords(height=None)` leaves the height out.

        Raises:
            DeclarationError: a name that the request does not have.
        """
        own = ("height", "width", "num_steps", "guidance_scale", "generator")
        known = (*own, "prompts", "images")
        for theirs, ours in names.items():
            wrong = theirs if ours is None else ours
            if wrong not in known:
                raise DeclarationError(
                    f"Request.keywords: {theirs}={ours!r}: a request has {', '.join(known)}{did_you_mean(wrong, known)}"
                )
        kept = {name: name for name in own if name not in names and name not in names.values()}
        given = {theirs: ours for theirs, ours in names.items() if ours is not None}
        return {theirs: getattr(self, ours) for theirs, ours in {**kept, **given}.items()}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model under test.

    Attributes:
        name: shown in reports; without one, the module that `build` was written in.
        build: `build(case)` returns a fresh model on `case.device` with `case.torch_dtype`; called once per device
            and dtype.
        generate: `generate(model, request)` runs the user's own sampler and returns images.
        velocity, text, encode, sample, decode, entry: observation points, as dotted paths or :class:`Point`. Only
            `velocity` is required; rules that need a missing one are skipped and say so. `entry` is the public
            function behind `generate`; its arguments are tested one by one.
        tokenize: `tokenize(model, prompts)` returns the tensors that go into `request.inputs`.
        pad: `pad(model, inputs, extra)` returns inputs with `extra` more padding tokens a row, same meaning.
        masked: `masked(model, inputs)` returns inputs whose tokens under the mask have other values.
        loss: `loss(model, request)` runs one training loss (images in `request.images`) and returns it.
        loss_entry: the function behind `loss`, observed for its calls.
        generate_rank: `generate_rank(model, request, rank, world_size)` makes one rank's part of the request's prompts
            and returns the images `[n, channels, H, W]` and the n indices of their prompts, inside a process group. The
            request holds all prompts, and its generator starts alike on every rank.
        rank_seeding: what the noise of a sample depends on: `per_sample` on its own seed, so that any number of ranks
            makes the same pictures; `per_rank` also on the rank that makes it.
        shard: `shard(model, mesh)` spreads the velocity network over a device mesh in place (FSDP2, DTensor); then
            `generate` is run on every rank.
        spec: the conventions that hold.
        case: the native case: size, steps and scale that the model is made for. Rules derive theirs from it.
        time_edges: `time_edges(case)` returns the `num_steps + 1` flow times, from 0 (source) to 1 (data), of a grid
            that the spec calls `declared`: a schedule that no field of the spec describes.
        sizes: every legal `(height, width)`, for models that run at a few sizes only; None when every multiple of the
            spec's size multiple is legal.
        dtypes: dtypes that the network may have, by name; the first is the native one.
        annotations: replaces entries of :data:`fmcheck.tensors.ANNOTATIONS`, for tensors of another layout.
        judge: scores pictures under their prompts, for sweeps and for what no number inside the loop shows.

    Raises:
        DeclarationError: no velocity point, an unknown tensor in `annotations`, an unknown argument name of a point,
            a field of the wrong type, an unknown dtype, a native size that the spec's size multiple does not divide.
    """

    name: str = ""
    build: Callable[[Case], Any]
    generate: Callable[[Any, Request], Any]
    velocity: str | Point
    text: str | Point | None = None
    encode: str | Point | None = None
    sample: str | Point | None = None
    decode: str | Point | None = None
    entry: str | Point | None = None
    tokenize: Callable[[Any, list[str]], Mapping[str, Any]] | None = None
    pad: Callable[[Any, Mapping[str, Any], int], Mapping[str, Any]] | None = None
    masked: Callable[[Any, Mapping[str, Any]], Mapping[str, Any]] | None = None
    loss: Callable[[Any, Request], Any] | None = None
    loss_entry: str | Point | None = None
    generate_rank: Callable[[Any, Request, int, int], Any] | None = None
    rank_seeding: Literal["per_sample", "per_rank"] = "per_sample"
    shard: Callable[[Any, Any], None] | None = None
    spec: FlowSpec = field(default_factory=FlowSpec)
    case: Case = field(default_factory=Case)
    time_edges: Callable[[Case], Sequence[float]] | None = None
    sizes: tuple[tuple[int, int], ...] | None = None
    dtypes: tuple[str, ...] = ("float32",)
    annotations: Mapping[str, Any] = field(default_factory=dict)
    judge: Judge | None = None

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", _module_of(self.build))
        who = f"Subject {self.name!r}"
        if not self.velocity:
            raise DeclarationError(f"{who}: velocity names no observation point; give its dotted path")
        self._check_types(who)
        self.tensor_annotations()
        completed_points(self._declared, who)
        self._check_sizes(who)

    def _check_types(self, who: str) -> None:
        for name in ("build", "generate", "tokenize", "pad", "masked", "loss", "generate_rank", "shard", "time_edges"):
            value = getattr(self, name)
            if not callable(value) and (value is not None or name in ("build", "generate")):
                raise DeclarationError(f"{who}: {name}: expected a function; found {type(value).__name__}")
        for name, kind in (("spec", FlowSpec), ("case", Case)):
            if not isinstance(getattr(self, name), kind):
                found = type(getattr(self, name)).__name__
                raise DeclarationError(f"{who}: {name}: expected a {kind.__name__}; found {found}")
        if not isinstance(self.judge, Judge | None):
            raise DeclarationError(f"{who}: judge: expected a Judge; found {type(self.judge).__name__}")
        if (self.spec.grid == "declared") != (self.time_edges is not None):
            raise DeclarationError(
                f"{who}: grid 'declared' and time_edges belong together; found grid {self.spec.grid!r} and time_edges "
                f"{'given' if self.time_edges else 'missing'}"
            )
        if self.rank_seeding not in ("per_sample", "per_rank"):
            raise DeclarationError(
                f"{who}: rank_seeding: expected 'per_sample' or 'per_rank'; found {self.rank_seeding!r}"
            )
        if not isinstance(self.dtypes, list | tuple) or not self.dtypes:
            raise DeclarationError(f"{who}: dtypes: expected names such as ('float32',); found {self.dtypes!r}")
        for dtype in self.dtypes:
            self.case.but(dtype=dtype)

    def _check_sizes(self, who: str) -> None:
        native, multiple = (self.case.height, self.case.width), self.spec.multiple
        sizes = (native,) if self.sizes is None else self.sizes
        if not isinstance(sizes, list | tuple) or not all(isinstance(s, list | tuple) and len(s) == 2 for s in sizes):
            raise DeclarationError(f"{who}: sizes: expected pairs (height, width); found {self.sizes!r}")
        for height, width in sizes:
            self.case.but(height=height, width=width)
            if height % multiple or width % multiple:
                raise DeclarationError(
                    f"{who}: case size {height}x{width} is not divisible by {multiple}, the spec's size multiple"
                )
        if native not in [tuple(size) for size in sizes]:
            raise DeclarationError(f"{who}: the native size {native[0]}x{native[1]} is not among its sizes")

    @property
    def _declared(self) -> dict[str, str | Point | None]:
        return {
            "generate": self.entry,
            "text": self.text,
            "velocity": self.velocity,
            "encode": self.encode,
            "sample": self.sample,
            "decode": self.decode,
            "loss": self.loss_entry,
        }

    @cached_property
    def points(self) -> dict[str, Point]:
        """The declared observation points by role, arguments completed with the defaults of the role."""
        return completed_points(self._declared, f"Subject {self.name!r}")

    def tensor_annotations(self) -> dict[str, Any]:
        """The annotation of every tensor that crosses a point, under the spec and with the subject's own on top."""
        return annotations_of(self.spec, self.annotations)

    def at(self, case: Case) -> "Subject":
        """The same subject with the conventions that hold for one case, where they depend on it.

        Raises:
            DeclarationError: `time_edges` raised, or returned no flow times.
        """
        edges = None
        if self.time_edges is not None:
            try:
                edges = [float(edge) for edge in self.time_edges(case)]
            except Exception as error:
                raise DeclarationError(
                    f"Subject {self.name!r}: time_edges raised {type(error).__name__}: {error}; it is given the case "
                    "and returns its num_steps + 1 flow times from 0 (source) to 1 (data)"
                ) from error
            if len(edges) != case.num_steps + 1:
                raise DeclarationError(
                    f"Subject {self.name!r}: time_edges: expected {case.num_steps + 1} flow times for {case.num_steps} "
                    f"steps; found {len(edges)}"
                )
        spec = self.spec.at(case.height, case.width, edges)
        return self if spec is self.spec else replace(self, spec=spec)

    def but(self, **changes: Any) -> "Subject":
        """The same subject with some fields changed."""
        return replace(self, **changes)


def _module_of(build: Any) -> str:
    while isinstance(build, partial):
        build = build.func
    return getattr(build, "__module__", None) or "subject"
