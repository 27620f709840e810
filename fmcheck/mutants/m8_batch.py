"""FM8: rows that see their neighbours, their place in the batch, or words that are masked."""

from typing import Any

import torch
from torch import Tensor

from fmcheck.mutants.loop import Loop
from fmcheck.mutants.registry import mutant
from fmcheck.mutants.surgery import bind, wrap
from fmcheck.tiny import TinyFlowModel


def _flatten_batch(attention: Any) -> None:
    """One sequence of all rows' tokens instead of one sequence a row."""

    def flat(forward: Any, queries: Tensor, context: Tensor, valid: Tensor | None = None) -> Tensor:
        hidden = None if valid is None else valid.flatten()[None]
        out = forward(queries.flatten(0, 1)[None], context.flatten(0, 1)[None], hidden)
        return out.reshape(queries.shape)  # type: ignore[no-any-return]

    wrap(attention, "forward", flat)


# FM801 batch-leak


@mutant("FM801")
def attention_over_the_flattened_batch(model: TinyFlowModel) -> None:
    """The network's first attention sees the tokens of all rows as one sequence."""
    _flatten_batch(model.fm_transformers.blocks[0].attention)


@mutant("FM801")
def text_attention_over_the_flattened_batch(model: TinyFlowModel) -> None:
    """The meta-queries of all prompts attend to each other."""
    _flatten_batch(model.text_encoder.encoder.blocks[0].mutual)


@mutant("FM801")
def statistics_over_the_batch(model: TinyFlowModel) -> None:
    """The network centres its output with the mean over the batch."""
    wrap(model.fm_transformers, "forward", lambda forward, *given: (lambda v: v - v.mean(0))(forward(*given)))


@mutant("FM801")
def neighbour_leaks_one_percent(model: TinyFlowModel) -> None:
    """Every velocity holds one percent of its neighbour's."""
    wrap(
        model.fm_transformers,
        "forward",
        lambda forward, *given: (lambda v: 0.99 * v + 0.01 * v.roll(1, 0))(forward(*given)),
    )


@mutant("FM801")
def threshold_over_the_batch(model: TinyFlowModel) -> None:
    """The picture is divided by the largest value of the whole batch."""
    wrap(model.autoencoder, "decode", lambda decode, x: (lambda image: image / image.abs().max())(decode(x)))


# FM802 nan-leak


@mutant("FM802")
def zero_times_the_mean_row(model: TinyFlowModel) -> None:
    """A mean over the batch is added with weight 0: harmless until one row is not finite."""
    Loop(velocity=lambda v, _: v + 0 * v.mean(0, keepdim=True)).install(model)


@mutant("FM802")
def rows_selected_by_multiplication(model: TinyFlowModel) -> None:
    """Rows are picked by a product with a matrix of zeros and ones."""
    Loop(velocity=lambda v, _: torch.einsum("ij,jchw->ichw", torch.eye(len(v), device=v.device), v)).install(model)


# FM803 order-dependence


@mutant("FM803")
def row_number_embedded(model: TinyFlowModel) -> None:
    """The network adds something that depends on the place in the batch."""

    def numbered(forward: Any, x: Tensor, times: Tensor, null: Tensor) -> Any:
        rows = torch.arange(len(x), device=x.device)[:, None, None, None]
        return forward(x + 0.1 * rows, times, null)

    wrap(model.fm_transformers, "forward", numbered)


@mutant("FM803")
def sorted_and_not_restored(model: TinyFlowModel) -> None:
    """Rows are sorted by size for the decoder and never put back."""

    def ordered(x: Tensor, _: Any) -> Tensor:
        return x[x.flatten(1).norm(dim=1).argsort()]

    Loop(finish=ordered).install(model)


# FM804 padding-leak


def _canonical(model: TinyFlowModel, change: Any) -> None:
    """Change tokens and mask after the text encoder's own checks."""
    wrap(
        model.text_encoder.encoder,
        "_canonical",
        lambda canonical, ids, mask: change(ids, mask.bool(), *canonical(ids, mask)),
    )


