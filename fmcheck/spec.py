"""FlowSpec: the conventions of one code base, as data.

Two correct pipelines may disagree on every line here and both be right, so a rule never
assumes a convention: it reads it from the spec of the subject.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeGuard, get_args, get_origin

from fmcheck.errors import DeclarationError, did_you_mean, only_keys
from fmcheck.values import is_count, is_finite_number, is_range

__all__ = [
    "FlowSpec",
    "GuidanceFormula",
    "GuidanceLayout",
    "Grid",
    "PerChannel",
    "Prediction",
    "Solver",
    "TimeArgument",
]

TimeArgument = Literal["log_snr", "t", "sigma", "timestep"]
GuidanceFormula = Literal["cond_plus", "uncond_plus"]
GuidanceLayout = Literal["cond_first", "uncond_first", "separate", "separate_uncond_first", "embedded"]
GuidanceNorm = Literal["none", "row", "last_axis"]
Grid = Literal["logit_normal", "uniform", "shifted", "declared"]
ShiftLaw = Literal["exponential", "linear"]
EvaluationPoint = Literal["midpoint", "left"]
Solver = Literal["euler", "midpoint", "heun", "other", "stochastic"]
Prediction = Literal["velocity", "reverse_velocity", "x1", "x0", "noise"]
IllegalSizes = Literal["refused", "rounded_down"]
TokenOrder = Literal["channels_first", "channels_last"]
# One number, or one a latent channel.
PerChannel = float | tuple[float, ...]
InitialState = Literal["text_latent", "noise"]
Posterior = Literal["mode", "sample"]

_TIME_MAPS: dict[str, tuple[float, float]] = {
    "log_snr": (4.0, -8.0),
    "t": (0.0, 1.0),
    "sigma": (1.0, -1.0),
    "timestep": (1000.0, -1000.0),
}
_FINITE = (
    "grid_mean",
    "grid_std",
    "grid_clamp",
    "grid_shift",
    "sigma_min",
    "noise_scale",
    "guidance_rescale",
    "null_probability",
)
_TUPLES = (
    "image_range",
    "decode_range",
    "guidance_interval",
    "grid_shift_by_tokens",
    "grid_edges",
    "latent_scale",
    "latent_shift",
)


def _are_numbers(value: object) -> TypeGuard[tuple[float, ...]]:
    return isinstance(value, tuple) and all(is_finite_number(number) for number in value)


@dataclass(frozen=True, kw_only=True)
class FlowSpec:
    """The conventions of a flow-matching pipeline. Flow time `t` runs from 0 (source) to 1 (data).

    Every default is the rule of the house (CrossFlow, arXiv 2412.15213, with a logit-normal quantile grid).

    Attributes:
        time_argument: what the velocity network is told: `log_snr` is `4 - 8t`, `t` is t, `sigma` is `1 - t`,
            `timestep` is `1000 sigma`.
        time_offset, time_slope: the affine map `time_offset + time_slope * t` in numbers, when it differs from
            the one that `time_argument` names.
        guidance_formula: `cond_plus` is `(1 + w) c - w u`; `uncond_plus` is `u + s (c - u)`, so `s = 1 + w`.
        guidance_layout: order of the halves of one doubled call, or two `separate` calls (conditional first);
            `embedded` when the scale is an input of a distilled network, which is then asked once (arXiv 2210.03142).
        guidance_from: scales up to and including this one mean "no guidance"; `None` is the neutral scale of the
            formula (0 for `cond_plus`, 1 for `uncond_plus`) and only that one.
        guidance_rescale: `phi` of arXiv 2305.08891, section 3.4: the combined prediction is scaled, a row at a time, by
            `phi std(cond) / std(combined) + 1 - phi`.
        guidance_norm: whether the combined prediction is scaled back to the norm of the conditional one, a `row` at a
            time or along its `last_axis`.
        guidance_interval: flow times `(low, high)` in which guidance acts (arXiv 2404.07724); all of them by default.
        null_means_unconditional: whether a True null indicator marks the unconditional row.
        grid: `logit_normal` quantiles (mean, std), `uniform`, `shifted` (`shift`; SD3, arXiv 2403.03206, eq. 23), or
            `declared`: `Subject.time_edges` says it.
        grid_mean, grid_std: parameters of the logit-normal distribution (also of the training times).
        grid_clamp: declared clamp of the quantiles, `q = linspace(eps, 1 - eps, K + 1)`; 0 covers the whole path.
        grid_shift: the shift factor of a `shifted` grid.
        grid_shift_by_tokens: `(n_a, log_shift_a, n_b, log_shift_b)`: the logarithm of the shift is linear in the number
            of tokens of the image (resolution-dependent shift, arXiv 2403.03206, section 5.3.2); it replaces
            `grid_shift`. Under the `linear` `grid_shift_law` the shift itself is.
        grid_token_patch: side of such a token in latent cells; by default `token_patch`, or else 1.
        grid_last_sigma: noise level `sigma = 1 - t` of the last evaluation before the shift, when the levels are
            `linspace(1, last, K)` with 0 put behind them; None is `1 / K`, on which all steps are alike.
        grid_terminal: after the shift the levels are stretched so that the last evaluation has this one.
        grid_edges: flow times of a `declared` grid for one case; :meth:`at` fills them in.
        evaluation_point: flow time at which an Euler step evaluates the network: the `midpoint` of its two edges,
            or the `left` one.
        solver: `euler`, explicit `midpoint`, or `heun`; `other` for any other method that converges to the flow with
            one evaluation a step (multistep methods), `stochastic` for one that draws noise on the way.
        prediction: what the network returns: `velocity` dx/dt; `reverse_velocity` -dx/dt (noise minus data);
            `x1` the data end; `x0` the source end, for which `noise` is another word.
        sigma_min: `s_min` of the path `x_t = (1 - (1 - s_min) t) x0 + t x1`.
        initial_state: `text_latent` when the flow starts at the text encoder's latent, else `noise`.
        noise_scale: standard deviation of the noise that a flow from noise starts at, in sampling and in training.
        state_dtype: precision of the integrated state: `float32`, or that of the `network` (which loses small steps in
            bfloat16, but is what some released pipelines document).
        latent_channels, downsampling: latents are `[B, latent_channels, H/downsampling, W/downsampling]`.
        illegal_sizes: whether a size that is no such multiple is refused, or answered with the next smaller legal one.
        latent_frames: number of latent frames of a video model: latents are `[B, C, frames, h, w]`.
        token_patch: side p of the squares of latent cells that are packed to tokens, when the state is a sequence
            `[B, (frames) (h/p) (w/p), C p p]`; 1 for tokens of one cell.
        token_order: order of the numbers in a token: `(C, p, p)` or `(p, p, C)`.
        size_multiple: heights and widths must be multiples of this (default: `downsampling`, times
            `token_patch`).
        latent_scale, latent_shift: the decoder is fed `state / latent_scale + latent_shift`; one number, or one a
            latent channel.
        posterior: whether encoding takes the `mode` of the encoder's posterior (the same latent every time) or draws a
            `sample` of it.
        unscale_before_decode: whether that happens before the `decode` point (inside `sample`, or inline); False when
            `decode` does it itself.
        image_channels, image_range: of the images that `generate` returns.
        decode_range: of the images that `decode` returns, when post-processing changes the range.
        null_probability: share of unconditional rows in training.
        time_distribution: law of the training times; `logit_normal` has `grid_mean` and `grid_std`.

    Raises:
        DeclarationError: a field has a value outside its domain.
    """

    time_argument: TimeArgument = "log_snr"
    time_offset: float | None = None
    time_slope: float | None = None
    guidance_formula: GuidanceFormula = "cond_plus"
    guidance_layout: GuidanceLayout = "cond_first"
    guidance_from: float | None = None
    guidance_rescale: float = 0.0
    guidance_norm: GuidanceNorm = "none"
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    null_means_unconditional: bool = True
    grid: Grid = "logit_normal"
    grid_mean: float = 0.0
    grid_std: float = 1.0
    grid_clamp: float = 0.0
    grid_shift: float = 1.0
    grid_shift_by_tokens: tuple[float, ...] | None = None
    grid_shift_law: ShiftLaw = "exponential"
    grid_token_patch: int | None = None
    grid_last_sigma: float | None = None
    grid_terminal: float | None = None
    grid_edges: tuple[float, ...] | None = None
    evaluation_point: EvaluationPoint = "midpoint"
    solver: Solver = "euler"
    prediction: Prediction = "velocity"
    sigma_min: float = 0.0
    initial_state: InitialState = "text_latent"
    noise_scale: float = 1.0
    state_dtype: Literal["float32", "network"] = "float32"
    latent_channels: int = 32
    downsampling: int = 32
    size_multiple: int | None = None
    illegal_sizes: IllegalSizes = "refused"
    latent_frames: int | None = None
    token_patch: int | None = None
    token_order: TokenOrder = "channels_first"
    latent_scale: PerChannel = 1.0
    latent_shift: PerChannel = 0.0
    posterior: Posterior = "mode"
    unscale_before_decode: bool = True
    image_channels: int = 3
    image_range: tuple[float, float] = (-1.0, 1.0)
    decode_range: tuple[float, float] | None = None
    null_probability: float = 0.1
    time_distribution: Literal["logit_normal", "uniform"] = "logit_normal"

    def __post_init__(self) -> None:
        # Lists come from TOML and JSON; a frozen record must be hashable.
        for name in _TUPLES:
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.prediction == "noise":
            object.__setattr__(self, "prediction", "x0")
        self._check_choices()
        self._check_numbers()
        self._check_latent()
        self._check_grid()
        self._check_time()

    def _need(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise DeclarationError(f"FlowSpec.{name}: expected {expected}; found {getattr(self, name)!r}")

    def _check_choices(self) -> None:
        for field in fields(self):
            choices = get_args(field.type) if get_origin(field.type) is Literal else ()
            value = getattr(self, field.name)
            if choices and not (isinstance(value, str) and value in choices):
                hint = did_you_mean(value, choices)
                raise DeclarationError(
                    f"FlowSpec.{field.name}: expected one of {', '.join(choices)}; found {value!r}{hint}"
                )
        for name in ("null_means_unconditional", "unscale_before_decode"):
            self._need(name, isinstance(getattr(self, name), bool), "true or false")

    def _check_numbers(self) -> None:
        need = self._need
        for name in ("latent_channels", "downsampling", "image_channels"):
            need(name, is_count(getattr(self, name)), "a positive integer")
        for name in _FINITE:
            need(name, is_finite_number(getattr(self, name)), "a finite number")
        for name in ("grid_std", "grid_shift", "noise_scale"):
            need(name, getattr(self, name) > 0, "a number above 0")
        need("grid_clamp", 0 <= self.grid_clamp < 0.5, "a number in [0, 0.5)")
        need("sigma_min", 0 <= self.sigma_min < 1, "a number in [0, 1)")
        need("guidance_rescale", 0 <= self.guidance_rescale <= 1, "a share in [0, 1]")
        interval = self.guidance_interval
        need("guidance_interval", is_range(interval), "a pair (low, high) of flow times with low < high")
        need("null_probability", 0 <= self.null_probability < 1, "a probability in [0, 1)")
        need("image_range", is_range(self.image_range), "a pair (low, high) with low < high")
        no_decode_range = self.decode_range is None
        need("decode_range", no_decode_range or is_range(self.decode_range), "a pair (low, high) with low < high")
        if self.size_multiple is not None:
            legal = is_count(self.size_multiple) and self.size_multiple % self.downsampling == 0
            need("size_multiple", legal, f"a positive multiple of downsampling ({self.downsampling})")

    def _check_latent(self) -> None:
        need = self._need
        for name in ("latent_scale", "latent_shift"):
            value = getattr(self, name)
            numbers = value if isinstance(value, tuple) else (value,)
            need(
                name,
                _are_numbers(numbers) and len(numbers) in (1, self.latent_channels),
                "a finite number, or one a latent channel",
            )
            need(name, name != "latent_scale" or 0 not in numbers, "numbers other than 0")
        for name in ("latent_frames", "token_patch", "grid_token_patch"):
            need(name, getattr(self, name) is None or is_count(getattr(self, name)), "a positive integer")
        packed = self.downsampling * (self.token_patch or 1)
        need("token_patch", self.multiple % packed == 0, f"tokens that fit: size_multiple {packed} or a multiple")

    def _check_grid(self) -> None:
        need, by_tokens, edges = self._need, self.grid_shift_by_tokens, self.grid_edges
        if by_tokens is not None:
            four = "four numbers (n_a, log_shift_a, n_b, log_shift_b), for two numbers of tokens"
            need("grid_shift_by_tokens", _are_numbers(by_tokens) and len(by_tokens) == 4, four)
            need("grid_shift_by_tokens", by_tokens[0] != by_tokens[2], four)
            need("grid_shift_by_tokens", self.grid == "shifted", "none on this grid")
        for name in ("grid_last_sigma", "grid_terminal"):
            value = getattr(self, name)
            need(name, value is None or (is_finite_number(value) and 0 < value < 1), "a noise level in (0, 1)")
            need(name, value is None or self.grid in ("uniform", "shifted"), "none on this grid")
        if edges is not None:
            need("grid_edges", _are_numbers(edges) and len(edges) > 1, "at least two finite flow times")

    def _check_time(self) -> None:
        for name in ("time_offset", "time_slope", "guidance_from"):
            value = getattr(self, name)
            self._need(name, value is None or is_finite_number(value), "a finite number")
        self._need("time_slope", self.time_map[1] != 0, "a slope other than 0, since time must be readable from it")

    @property
    def time_map(self) -> tuple[float, float]:
        """`(offset, slope)`: the network is told `offset + slope * t`."""
        offset, slope = _TIME_MAPS[self.time_argument]
        return (
            offset if self.time_offset is None else float(self.time_offset),
            slope if self.time_slope is None else float(self.time_slope),
        )

    @property
    def neutral_scale(self) -> float:
        """The guidance scale at which the combined velocity is the conditional one: 0 or 1."""
        return 0.0 if self.guidance_formula == "cond_plus" else 1.0

    def guidance_weight(self, scale: float) -> float:
        """`w` in `v = (1 + w) c - w u` for a user's guidance scale, 0 where the spec says guidance is off.

        It is off, too, for a network that is told the scale: there is one branch, which holds its effect.
        """
        if self.guidance_layout == "embedded":
            return 0.0
        if self.guidance_from is not None and scale <= self.guidance_from:
            return 0.0
        return scale - self.neutral_scale

    @property
    def guided_throughout(self) -> bool:
        """Whether guidance acts at all times."""
        return self.guidance_interval[0] <= 0 and self.guidance_interval[1] >= 1

    def guidance_weight_at(self, scale: float, time: float) -> float:
        """The guidance weight at a flow time: that of the scale inside of the declared interval, 0 outside."""
        low, high = self.guidance_interval
        # A network that is told a time outside of [0, 1] is guided like any other (and FM307's).
        return self.guidance_weight(scale) if self.guided_throughout or low <= time <= high else 0.0

    @property
    def multiple(self) -> int:
        """Heights and widths must be multiples of this many pixels."""
        return self.size_multiple or self.downsampling * (self.token_patch or 1)

    def latent_size(self, height: int, width: int) -> tuple[int, int, int]:
        """`(C, h, w)` of the latent of an image of `height` x `width` pixels."""
        return self.latent_channels, height // self.downsampling, width // self.downsampling

    @property
    def packed_size(self) -> int:
        """Cells of the latent that make one token, or 1 where the state is no sequence of tokens."""
        return (self.token_patch or 1) ** 2

    @property
    def rescales(self) -> bool:
        """Whether the combined prediction is scaled before it is used."""
        return self.guidance_rescale != 0 or self.guidance_norm != "none"

    @property
    def has_formula(self) -> bool:
        """Whether the solver's steps are known: those of `other` and `stochastic` methods are not."""
        return self.solver not in ("other", "stochastic")

    @property
    def stages(self) -> int:
        """Network evaluations in a full step of the solver."""
        return 2 if self.solver in ("midpoint", "heun") else 1

    def shift_for(self, height: int, width: int) -> float:
        """The shift factor of a `shifted` grid for an image of `height` x `width` pixels."""
        if self.grid_shift_by_tokens is None:
            return self.grid_shift
        low, at_low, high, at_high = self.grid_shift_by_tokens
        patch = self.grid_token_patch or self.token_patch or 1
        _, h, w = self.latent_size(height, width)
        tokens = (h // patch) * (w // patch) * (self.latent_frames or 1)
        found = at_low + (at_high - at_low) * (tokens - low) / (high - low)
        return math.exp(found) if self.grid_shift_law == "exponential" else found

    def at(self, height: int, width: int, edges: Iterable[float] | None = None) -> "FlowSpec":
        """The same spec for one size, where nothing depends on the size any more.

        Args:
            edges: flow times of a `declared` grid.
        """
        changes: dict[str, Any] = {}
        if self.grid_shift_by_tokens is not None:
            changes = {"grid_shift": self.shift_for(height, width), "grid_shift_by_tokens": None}
        if edges is not None:
            changes["grid_edges"] = tuple(float(edge) for edge in edges)
        return replace(self, **changes) if changes else self

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "FlowSpec":
        """A spec from a TOML table; unknown keys are errors with the nearest known name."""
        only_keys(table, "[tool.fmcheck.spec]", (field.name for field in fields(cls)))
        return cls(**table)

    def as_table(self) -> dict[str, Any]:
        """Plain data for TOML or JSON, without the fields that are None; `FlowSpec.from_table` is its inverse."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if v is not None}
