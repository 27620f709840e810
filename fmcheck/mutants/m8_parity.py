"""FM8: a pipeline that gives other numbers compiled, under autocast, in low precision, in parts, or in another mode."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmcheck.mutants.loop import Loop
from fmcheck.mutants.registry import mutant
from fmcheck.mutants.surgery import wrap
from fmcheck.tiny import TinyFlowModel
from fmcheck.tiny.layers import Attention


def _when(model: TinyFlowModel, happens: Any, other: Any) -> None:
    """Change the velocity by `other(velocity, x)` whenever `happens(x)`."""

    def forward(clean: Any, x: Tensor, times: Tensor, null: Tensor) -> Any:
        v = clean(x, times, null)
        return other(v, x) if happens(x) else v

    wrap(model.fm_transformers, "forward", forward)


def _unscaled_attention(model: TinyFlowModel, happens: Any) -> None:
    """Attention logits are not divided by the root of their width whenever `happens(queries)`."""
    config = model.config
    root = (config.velocity_width / config.velocity_heads) ** 0.5

    def scaled(clean: Any, queries: Tensor) -> Any:
        return clean(queries) * root if happens(queries) else clean(queries)

    for module in model.fm_transformers.modules():
        if isinstance(module, Attention):
            wrap(module.query, "forward", scaled)


# FM811 compiling-changes-result


@mutant("FM811")
def guess_of_gelu_when_compiled(model: TinyFlowModel) -> None:
    """The compiled network replaces its GELU by a sigmoid that is cheaper."""

    def forward(clean: Any, x: Tensor) -> Any:
        return x * torch.sigmoid(1.5 * x) if torch.compiler.is_compiling() else clean(x)

    for module in model.fm_transformers.modules():
        if isinstance(module, nn.GELU):
            wrap(module, "forward", forward)


# FM812 compiles-again


@mutant("FM812")
def gain_looked_up_by_the_time(model: TinyFlowModel) -> None:
    """The network turns its time into a Python number and looks up a gain by it: every step is another program."""
    gains = {0.0: 1.0}

    def looked_up(clean: Any, x: Tensor, times: Tensor, null: Tensor) -> Any:
        time = round(float(times[0]), 2)
        return clean(x, times, null) * gains.get(time, 1.0)

    wrap(model.fm_transformers, "forward", looked_up)


@mutant("FM812")
def table_under_the_name_of_its_size(model: TinyFlowModel) -> None:
    """The network looks up a gain by the text of its size, which makes every size a constant of the program."""
    gains = {"1x1": 0.5}

    def looked_up(clean: Any, x: Tensor, times: Tensor, null: Tensor) -> Any:
        return clean(x, times, null) * gains.get(f"{x.shape[2]}x{x.shape[3]}", 1.0)

    wrap(model.fm_transformers, "forward", looked_up)


# FM813 autocast-changes-result


@mutant("FM813")
def scale_forgotten_under_autocast(model: TinyFlowModel) -> None:
    """Under autocast another attention is used, which does not divide the logits by the root of their width."""
    _unscaled_attention(model, lambda queries: torch.is_autocast_enabled(queries.device.type))


@mutant("FM813")
def unconditional_rows_as_the_others_under_autocast(model: TinyFlowModel) -> None:
    """Under autocast the null indicator, cast to bfloat16 and compared with a half that it never is, is lost."""

    def condition(clean: Any, times: Tensor, null: Tensor) -> Any:
        lost = torch.is_autocast_enabled(times.device.type)
        return clean(times, torch.zeros_like(null) if lost else null)

    wrap(model.fm_transformers, "condition", condition)


# FM814 autocast-rounds-state


@mutant("FM814")
def update_by_a_matrix_product(model: TinyFlowModel) -> None:
    """The update is one baddbmm, which autocast takes in bfloat16, state and all."""

    def update(x: Tensor, dt: Tensor, v: Tensor) -> Tensor:
        step = dt * torch.eye(x.shape[-1], device=x.device).expand(x.shape[0], -1, -1)
        return torch.baddbmm(x.flatten(1, 2), v.flatten(1, 2), step).reshape(x.shape).to(x.dtype)

    Loop(update=update).install(model)


@mutant("FM814")
def state_stays_as_the_first_layer_left_it(model: TinyFlowModel) -> None:
    """The start comes out of a linear layer, in bfloat16 under autocast, and every later state keeps its dtype."""
    channels = model.config.latent_channels
    Loop(
        start=lambda x: F.linear(x.movedim(1, -1), torch.eye(channels, device=x.device)).movedim(-1, 1),
        update=lambda x, dt, v: (x + dt * v).to(x.dtype),
    ).install(model)


# FM815 low-precision-changes-result


@mutant("FM815")
def half_precision_path_forgets_the_scale(model: TinyFlowModel) -> None:
    """The attention for half precision does not divide the logits by the root of their width."""
    _unscaled_attention(model, lambda queries: queries.dtype == torch.bfloat16)


@mutant("FM815")
def norm_accumulated_in_its_own_dtype(model: TinyFlowModel) -> None:
    """The velocity is normalised by a sum of squares that is added up one by one, in the network's dtype."""

    def normalised(v: Tensor, _: Tensor) -> Tensor:
        squares = v.flatten(1).square()
        total = squares[:, 0]
        for column in squares[:, 1:].unbind(1):
            total = total + column
        return v * (total / squares.shape[1]).rsqrt()[:, None, None, None]

    _when(model, lambda x: True, normalised)


