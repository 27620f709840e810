"""Correct variations of how the same numbers are computed: modes, precisions, layouts, kernels, parts and tables."""

from typing import Any

import torch
from torch import Tensor

from fmcheck.mutants.loop import Loop
from fmcheck.mutants.registry import variation
from fmcheck.mutants.remodel import remodel
from fmcheck.mutants.surgery import bind, wrap
from fmcheck.subject import Subject
from fmcheck.tiny import TinyFlowModel


@variation()
def inference_mode_inside(subject: Subject) -> Subject:
    """`generate` runs under inference mode whoever calls it."""

    def change(model: TinyFlowModel) -> None:
        def inferring(generate: Any, **given: Any) -> Any:
            with torch.inference_mode():
                made = generate(**given)
            return made.clone()

        wrap(model, "generate", inferring)

    return remodel(subject, "inference_mode_inside", change)


@variation()
def noise_in_another_order(subject: Subject) -> Subject:
    """The text latent takes the caller's random numbers from the last to the first: another draw of the same law."""

    def change(model: TinyFlowModel) -> None:
        def drawn(draw: Any, mu: Tensor, log_var: Tensor, generator: Any) -> Any:
            return draw(mu.flip(1), log_var.flip(1), generator).flip(1)

        wrap(model.text_encoder, "reparametrise", drawn)

    return remodel(subject, "noise_in_another_order", change)


@variation()
def update_by_a_product_without_autocast(subject: Subject) -> Subject:
    """The update is a matrix product, for which autocast is switched off."""

    def update(x: Tensor, dt: Tensor, v: Tensor) -> Tensor:
        step = dt * torch.eye(x.shape[-1], device=x.device).expand(x.shape[0], -1, -1)
        with torch.autocast(x.device.type, enabled=False):
            return torch.baddbmm(x.flatten(1, 2), v.flatten(1, 2), step).reshape(x.shape)

    change = Loop(update=update).install
    return remodel(subject, "update_by_a_product_without_autocast", change)


@variation()
def attention_by_hand(subject: Subject) -> Subject:
    """The network's attention is written out as two matrix products and a softmax in float32."""

    def change(model: TinyFlowModel) -> None:
        for block in model.fm_transformers.blocks:

            def attend(attention: Any, queries: Tensor, context: Tensor) -> Any:
                q, k, v = (
                    attention._split(layer(x))
                    for layer, x in ((attention.query, queries), (attention.key, context), (attention.value, context))
                )
                logits = (q @ k.transpose(-1, -2)).float() / q.shape[-1] ** 0.5
                attended = logits.softmax(-1).to(v.dtype) @ v
                return attention.out(attended.transpose(1, 2).flatten(2))

            bind(block.attention, "forward", attend)

    return remodel(subject, "attention_by_hand", change)


@variation()
def channels_last_inside(subject: Subject) -> Subject:
    """Network and decoder work on channels-last tensors and return such."""

    def change(model: TinyFlowModel) -> None:
        def laid_out(clean: Any, x: Tensor, *rest: Any) -> Any:
            return clean(x.contiguous(memory_format=torch.channels_last), *rest).contiguous(
                memory_format=torch.channels_last
            )

        wrap(model.fm_transformers, "forward", laid_out)
        wrap(model.autoencoder, "decode", laid_out)

    return remodel(subject, "channels_last_inside", change)


@variation()
def positions_kept_by_size(subject: Subject) -> Subject:
    """What the network knows of a size is computed once and kept, by everything that it depends on."""

    def change(model: TinyFlowModel) -> None:
        kept: dict[Any, Tensor] = {}

        def forward(clean: Any, x: Tensor, times: Tensor, null: Tensor) -> Any:
            key = x.shape[2:], x.device, torch.is_autocast_enabled(x.device.type)
            if key not in kept:
                kept[key] = torch.ones(x.shape[2:], device=x.device) @ torch.eye(x.shape[3], device=x.device)
            return clean(x * kept[key].to(x.dtype), times, null)

        wrap(model.fm_transformers, "forward", forward)

    return remodel(subject, "positions_kept_by_size", change)


@variation()
def network_cuts_its_own_batch(subject: Subject) -> Subject:
    """The network answers four rows at a time, whatever it is given."""

    def change(model: TinyFlowModel) -> None:
        def forward(clean: Any, x: Tensor, times: Tensor, null: Tensor) -> Tensor:
            parts = zip(*(torch.split(rows, 4) for rows in (x, times, null)), strict=True)
            return torch.cat([clean(*part) for part in parts])

        wrap(model.fm_transformers, "forward", forward)

    return remodel(subject, "network_cuts_its_own_batch", change)
