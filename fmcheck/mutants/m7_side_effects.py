"""FM7, side effects: what `generate` leaves behind in the model, its inputs, the process and the next call."""

import os
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fmcheck.mutants.calls import act_before, change_arguments, change_result
from fmcheck.mutants.loop import Loop
from fmcheck.mutants.registry import mutant
from fmcheck.mutants.surgery import bind, wrap
from fmcheck.tiny import TinyFlowModel

# FM709 model-changed


@mutant("FM709")
def averaged_weights_not_restored(model: TinyFlowModel) -> None:
    """Averaged weights are copied in for sampling, and training goes on from them."""

    def copy_in() -> None:
        with torch.no_grad():
            for weight in model.fm_transformers.parameters():
                weight.mul_(0.999)

    act_before(model, copy_in)


@mutant("FM709")
def left_in_train_mode(model: TinyFlowModel) -> None:
    """After sampling the model is put into train mode, whatever it was before."""
    change_result(model, lambda images: (model.train(), images)[1])


@mutant("FM709")
def gradients_switched_off(model: TinyFlowModel) -> None:
    """`generate` freezes the parameters and leaves them so."""
    act_before(model, lambda: model.requires_grad_(False))


@mutant("FM709")
def hook_left_behind(model: TinyFlowModel) -> None:
    """Every call leaves one more forward hook on the network."""
    act_before(model, lambda: model.fm_transformers.out.register_forward_hook(lambda *_: None))


# FM710 inputs-changed


@mutant("FM710")
def tokens_overwritten(model: TinyFlowModel) -> None:
    """The guidance half of the caller's tokens is overwritten in place."""

    def overwrite(given: dict[str, Any]) -> dict[str, Any]:
        ids = given["input_ids"]
        ids[len(ids) // 2 :] = model.tokenizer.bos_id
        return {}

    change_arguments(model, overwrite)


@mutant("FM710")
def state_changed_inside_the_network(model: TinyFlowModel) -> None:
    """The network centres the state that it is given in place."""
    wrap(
        model.fm_transformers,
        "forward",
        lambda forward, x, times, null: forward(x.sub_(x.mean((1, 2, 3), keepdim=True)), times, null),
    )


@mutant("FM710")
def times_scaled_in_place(model: TinyFlowModel) -> None:
    """The network scales its time argument in place."""
    wrap(model.fm_transformers, "forward", lambda forward, x, times, null: forward(x, times.mul_(0.5), null))


# FM711 not-repeatable


@mutant("FM711")
def noise_source_of_the_first_call_kept(model: TinyFlowModel) -> None:
    """The noise source is made in the first call and goes on from there in the next ones."""
    kept: dict[str, torch.Generator] = {}

    def first(given: dict[str, Any]) -> dict[str, Any]:
        source = kept.setdefault("source", torch.Generator().set_state(given["generator"].get_state()))
        return {"generator": source}

    change_arguments(model, first)


@mutant("FM711")
def last_result_leaks_into_the_next(model: TinyFlowModel) -> None:
    """The initial state is mixed with the last result of the same shape."""
    kept: dict[Any, Tensor] = {}

    def remember(run: Any, x: Tensor, *given: Any) -> Tensor:
        start = 0.9 * x + 0.1 * kept.get(x.shape, x)
        kept[x.shape] = run(start, *given)
        return kept[x.shape]

    wrap(model, "integrate", remember)


@mutant("FM711")
def every_call_is_counted(model: TinyFlowModel) -> None:
    """The number of earlier calls shifts the initial state."""
    calls = {"made": 0}

    def counted(x: Tensor) -> Tensor:
        calls["made"] += 1
        return x + 0.01 * calls["made"]

    Loop(start=counted).install(model)


# FM712 impossible-size-accepted


@mutant("FM712")
def sizes_rounded_down(model: TinyFlowModel) -> None:
    """Sizes that are not multiples of 32 are silently rounded down."""
    change_arguments(model, lambda given: {name: given[name] // 32 * 32 for name in ("height", "width")})


@mutant("FM712")
def sizes_stretched(model: TinyFlowModel) -> None:
    """Sizes that are not multiples of 32 are rounded, and the picture is stretched to what was asked for."""

    def stretched(generate: Any, **given: Any) -> Tensor:
        size = given["height"], given["width"]
        rounded = {name: max(32, given[name] // 32 * 32) for name in ("height", "width")}
        images = generate(**{**given, **rounded})
        return images if images.shape[-2:] == size else F.interpolate(images, size)  # type: ignore[no-any-return]

    wrap(model, "generate", stretched)


# FM713 process-changed


@mutant("FM713")
def gradients_left_off(model: TinyFlowModel) -> None:
    """Gradients are switched off for the whole process and not on again."""
    act_before(model, lambda: torch.set_grad_enabled(False))


@mutant("FM713")
def environment_changed(model: TinyFlowModel) -> None:
    """`generate` sets an environment variable."""
    act_before(model, lambda: os.environ.update(TOKENIZERS_PARALLELISM="fmcheck"))


@mutant("FM713")
def default_dtype_changed(model: TinyFlowModel) -> None:
    """`generate` makes float64 the default dtype of the process."""
    act_before(model, lambda: torch.set_default_dtype(torch.float64))


# FM714 train-mode-sampling


def _never_eval(model: TinyFlowModel) -> None:
    model.train()
    bind(model, "eval", lambda found: found)


@mutant("FM714")
def dropout_active(model: TinyFlowModel) -> None:
    """The network has dropout, and sampling leaves it in train mode."""
    network = model.fm_transformers
    dropout = network.dropout = nn.Dropout(0.1)
    wrap(network, "forward", lambda forward, *given: dropout(forward(*given)))
    _never_eval(model)


@mutant("FM714")
def batch_norm_in_train_mode(model: TinyFlowModel) -> None:
    """The network has batch normalisation, and sampling leaves it in train mode."""
    network = model.fm_transformers
    norm = network.norm = nn.BatchNorm2d(network.channels).to(network.dtype)
    wrap(network, "forward", lambda forward, *given: norm(forward(*given)))
    _never_eval(model)


# FM715 grad-recording


@mutant("FM715")
def graph_recorded_and_thrown_away(model: TinyFlowModel) -> None:
    """`generate` records gradients through the whole loop and detaches the picture at the end."""
    wrap(model, "generate", lambda generate, **given: generate.__func__.__wrapped__(model, **given).detach())


# FM716 loop-randomness


@mutant("FM716")
def noise_added_between_steps(model: TinyFlowModel) -> None:
    """Fresh noise from the caller's generator is added after every step of a deterministic solver."""
    given: dict[str, torch.Generator] = {}
    wrap(model.text_encoder, "forward", lambda forward, *args: (given.update(generator=args[2]), forward(*args))[1])

    def noisy(x: Tensor, dt: Tensor, v: Tensor) -> Tensor:
        return x + dt * v + 0.01 * torch.randn(x.shape, generator=given["generator"]).to(x.device)

    Loop(update=noisy).install(model)


@mutant("FM716")
def noise_drawn_and_not_used(model: TinyFlowModel) -> None:
    """Every step draws noise from the global generator, even though its weight is 0."""
    Loop(update=lambda x, dt, v: x + dt * v + 0.0 * torch.randn_like(x)).install(model)
