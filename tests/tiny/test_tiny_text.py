"""Text branch: masked tokens do not exist, noise is the caller's, the latent is a reparametrised normal."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcheck.tiny import TinyFlowModel, WordTokenizer, build

MODEL: TinyFlowModel = build()
TOKENIZER = WordTokenizer(16)


def encode(ids, mask, seed=None):
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    with torch.no_grad():
        return MODEL.text_encoder(ids, mask, generator)


def test_shapes_and_dtypes(tokens):
    latent = encode(*tokens, seed=0)
    for part in latent:
        assert part.shape == (4, 2048)
        assert part.dtype == torch.float32


def test_sample_is_mean_plus_deviation_times_the_callers_noise(tokens, seeded):
    latent = encode(*tokens, seed=3)
    eps = torch.randn(4, 2048, generator=seeded(3)).numpy().astype(np.float64)
    mu, log_var = latent.mu.numpy().astype(np.float64), latent.log_var.numpy().astype(np.float64)
    expected = mu + np.sqrt(np.exp(log_var)) * eps
    # Four float32 roundings on numbers below 8.
    np.testing.assert_allclose(latent.z.numpy(), expected, rtol=0, atol=4 * 8 * np.finfo(np.float32).eps)


def test_without_generator_there_is_no_noise(tokens):
    latent = encode(*tokens)
    assert torch.equal(latent.z, latent.mu)


def test_training_starts_near_to_where_it_arrives(tokens):
    latent = TinyFlowModel().text_encoder(*tokens)
    assert 0.6 < latent.mu.std().item() < 1.1
    assert 0.25 < (latent.log_var / 2).exp().mean().item() < 0.45


@settings(max_examples=25, deadline=None)
@given(length=st.integers(6, 16), filler=st.integers(0, 29))
def test_padding_and_masked_tokens_have_no_influence(length, filler):
    short_ids, short_mask = TOKENIZER(["a red circle, top"])
    ids, mask = TOKENIZER(["a red circle, top"], max_length=length)
    ids = torch.where(mask, ids, filler)
    expected, found = encode(short_ids, short_mask), encode(ids, mask)
    assert torch.equal(found.mu, expected.mu)
    assert torch.equal(found.log_var, expected.log_var)


def test_a_masked_token_may_hold_any_number():
    ids, mask = TOKENIZER(["red circle"], max_length=8)
    wild = torch.where(mask, ids, -(10**9))
    assert torch.equal(encode(wild, mask).mu, encode(ids, mask).mu)


def test_a_hole_in_the_mask_hides_the_word():
    ids, mask = TOKENIZER(["red circle", "blue circle"])
    hidden = mask.clone()
    hidden[:, 1] = False
    mu = encode(ids, hidden).mu
    assert torch.equal(mu[0], mu[1])
    assert not torch.equal(mu[0], encode(ids, mask).mu[0])


def test_bool_and_int_masks_mean_the_same(tokens):
    ids, mask = tokens
    assert torch.equal(encode(ids, mask.long()).mu, encode(ids, mask).mu)


@pytest.mark.parametrize("other", ["a blue circle", "a red square", "circle red a", ""])
def test_every_word_and_their_order_matter(other):
    mu = encode(*TOKENIZER(["a red circle", other])).mu
    assert ((mu[0] - mu[1]).norm() / mu[0].norm()).item() > 0.1


def test_row_does_not_see_other_prompts(tokens):
    ids, mask = tokens
    expected = encode(ids, mask).mu
    others = ids.flip(1).remainder(7)
    for row in range(ids.shape[0]):
        changed = others.clone()
        changed[row] = ids[row]
        assert torch.equal(encode(changed, mask).mu[row], expected[row])


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        (torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.bool), r"input_ids: expected int64\[B, L\], found float32"),
        (torch.ones(3, dtype=torch.int64), torch.ones(3, dtype=torch.bool), r"found int64\[3\]"),
        (torch.ones(0, 3, dtype=torch.int64), torch.ones(0, 3, dtype=torch.bool), "at least one row"),
        (torch.ones(1, 3, dtype=torch.int64), torch.ones(1, 3), "attention_mask: expected bool or int64"),
        (torch.ones(1, 3, dtype=torch.int64), torch.ones(3, 1, dtype=torch.bool), r"expected the shape of input_ids"),
        (torch.ones(1, 3, dtype=torch.int64), torch.zeros(1, 3, dtype=torch.bool), "at least one valid token"),
        (torch.full((1, 3), 30), torch.ones(1, 3, dtype=torch.bool), r"expected ids in \[0, 30\)"),
        (torch.full((1, 3), -1), torch.ones(1, 3, dtype=torch.bool), r"expected ids in \[0, 30\)"),
        (torch.ones(1, 17, dtype=torch.int64), torch.ones(1, 17, dtype=torch.bool), "at most 16 tokens, found 17"),
    ],
)
def test_refusals_name_the_argument(ids, mask, message):
    with pytest.raises(ValueError, match=message):
        encode(ids, mask)
