"""Defects of the tiny model that no number contradicts: only the pictures are wrong, and only once it is trained."""

from typing import Any

import torch
from torch import Tensor

from fmcheck.mutants.registry import mutant
from fmcheck.mutants.surgery import wrap
from fmcheck.tiny import TinyConfig, TinyFlowModel
from fmcheck.tiny.tokenizer import VOCABULARY


@mutant("FM609")
def colour_words_exchanged(model: TinyFlowModel) -> None:
    """Two rows of the word embedding are exchanged, as after words were sorted anew: red is blue and blue is red."""
    rows = model.text_encoder.encoder.words.weight
    red, blue = VOCABULARY.index("red"), VOCABULARY.index("blue")
    with torch.no_grad():
        rows[[red, blue]] = rows[[blue, red]]


@mutant("FM609")
def left_read_as_right(model: TinyFlowModel) -> None:
    """The tokenizer gives `left` the id of `right`."""
    model.tokenizer._ids["left"] = model.tokenizer._ids["right"]


@mutant("FM609")
def last_block_skipped(model: TinyFlowModel) -> None:
    """The velocity network leaves out its last block, in training and in sampling."""
    model.fm_transformers.blocks = model.fm_transformers.blocks[:-1]


@mutant("FM609")
def block_not_in_the_checkpoint(model: TinyFlowModel) -> None:
    """A block of the velocity network keeps its random start, since the checkpoint was loaded with `strict=False`."""
    started = TinyFlowModel(TinyConfig(seed=1)).fm_transformers.blocks[1]
    model.fm_transformers.blocks[1].load_state_dict(started.state_dict())


@mutant("FM609")
def log_var_used_as_deviation_everywhere(model: TinyFlowModel) -> None:
    """The text latent is `mu + log_var * eps`, in training and in sampling."""

    def drawn(draw: Any, mu: Tensor, log_var: Tensor, generator: torch.Generator | None) -> Any:
        return draw(mu, 2 * log_var.abs().log(), generator)

    wrap(model.text_encoder, "reparametrise", drawn)


@mutant("FM609")
def words_without_places(model: TinyFlowModel) -> None:
    """The text encoder sees a bag of words: which of two colours is the background's stands in their order alone."""
    with torch.no_grad():
        model.text_encoder.encoder.places.zero_()
