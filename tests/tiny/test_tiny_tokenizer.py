"""Prompts to ids: one word, one id; one <bos> in front; nothing dropped, nothing cut."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fmcheck.tiny import TinyConfig, WordTokenizer
from fmcheck.tiny.tokenizer import COLOURS, POSITIONS, SHAPES, SIZES, SPECIAL, VOCABULARY

TOKENIZER = WordTokenizer(16)
WORDS = [word for word in VOCABULARY if word not in SPECIAL]


def test_vocabulary_has_no_doubles_and_the_size_the_config_says():
    assert len(set(VOCABULARY)) == len(VOCABULARY) == TOKENIZER.vocab_size == TinyConfig().vocab_size


def test_first_ids_are_fixed_because_trained_embeddings_depend_on_them():
    assert VOCABULARY[:9] == ("<pad>", "<bos>", "<unk>", "a", "an", "the", "on", "background", ",")
    assert (TOKENIZER.pad_id, TOKENIZER.bos_id, TOKENIZER.unk_id) == (0, 1, 2)


def test_a_sentence_by_hand():
    ids, mask = TOKENIZER(["a red cross, top"])
    words = ["<bos>", "a", "red", "cross", ",", "top"]
    assert ids.tolist() == [[VOCABULARY.index(word) for word in words]]
    assert mask.tolist() == [[True] * 6]


def test_longest_sentence_of_the_grammar_fits():
    prompts = [f"an {z} {c} {s} on the {c} background, {p} {p}" for z in SIZES for c in COLOURS for s in SHAPES
               for p in POSITIONS]  # fmt: skip
    ids, _ = TOKENIZER(prompts)
    assert not (ids == TOKENIZER.unk_id).any()


def test_dtypes_and_padding_on_the_right():
    ids, mask = TOKENIZER(["red circle", ""])
    assert ids.dtype == torch.int64
    assert mask.dtype == torch.bool
    assert ids[1].tolist() == [TOKENIZER.bos_id, TOKENIZER.pad_id, TOKENIZER.pad_id]
    assert mask.tolist() == [[True, True, True], [True, False, False]]


def test_empty_prompt_is_bos_alone():
    ids, mask = TOKENIZER(["", "   "])
    assert ids.tolist() == [[TOKENIZER.bos_id]] * 2
    assert mask.all()


@pytest.mark.parametrize("text", ["zebra", "圆", "7", "red-ish"])
def test_words_outside_the_grammar_are_unknown_and_not_dropped(text):
    assert TOKENIZER.unk_id in TOKENIZER([text])[0]


def test_case_and_spaces_do_not_matter():
    assert torch.equal(TOKENIZER(["Red  CIRCLE,top"])[0], TOKENIZER(["red circle , top"])[0])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=15), min_size=1, max_size=4))
def test_words_survive_the_round_trip(sentences):
    prompts = [" ".join(words) for words in sentences]
    ids, mask = TOKENIZER(prompts)
    assert TOKENIZER.decode(ids) == prompts
    assert mask.sum(dim=1).tolist() == [1 + len(words) for words in sentences]


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 16))
def test_max_length_is_the_exact_length(length):
    ids, mask = TOKENIZER(["a red circle", ""], max_length=length)
    assert ids.shape == mask.shape == (2, length)
    assert mask.sum(dim=1).tolist() == [4, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "prompts: expected at least one prompt"),
        (("a red circle",), "prompts: expected a list of strings, found 'a red circle'"),
        ((["red", 3],), r"prompts\[1\]: expected a string, found 3 \(int\)"),
        ((["red " * 16],), "prompts: expected at most 16 tokens, found 17"),
        ((["a red circle"], 3), "prompts: expected at most 3 tokens, found 4"),
        ((["red"], 17), "max_length: expected at most 16, found 17"),
        ((["red"], 0), "max_length: expected a positive int, found 0"),
    ],
)
def test_refusals_say_what_was_expected_and_found(arguments, message):
    with pytest.raises(ValueError, match=message):
        TOKENIZER(*arguments)