# FM816 memory-format-matters


@mutant("FM816")
def latent_flattened_by_view(model: TinyFlowModel) -> None:
    """The network makes tokens with `.view`, which only one layout allows."""
    _before(model.fm_transformers, lambda x: x.view(len(x), -1).view(x.shape))


@mutant("FM816")
def memory_read_in_its_order(model: TinyFlowModel) -> None:
    """The decoder's kernel walks through memory as if channels came first."""
    _before(model.autoencoder, _as_it_lies, "decode")


@mutant("FM816")
def pictures_read_through_their_memory(model: TinyFlowModel) -> None:
    """The encoder takes the caller's pictures as they lie in memory."""
    _before(model.autoencoder, _as_it_lies, "encode_moments")


def _as_it_lies(x: Tensor) -> Tensor:
    strides = torch.empty(x.shape, device="meta").stride()
    return x.as_strided(x.shape, strides)


def _before(owner: Any, change: Any, name: str = "forward") -> None:
    """Change the first argument of a method."""
    wrap(owner, name, lambda clean, x, *rest, **named: clean(change(x), *rest, **named))


# FM817 parts-differ-from-whole


@mutant("FM817")
def condition_kept_by_time(model: TinyFlowModel) -> None:
    """The embedding of time and indicator is kept until the time changes; a second call of a step gets the first's."""
    kept: dict[str, Any] = {}

    def condition(clean: Any, times: Tensor, null: Tensor) -> Any:
        if kept.get("time") != float(times[0]) or len(kept["rows"]) < len(times):
            kept.update(time=float(times[0]), rows=clean(times, null))
        return kept["rows"][: len(times)]

    wrap(model.fm_transformers, "condition", condition)


@mutant("FM817")
def quantised_by_the_largest_row(model: TinyFlowModel) -> None:
    """The network quantises what it is given to 8 bits, by the largest value of the whole batch."""

    def quantised(x: Tensor) -> Tensor:
        unit = x.abs().max() / 127
        return (x / unit).round() * unit

    _before(model.fm_transformers, quantised)


# FM818 inference-mode-matters


@mutant("FM818")
def faster_path_without_autograd(model: TinyFlowModel) -> None:
    """Under inference mode the last bits of the velocity are saved."""
    _when(model, lambda x: torch.is_inference_mode_enabled(), lambda v, x: v.to(torch.bfloat16).to(v.dtype))


@mutant("FM818")
def gradient_taken_in_the_loop(model: TinyFlowModel) -> None:
    """The loop asks for the gradient of an energy (whose weight is 0), and inference mode has none to give."""

    def start(x: Tensor) -> Tensor:
        with torch.enable_grad():
            state = x.detach().requires_grad_()
            (force,) = torch.autograd.grad(state.square().sum(), state)
        return x + 0.0 * force

    Loop(start=start).install(model)


# FM819 attention-backend-matters


@mutant("FM819")
def attention_by_hand_without_a_fused_kernel(model: TinyFlowModel) -> None:
    """Where no fused kernel is enabled the attention is written by hand, without dividing the logits."""
    _unscaled_attention(model, lambda queries: not torch.backends.cuda.flash_sdp_enabled())  # type: ignore[no-untyped-call]


# FM820 reduced-products-in-state


@mutant("FM820")
def update_as_tensor_cores_would(model: TinyFlowModel) -> None:
    """The update is a matrix product; here its operands are rounded by hand, as where products may be reduced."""

    def update(x: Tensor, dt: Tensor, v: Tensor) -> Tensor:
        reduced = torch.get_float32_matmul_precision() != "highest"
        return x + (dt * v).to(torch.bfloat16).to(x.dtype) if reduced else x + dt * v

    Loop(update=update).install(model)


# FM821 device-changes-result


@mutant("FM821")
def accelerators_kernel_transposes(model: TinyFlowModel) -> None:
    """The kernel for accelerators writes the rows of the latent where its columns belong."""

    def transposed(v: Tensor, _: Tensor) -> Tensor:
        return v.transpose(2, 3).reshape(v.shape)

    _when(model, lambda x: x.device.type != "cpu", transposed)
