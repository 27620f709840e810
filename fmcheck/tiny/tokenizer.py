"""Word-level tokenizer for a small grammar of pictures.

The grammar is one sentence, ``a large red circle on a blue background, top left``; every part may be missing.
"""

import re
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fmcheck.tiny.checks import describe, positive_int

SIZES = ("large", "small")
COLOURS = ("red", "green", "blue", "yellow", "orange", "purple", "cyan", "white", "black", "gray")
SHAPES = ("circle", "square", "triangle", "cross")
POSITIONS = ("top", "bottom", "left", "right", "center")
GLUE = ("a", "an", "the", "on", "background", ",")
SPECIAL = ("<pad>", "<bos>", "<unk>")

# The order fixes the ids and with them the meaning of trained embeddings: append, never insert.
VOCABULARY = SPECIAL + GLUE + SIZES + COLOURS + SHAPES + POSITIONS

# Anything outside the grammar still becomes one token a piece, so that it is seen as <unk> and not dropped.
_PIECE = re.compile(r"[a-z]+|,|[^\sa-z,]+")


class WordTokenizer:
    """Turn prompts into ids and a mask, ``<bos>`` first, padded on the right.

    Attributes: ``pad_id``, ``bos_id``, ``unk_id``, ``vocab_size`` and ``max_length`` (``<bos>`` included).
    """

    pad_id = VOCABULARY.index("<pad>")
    bos_id = VOCABULARY.index("<bos>")
    unk_id = VOCABULARY.index("<unk>")

    def __init__(self, max_length: int = 16) -> None:
        self.max_length = positive_int("max_length", max_length)
        self._ids = {word: index for index, word in enumerate(VOCABULARY)}

    @property
    def vocab_size(self) -> int:
        """Number of ids, the special ones included."""
        return len(VOCABULARY)

    def __call__(
        self, prompts: Sequence[str], max_length: int | None = None
    ) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
        """Tokenize ``prompts``.

        Without ``max_length`` the rows are padded to the longest, with it to exactly that many tokens.
        An empty prompt is ``<bos>`` alone.

        Returns ``input_ids`` int64 and ``attention_mask`` bool, True on real tokens, both on the CPU.
        Raises ``ValueError`` for a bare string, no prompts, an entry that is no string, or a prompt that is too
        long (a cut prompt would ask for another picture, so nothing is truncated).
        """
        rows = [self._encode(prompt) for prompt in self._checked(prompts)]
        limit = self.max_length if max_length is None else self._checked_limit(max_length)
        for row, prompt in zip(rows, prompts, strict=True):
            if len(row) > limit:
                raise ValueError(f"prompts: expected at most {limit} tokens, found {len(row)} in {prompt!r}")
        length = max(map(len, rows)) if max_length is None else limit
        input_ids = torch.full((len(rows), length), self.pad_id, dtype=torch.int64, device="cpu")
        for index, row in enumerate(rows):
            input_ids[index, : len(row)] = torch.tensor(row, dtype=torch.int64, device="cpu")
        # <pad> cannot be written in a prompt, hence the mask follows from the ids.
        return input_ids, input_ids != self.pad_id

    def decode(self, input_ids: Int[Tensor, "B L"]) -> list[str]:
        """Words of every row without ``<pad>`` and ``<bos>``; for logs and captions."""
        skipped = (self.pad_id, self.bos_id)
        return [" ".join(VOCABULARY[i] for i in row if i not in skipped) for row in input_ids.tolist()]

    def _encode(self, prompt: str) -> list[int]:
        pieces = _PIECE.findall(prompt.lower())
        return [self.bos_id, *(self._ids.get(piece, self.unk_id) for piece in pieces)]

    def _checked(self, prompts: Sequence[str]) -> Sequence[str]:
        # A string is a sequence of strings: one prompt would become one row a letter.
        if isinstance(prompts, str) or not isinstance(prompts, list | tuple):
            raise ValueError(f"prompts: expected a list of strings, found {describe(prompts)}")
        if not prompts:
            raise ValueError("prompts: expected at least one prompt, found an empty list")
        for index, prompt in enumerate(prompts):
            if not isinstance(prompt, str):
                raise ValueError(f"prompts[{index}]: expected a string, found {describe(prompt)}")
        return prompts

    def _checked_limit(self, max_length: int) -> int:
        if positive_int("max_length", max_length) > self.max_length:
            raise ValueError(f"max_length: expected at most {self.max_length}, found {max_length}")
        return max_length
