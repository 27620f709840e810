"""Text branch: meta-queries read the prompt and become the mean and variance of a latent."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fmcheck.tiny.checks import token_tensors
from fmcheck.tiny.config import TinyConfig
from fmcheck.tiny.layers import Attention, Mlp, linear, normalise
from fmcheck.tiny.tokenizer import WordTokenizer

# Where training is meant to arrive: much wider a posterior loses the words, much narrower tears the latent space.
START_MU_STD = 0.85
START_SIGMA = 0.35


class TextLatent(NamedTuple):
    """A sample and the diagonal normal it was drawn from, each ``[B, D]`` float32."""

    z: Float[Tensor, "B D"]
    mu: Float[Tensor, "B D"]
    log_var: Float[Tensor, "B D"]


class QueryBlock(nn.Module):
    """Pre-norm block: queries look at the tokens, then at each other, then pass through an MLP."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.cross = Attention(width, heads)
        self.mutual = Attention(width, heads)
        self.mlp = Mlp(width, mlp_ratio)

    def forward(
        self, queries: Float[Tensor, "B Q width"], tokens: Float[Tensor, "B L width"], valid: Bool[Tensor, "B L"]
    ) -> Float[Tensor, "B Q width"]:
        """Update the queries; tokens where ``valid`` is False are not seen."""
        queries = queries + self.cross(normalise(queries), tokens, valid)
        inner = normalise(queries)
        queries = queries + self.mutual(inner, inner)
        return queries + self.mlp(normalise(queries))  # type: ignore[no-any-return]


class TextEncoder(nn.Module):
    """Prompt ``[B, L]`` to ``meta_queries`` summaries ``[B, Q, width]``, float32.

    Tokens outside the mask have exactly no influence, however many there are and whatever they hold.
    """

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.max_length = config.max_length
        self.vocab_size = config.vocab_size
        self.words = nn.Embedding(config.vocab_size, config.text_width)
        self.places = nn.Parameter(0.5 * torch.randn(config.max_length, config.text_width))
        # Small beside the words, or every prompt would be summarised as the queries themselves.
        self.queries = nn.Parameter(0.5 * torch.randn(config.meta_queries, config.text_width))
        self.blocks = nn.ModuleList(
            QueryBlock(config.text_width, config.text_heads, config.mlp_ratio) for _ in range(config.text_layers)
        )

    def forward(
        self, input_ids: Int[Tensor, "B L"], attention_mask: Bool[Tensor, "B L"] | Int[Tensor, "B L"]
    ) -> Float[Tensor, "B Q width"]:
        """Summarise the prompts.

        Raises ``ValueError`` for wrong shapes or dtypes, unknown ids, too many tokens or a row without any.
        """
        ids, valid = self._canonical(input_ids, attention_mask)
        tokens = normalise(self.words(ids) + self.places)
        queries = self.queries.expand(ids.shape[0], -1, -1)
        for block in self.blocks:
            queries = block(queries, tokens, valid)
        return normalise(queries)

    def _canonical(
        self, input_ids: Int[Tensor, "B L"], attention_mask: Bool[Tensor, "B L"] | Int[Tensor, "B L"]
    ) -> tuple[Int[Tensor, "B max_length"], Bool[Tensor, "B max_length"]]:
        """Pad to the full length and blank what is masked.

        A mask alone makes hidden tokens weightless, yet another padded length still means another kernel and
        other roundings; with one shape for every call the same prompt gives the same bits.
        """
        token_tensors(input_ids, attention_mask)
        missing = self.max_length - input_ids.shape[1]
        if missing < 0:
            raise ValueError(f"input_ids: expected at most {self.max_length} tokens, found {input_ids.shape[1]}")
        valid = attention_mask.to(torch.bool)
        ids = torch.where(valid, input_ids, WordTokenizer.pad_id)
        if not bool(valid.any(dim=1).all()):
            raise ValueError("attention_mask: expected at least one valid token in every row, found a row without")
        if not bool(((ids >= 0) & (ids < self.vocab_size)).all()):
            raise ValueError(f"input_ids: expected ids in [0, {self.vocab_size}), found others")
        return F.pad(ids, (0, missing), value=WordTokenizer.pad_id), F.pad(valid, (0, missing), value=False)


class TextVariationalEncoder(nn.Module):
    """Prompt to a latent of the image latent's size: ``z = mu + exp(log_var / 2) * eps``.

    Source: CrossFlow (arXiv 2412.15213), section 4.1: the text latent is the starting point of the flow.
    """

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        per_query = config.text_latent // config.meta_queries
        self.encoder = TextEncoder(config)
        self.to_mu = linear(config.text_width, per_query, gain=START_MU_STD)
        self.to_log_var = linear(config.text_width, per_query, gain=0.1)
        nn.init.constant_(self.to_log_var.bias, 2 * math.log(START_SIGMA))

    def forward(
        self,
        input_ids: Int[Tensor, "B L"],
        attention_mask: Bool[Tensor, "B L"] | Int[Tensor, "B L"],
        generator: torch.Generator | None = None,
    ) -> TextLatent:
        """Encode and sample.

        ``eps`` comes from ``generator``, on the generator's own device; without one there is no noise and
        ``z`` is ``mu`` (the process-wide generator is nobody's to consume).
        Raises ``ValueError`` as :class:`TextEncoder` does.
        """
        summary = self.encoder(input_ids, attention_mask)
        mu = self.to_mu(summary).flatten(1)
        log_var = self.to_log_var(summary).flatten(1)
        return TextLatent(self.reparametrise(mu, log_var, generator), mu, log_var)

    def reparametrise(
        self, mu: Float[Tensor, "B D"], log_var: Float[Tensor, "B D"], generator: torch.Generator | None
    ) -> Float[Tensor, "B D"]:
        """Sample of the normal, differentiable in ``mu`` and ``log_var`` (Kingma and Welling 2013, section 2.4)."""
        if generator is None:
            return mu
        eps = torch.randn(mu.shape, generator=generator, device=generator.device, dtype=torch.float32)
        return mu + torch.exp(log_var / 2) * eps.to(mu.device)