@mutant("FM804")
def padding_attended(model: TinyFlowModel) -> None:
    """Padding takes part in the attention, so its amount counts."""

    def attended(ids: Tensor, mask: Tensor, clean: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        shown = torch.zeros_like(clean, dtype=torch.bool)
        shown[:, : ids.shape[1]] = True
        return clean, shown

    _canonical(model, attended)


@mutant("FM804")
def positions_counted_from_the_end(model: TinyFlowModel) -> None:
    """Positions are counted from the end of the padded row."""

    def shifted(ids: Tensor, mask: Tensor, clean: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        free = clean.shape[1] - ids.shape[1]
        return clean.roll(free, dims=1), valid.roll(free, dims=1)

    _canonical(model, shifted)


# FM805 masked-text-leak


def _uncovered(ids: Tensor, clean: Tensor) -> Tensor:
    """The tokens as given, also under the mask, padded to the full length."""
    return torch.cat([ids, clean[:, ids.shape[1] :]], dim=1)


@mutant("FM805")
def mask_ignored(model: TinyFlowModel) -> None:
    """The attention mask is not used: all tokens are seen, whatever they hold."""
    _canonical(model, lambda ids, mask, clean, valid: (_uncovered(ids, clean), torch.ones_like(valid)))


@mutant("FM805")
def mask_lost_in_the_second_block(model: TinyFlowModel) -> None:
    """The mask reaches the first block of the text encoder and not the second."""
    _canonical(model, lambda ids, mask, clean, valid: (_uncovered(ids, clean), valid))
    wrap(model.text_encoder.encoder.blocks[1].cross, "forward", lambda forward, q, context, *_: forward(q, context))


# FM806 rows-alike


@mutant("FM806")
def first_prompt_for_all(model: TinyFlowModel) -> None:
    """The text encoder is fed the first prompt in every row."""
    wrap(
        model.text_encoder.encoder,
        "forward",
        lambda forward, ids, mask: forward(ids[:1].expand_as(ids), mask[:1].expand_as(mask)),
    )


@mutant("FM806")
def guidance_prompts_for_the_conditional_ones(model: TinyFlowModel) -> None:
    """The empty prompts of the guidance half are encoded instead of the real ones."""

    def swapped(generate: Any, **given: Any) -> Any:
        halves = {name: torch.cat(given[name].chunk(2)[::-1]) for name in ("input_ids", "attention_mask")}
        return generate(**{**given, **halves})

    wrap(model, "generate", swapped)


@mutant("FM806")
def one_start_for_all_rows(model: TinyFlowModel) -> None:
    """The first row's latent is expanded to the whole batch."""
    wrap(model, "initial_state", lambda initial, z, h, w: initial(z[:1].expand_as(z), h, w))


@mutant("FM806")
def prompt_ignored(model: TinyFlowModel) -> None:
    """The text latent is noise alone, the words do not enter."""
    bind(
        model.text_encoder,
        "reparametrise",
        lambda _, mu, log_var, generator: torch.randn(mu.shape, generator=generator).to(mu.device),
    )


@mutant("FM801")
def large_batches_left_sorted(model: TinyFlowModel) -> None:
    """Batches above four are sorted by the length of their prompts and never put back."""

    def sorting(forward: Any, ids: Tensor, mask: Tensor, *rest: Any) -> Any:
        if len(ids) > 4:
            order = mask.sum(1).argsort(descending=True, stable=True)
            ids, mask = ids[order], mask[order]
        return forward(ids, mask, *rest)

    wrap(model.text_encoder, "forward", sorting)


@mutant("FM806")
def fallback_start_cached_by_size(model: TinyFlowModel) -> None:
    """Where the sizes do not fit, the mapped latent is cached by size and batch, whatever the prompts are."""
    kept: dict[Any, Tensor] = {}

    def cached(initial: Any, z: Tensor, height: int, width: int) -> Tensor:
        x = initial(z, height, width)
        if x.numel() == z.numel() or torch.is_grad_enabled():
            return x  # type: ignore[no-any-return]
        return kept.setdefault((height, width, len(z)), x)

    wrap(model, "initial_state", cached)


@mutant("FM806")
def prompts_cut_to_eight_tokens(model: TinyFlowModel) -> None:
    """The text encoder reads the first eight tokens and nothing after them."""

    def cut(forward: Any, ids: Tensor, mask: Tensor, *rest: Any) -> Any:
        return forward(ids, mask.bool() & (torch.arange(mask.shape[1], device=mask.device) < 8), *rest)

    wrap(model.text_encoder, "forward", cut)


# FM807 row-time-ignored


@mutant("FM807")
def first_rows_time_for_all(model: TinyFlowModel) -> None:
    """The network embeds the time of the first row and spreads it over the batch."""
    wrap(model.fm_transformers, "condition", lambda condition, t, null: condition(t[:1].expand_as(t), null))


@mutant("FM807")
def mean_time_of_the_batch(model: TinyFlowModel) -> None:
    """The network embeds the mean of all times."""
    wrap(model.fm_transformers, "condition", lambda condition, t, null: condition(t.mean().expand_as(t), null))


@mutant("FM807")
def time_of_the_first_half_twice(model: TinyFlowModel) -> None:
    """The network embeds the times of the first half of the rows and repeats them for the second."""

    def halved(condition: Any, t: Tensor, null: Tensor) -> Any:
        return condition(t[: len(t) // 2].repeat(2) if len(t) % 2 == 0 else t[:1].expand_as(t), null)

    wrap(model.fm_transformers, "condition", halved)
