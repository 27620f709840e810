"""The vocabulary: jaxtyping annotations of every tensor of a flow pipeline, and a scope that binds their axes.

Axis names: `B` prompts, `N` rows of one network call (`B`, `2B`, or part of them), `C` latent channels, `h w`
latent height and width, `H W` image height and width, `L` tokens, `D` text latent, `K` steps.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from beartype.door import is_bearable
from jaxtyping import Bool, Float, Float32, Int, Shaped, config, jaxtyped
from torch import Tensor
from torch.nn.parameter import is_lazy

from fmcheck.errors import DeclarationError, did_you_mean

__all__ = [
    "ANNOTATIONS",
    "AttentionMask",
    "Image",
    "Images",
    "InputIds",
    "Latent",
    "LogSNR",
    "Mismatch",
    "NullIndicator",
    "ScalarTime",
    "Scope",
    "State",
    "TextFeatures",
    "TextLatent",
    "TimeEdges",
    "Velocity",
    "all_finite",
    "checks_enabled",
    "describe",
    "has_values",
    "joined",
    "zeros_and_ones",
]

# Images that a user sees have the batch of the prompts; the codec may be called on parts of it, hence N there.
Images = Float[Tensor, "B ch H W"]
Image = Float[Tensor, "N ch H W"]
State = Float[Tensor, "N C h w"]
Velocity = Float[Tensor, "N C h w"]
Latent = Float[Tensor, "N C h w"]
LogSNR = Float32[Tensor, "N"]
NullIndicator = Bool[Tensor, "N"]
TextLatent = Float[Tensor, "N D"]
TextFeatures = Float[Tensor, "N ..."]
ScalarTime = Float32[Tensor, ""]
InputIds = Int[Tensor, "N L"]
AttentionMask = Shaped[Tensor, "N L"]
TimeEdges = Float[Tensor, "K+1"]

# "role.tensor" -> annotation. A subject replaces single entries when its tensors have another layout.
ANNOTATIONS: Mapping[str, Any] = {
    "velocity.x": State,
    "velocity.time": LogSNR,
    "velocity.null": NullIndicator,
    "velocity.output": Velocity,
    "text.output": TextLatent,
    "encode.x": Image,
    "encode.output": Latent,
    "sample.x": Latent,
    "sample.output": Latent,
    "decode.x": Latent,
    "decode.output": Image,
    "generate.output": Images,
}


def _axes(annotation: Any) -> tuple[str, ...] | None:
    """The tokens of an annotation's shape, `("N", "C", "h", "w")`; None for hints that are no single annotation."""
    dims = getattr(annotation, "dim_str", None)
    return None if dims is None else tuple(dims.split())


# T tokens of E numbers; a video model's latents have an axis of frames, and its pictures any number of them.
_TOKENS: Mapping[str, Any] = {
    **dict.fromkeys(("velocity.x", "velocity.output"), Float[Tensor, "N T E"]),
    # Where tokens are unpacked is the pipeline's own business.
    **dict.fromkeys(("encode.output", "sample.x", "sample.output"), Float[Tensor, "N ..."]),
}
_FRAMES: Mapping[str, Any] = {
    **{name: Float[Tensor, "N C F h w"] for name, hint in ANNOTATIONS.items() if _axes(hint) == _axes(Latent)},
    **{name: Float[Tensor, "N ch ... H W"] for name, hint in ANNOTATIONS.items() if _axes(hint) == _axes(Image)},
}

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*$")
# Rows of one call: bound for that call alone, since a loop may call its network on B, 2B or fewer rows.
_PER_CALL = "N"


def checks_enabled() -> bool:
    """False when the user has switched jaxtyping off (`JAXTYPING_DISABLE=1` or its `config`)."""
    return not config.jaxtyping_disable


def rms_rows(tensor: Tensor) -> tuple[float, ...]:
    """Root mean square of every row of `[B, ...]`, in float64."""
    flat = tensor.detach().cpu().double().reshape(len(tensor), -1)
    return tuple(flat.square().mean(1).sqrt().tolist())


