"""Odd training batches: losses on pictures or numbers of rows that the standard plan does not train on."""

from typing import Any

import torch
from torch import Tensor

from fmcheck.mutants.registry import mutant
from fmcheck.mutants.surgery import wrap
from fmcheck.tiny import TinyFlowModel


@mutant("FM701", odd=True)
def training_start_for_width_by_height(model: TinyFlowModel) -> None:
    """Training asks for an initial state of `width x height`, which pictures with two equal sides do not mind."""

    def exchanged(initial: Any, z: Tensor, height: int, width: int) -> Any:
        return initial(z, width, height) if torch.is_grad_enabled() else initial(z, height, width)

    wrap(model, "initial_state", exchanged)


@mutant("FM109", odd=True)
def loss_divided_by_the_spread_of_the_batch(model: TinyFlowModel) -> None:
    """The loss is divided by the standard deviation over the batch, which a batch of one does not have."""

    def divided(training_loss: Any, images: Tensor, *given: Any, **named: Any) -> Any:
        terms = training_loss(images, *given, **named)
        return terms._replace(loss=terms.loss / images.std(dim=0).mean())

    wrap(model, "training_loss", divided)
