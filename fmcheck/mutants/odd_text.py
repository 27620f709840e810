"""Odd texts: empty prompts, prompts longer than the native ones, and words under the mask."""

from typing import Any

import torch
from torch import Tensor

from fmcheck.mutants.calls import change_arguments
from fmcheck.mutants.loop import Halves
from fmcheck.mutants.registry import mutant
from fmcheck.mutants.surgery import wrap
from fmcheck.tiny import TinyFlowModel


def _empty(mask: Tensor) -> Tensor:
    """Rows of a mask `[B, L]` that hold the token of the beginning and no word, `[B]`."""
    return mask.sum(dim=1) == 1


@mutant("FM701", odd=True)
def special_tokens_masked(model: TinyFlowModel) -> None:
    """The token of the beginning is masked as a special one, which leaves an empty prompt without any token."""
    start = model.tokenizer.bos_id
    wrap(
        model.text_encoder,
        "forward",
        lambda forward, ids, mask, *rest: forward(ids, mask.bool() & (ids != start), *rest),
    )


@mutant("FM201", odd=True)
def empty_prompts_marked_unconditional(model: TinyFlowModel) -> None:
    """Rows with an empty prompt are marked unconditional in the conditional half too."""
    seen: dict[str, Tensor] = {}

    def remember(forward: Any, ids: Tensor, mask: Tensor, *rest: Any) -> Any:
        seen["empty"] = _empty(mask)
        return forward(ids, mask, *rest)

    def marked(null: Tensor, batch: int) -> Tensor:
        return torch.cat([null[:batch] | seen["empty"], null[batch:]])

    wrap(model.text_encoder, "forward", remember)
    Halves(null=marked).install(model)


@mutant("FM707", odd=True)
def empty_prompts_start_at_noise(model: TinyFlowModel) -> None:
    """An empty prompt starts at pure noise, which comes from the global generator."""

    def started(forward: Any, ids: Tensor, mask: Tensor, *rest: Any) -> Any:
        latent, empty = forward(ids, mask, *rest), _empty(mask)
        if torch.is_grad_enabled() or not empty.any():
            return latent
        return latent._replace(z=torch.where(empty[:, None], torch.randn_like(latent.z), latent.z))

    wrap(model.text_encoder, "forward", started)


@mutant("FM710", odd=True)
def word_written_into_empty_prompts(model: TinyFlowModel) -> None:
    """An empty prompt is given an unknown word, which is written into the caller's tokens."""
    unknown = model.tokenizer.unk_id

    def filled(given: dict[str, Any]) -> dict[str, Any]:
        ids, mask = given["input_ids"], given["attention_mask"]
        rows = _empty(mask)[: len(mask) // 2].nonzero().flatten()
        if mask.shape[1] > 1:
            ids[rows, 1], mask[rows, 1] = unknown, 1
        return {}

    change_arguments(model, filled)


def _stacked(tokens: Tensor, length: int, words: int) -> Tensor:
    """`[chunks * B, 1 + words]`: every chunk begins with the first token, and the last one is padded with zeros."""
    chunks = [torch.cat([tokens[:, :1], part], dim=1) for part in torch.split(tokens[:, 1:length], words, dim=1)]
    return torch.cat([torch.nn.functional.pad(chunk, (0, 1 + words - chunk.shape[1])) for chunk in chunks])


@mutant("FM702", odd=True)
def long_prompts_become_rows(model: TinyFlowModel) -> None:
    """Prompts longer than twelve tokens are cut in chunks, which are stacked along the batch axis."""
    words = 11

    def chunked(forward: Any, ids: Tensor, mask: Tensor, *rest: Any) -> Any:
        longest = int(mask.sum(dim=1).max())
        if longest <= 1 + words:
            return forward(ids, mask, *rest)
        return forward(_stacked(ids, longest, words), _stacked(mask, longest, words), *rest)

    wrap(model.text_encoder, "forward", chunked)


@mutant("FM710", odd=True)
def masked_tokens_blanked_in_place(model: TinyFlowModel) -> None:
    """Tokens under the mask are replaced by padding in the caller's own tensor."""
    padding = model.tokenizer.pad_id

    def blanked(given: dict[str, Any]) -> dict[str, Any]:
        given["input_ids"].masked_fill_(~given["attention_mask"].bool(), padding)
        return {}

    change_arguments(model, blanked)