def describe(value: Any) -> str:
    """Short form of a value: `f32[4,32,8,8]` for a tensor (with its device unless on the CPU), else its type."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    name = str(value.dtype).removeprefix("torch.")
    name = name.replace("bfloat", "bf").replace("float", "f").replace("uint", "u").replace("int", "i")
    where = "" if value.device.type == "cpu" else f" on {value.device}"
    return f"{name}[{','.join(map(str, value.shape))}]{where}"


def joined(parts: Sequence[Tensor]) -> Tensor:
    """The rows of all parts in one tensor; a single part is returned as it is, not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts))


def has_values(tensor: Tensor) -> bool:
    """Whether there are numbers to look at: not in a lazy parameter, nor on the meta device, where offloading hooks
    leave weights until the moment of their use."""
    return not is_lazy(tensor) and not tensor.is_meta


def zeros_and_ones(tensor: Tensor) -> bool:
    """Whether every element is 0 or 1, as those of a mask are."""
    return bool(((tensor == 0) | (tensor == 1)).all())


def all_finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite: the extremes tell, in one pass that is the fastest of all for pictures."""
    if tensor.is_complex():
        return bool(torch.isfinite(tensor).all())
    if not tensor.is_floating_point() or not tensor.numel() or tensor.is_meta:
        return True
    if tensor.element_size() == 1:
        tensor = tensor.float()  # 8 bit floats can be stored, and nothing else
    return all(math.isfinite(float(extreme)) for extreme in tensor.detach().aminmax())


@dataclass(frozen=True)
class Mismatch:
    """A tensor that is not what its annotation says.

    `aspect` is the first thing that is wrong: `type` (not a tensor), `rank`, `dtype` or `shape`.
    """

    tensor: str
    aspect: str
    expected: str
    found: str
    bound: str

    def __str__(self) -> str:
        tail = f" (bound so far: {self.bound})" if self.bound else ""
        return f"{self.tensor}: wrong {self.aspect}: expected {self.expected}, found {self.found}{tail}"


@dataclass
class _Witness:
    """Has a shape and nothing else: a tensor of all axes together could have more elements than torch can count."""

    shape: tuple[int, ...]
    dtype: str = "none"


@cache
def _witness_annotation(names: tuple[str, ...]) -> Any:
    return Shaped[_Witness, " ".join(names)]


class Scope:
    """Axis sizes bound once and held until the scope ends, however many calls lie in it.

    jaxtyping forgets its bindings when a function returns, so a latent whose height changes between two calls
    passes both. Here the sizes live as long as one `generate()`; each check replays them into a fresh jaxtyping
    context (by a witness that has a shape and nothing else), so that checks inside the user's own jaxtyped
    functions neither see nor disturb them.

    Attributes:
        sizes: size of every bound axis.
        origins: where each of them was bound, in words, as far as the caller of :meth:`check` or :meth:`bind` said.
    """

    def __init__(self, sizes: Mapping[str, int] | None = None) -> None:
        self.sizes = dict(sizes or {})
        self.origins: dict[str, str] = {}
        # Accepted before, with the rows of the call and those bound by it: bindings never change, so it fits again.
        self._accepted: dict[Any, int | None] = {}

    def bind(self, axis: str, size: int, origin: str = "") -> None:
        """Bind an axis that is not bound yet."""
        if axis not in self.sizes:
            self.sizes[axis] = size
            self.origins[axis] = origin

    @contextmanager
    def call(self) -> Iterator[None]:
        """Forget, at the end, the axis that belongs to one call alone."""
        outer = self.sizes.pop(_PER_CALL, None)
        try:
            yield
        finally:
            self.sizes.pop(_PER_CALL, None)
            if outer is not None:
                self.sizes[_PER_CALL] = outer

    def check(self, tensor: str, value: Any, annotation: Any, origin: str = "") -> Mismatch | None:
        """Check one value; None when it fits (and its new axes are bound), otherwise what is wrong.

        Args:
            tensor: its name in messages, such as `velocity.x`.
            value: what crossed the boundary.
            annotation: a jaxtyping annotation, or any other type hint that beartype knows.
            origin: noted for the axes that this value binds.
        """
        key = None
        if isinstance(value, Tensor) and _axes(annotation) is not None:
            key = annotation, value.shape, value.dtype, self.sizes.get(_PER_CALL)
            if key in self._accepted:
                rows = self._accepted[key]
                if rows is not None:
                    self.bind(_PER_CALL, rows, origin)
                return None
        if not self._fits(value, annotation):
            return self._mismatch(tensor, value, annotation)
        self._bind(value, _axes(annotation) or (), origin)
        if key is not None:
            self._accepted[key] = self.sizes.get(_PER_CALL)
        return None

    def _fits(self, value: Any, annotation: Any) -> bool:
        names = tuple(self.sizes)
        with jaxtyped("context"):  # type: ignore[no-untyped-call]
            if names:
                isinstance(_Witness(tuple(self.sizes.values())), _witness_annotation(names))
            return is_bearable(value, annotation)

    def _bind(self, value: Any, tokens: tuple[str, ...], origin: str) -> None:
        if not isinstance(value, Tensor):
            return
        several = [i for i, token in enumerate(tokens) if _many(token)]
        front = several[0] if several else len(tokens)
        back = len(tokens) - front - 1 if several else 0
        sizes = [*value.shape[:front], *value.shape[value.dim() - back :]]
        names = [token for i, token in enumerate(tokens) if i not in several]
        for name, size in zip(names, sizes, strict=False):
            # A leading underscore is jaxtyping's sign for "any size".
            if _IDENTIFIER.match(name) and not name.startswith("_"):
                self.bind(name, size, origin)

    def _mismatch(self, tensor: str, value: Any, annotation: Any) -> Mismatch:
        tokens = _axes(annotation)
        if tokens is None:
            aspect = "shape" if isinstance(value, Tensor) else "type"
            return Mismatch(tensor, aspect, str(annotation), describe(value), "")
        aspect = "shape"
        if not isinstance(value, Tensor):
            aspect = "type"
        elif not any(map(_many, tokens)) and value.dim() != len(tokens):
            aspect = "rank"
        elif not _dtype_fits(value, annotation):
            aspect = "dtype"
        shown = ",".join(f"{t}={self.sizes[t]}" if t in self.sizes else t for t in tokens)
        bound = " ".join(f"{name}={size}" for name, size in self.sizes.items() if name in tokens)
        return Mismatch(tensor, aspect, f"{annotation.dtype.__name__}[{shown}]", describe(value), bound)


def _many(token: str) -> bool:
    """Whether the token stands for any number of axes: `...`, `*rest`, `#*rest`."""
    return token == "..." or ("*" in token[:2] and not token[0].isalnum())


def _dtype_fits(value: Tensor, annotation: Any) -> bool:
    # Without a shape, only type and dtype are left to compare.
    return isinstance(value, annotation.dtype[Tensor, "..."])


def annotations_for(
    overrides: Mapping[str, Any],
    *,
    text_starts_flow: bool = True,
    scalar_time: bool = False,
    tokens: bool = False,
    frames: bool = False,
) -> dict[str, Any]:
    """The vocabulary under a spec, with a subject's own annotations on top.

    An entry `role.tensor@rank` serves values of that rank in place of `role.tensor`.

    Args:
        text_starts_flow: the text output is the latent `[N, D]` that the flow starts at; otherwise it conditions the
            network, in whatever shape.
        scalar_time: the time argument may be one number for all rows.
        tokens: the state is a sequence of packed tokens.
        frames: latents have an axis of frames.

    Raises:
        DeclarationError: an override names a tensor that is not `role.tensor` of the vocabulary, or is no type hint.
    """
    if not isinstance(overrides, Mapping):
        raise DeclarationError(f"annotations: expected a mapping; found {type(overrides).__name__}")
    for name, hint in overrides.items():
        if name not in ANNOTATIONS:
            near = did_you_mean(name, ANNOTATIONS)
            raise DeclarationError(f"annotations: unknown tensor {name!r}{near}; known are {', '.join(ANNOTATIONS)}")
        try:
            is_bearable(None, hint)
        except Exception as error:
            raise DeclarationError(f"annotations[{name!r}]: {hint!r} is no type hint: {error}") from error
    # A text latent that comes as a map has the shape of the state.
    known = {**ANNOTATIONS, "text.output@4": Latent, **(_FRAMES if frames else {}), **(_TOKENS if tokens else {})}
    if not text_starts_flow:
        known["text.output"] = known["text.output@4"] = TextFeatures
    if scalar_time:
        known["velocity.time@0"] = ScalarTime
    for name in overrides:
        for ranked in [entry for entry in known if entry.startswith(f"{name}@")]:
            known.pop(ranked)
    return {**known, **overrides}
