"""Golden: the scores that a subject's pictures had when they were known to be right, kept in a file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fmcheck.errors import DeclarationError, only_keys
from fmcheck.values import is_count, is_finite_number, is_seed

__all__ = ["Golden", "read_golden"]


@dataclass(frozen=True, kw_only=True)
class Golden:
    """Scores of pictures by a judge, and what they belong to.

    Attributes:
        prompts: the N prompts, the first ones of the judge's own.
        scores: every score that the judge gives, by name, each `[S][N]` in [0, 1]: a row for each of the seeds `seed`,
            `seed + 1`, …
        guidance_scale, num_steps, height, width, seed: of the pictures, as in a Case. They are made in one batch, in
            the first of the subject's dtypes.

    Raises:
        DeclarationError: no prompts, scores of another shape or outside [0, 1], or settings that no case can have.
    """

    prompts: tuple[str, ...]
    scores: Mapping[str, tuple[tuple[float, ...], ...]]
    guidance_scale: float
    num_steps: int
    height: int
    width: int
    seed: int

    def __post_init__(self) -> None:
        texts = isinstance(self.prompts, tuple) and all(isinstance(prompt, str) for prompt in self.prompts)
        self._need("prompts", texts and len(self.prompts) > 0, "a tuple of texts")
        named = isinstance(self.scores, Mapping) and len(self.scores) > 0
        self._need("scores", named, "scores by name")
        for rows in self.scores.values():
            shaped = isinstance(rows, tuple) and len(rows) > 0
            shaped = shaped and all(isinstance(row, tuple) and len(row) == len(self.prompts) for row in rows)
            self._need("scores", shaped, f"rows of {len(self.prompts)} numbers, one row a seed")
            inside = all(is_finite_number(value) and 0 <= value <= 1 for row in rows for value in row)
            self._need("scores", inside, "numbers in [0, 1]")
        self._need("scores", len(set(map(len, self.scores.values()))) == 1, "as many rows of every score")
        for name in ("num_steps", "height", "width"):
            self._need(name, is_count(getattr(self, name)), "a positive integer")
        self._need("seed", is_seed(self.seed, 63), "an integer in [0, 2**63)")
        self._need("guidance_scale", is_finite_number(self.guidance_scale), "a finite number")

    def _need(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            found = repr(getattr(self, name))
            raise DeclarationError(f"Golden.{name}: expected {expected}; found {found[:80]}")

    @property
    def seeds(self) -> int:
        """S, the rows of every score."""
        return len(next(iter(self.scores.values())))

    def mean(self, name: str) -> float:
        """The mean of one score."""
        return sum(map(sum, self.scores[name])) / self.seeds / len(self.prompts)

    def as_text(self) -> str:
        """JSON, a line a prompt and a line a seed; :func:`read_golden` reads it."""
        table = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "scores"}
        scores = {name: [[_short(value) for value in row] for row in rows] for name, rows in self.scores.items()}
        lines = [f'  "{name}": {_spelled(value, 2)}' for name, value in table.items()]
        named = ",\n".join(f'    "{name}": {_spelled(rows, 4)}' for name, rows in scores.items())
        return "{\n" + ",\n".join([*lines, '  "scores": {\n' + named + "\n  }"]) + "\n}\n"


def _short(value: float) -> float | int:
    # All digits of the others: a test that counts ties must not see rounding as a fall.
    return int(value) if value in (0, 1) else value


def _spelled(value: Any, indent: int) -> str:
    if not isinstance(value, list | tuple):
        return json.dumps(value, ensure_ascii=False)
    blanks = " " * indent
    rows = f",\n{blanks}  ".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in value)
    return f"[\n{blanks}  {rows}\n{blanks}]"


def read_golden(path: Path) -> Golden | None:
    """The golden scores in a file; None where there is no such file.

    Raises:
        DeclarationError: the file is damaged, or its scores are none.
    """
    if not path.is_file():
        return None
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        only_keys(table, "golden", (field.name for field in fields(Golden)))
        scores = {name: tuple(map(tuple, rows)) for name, rows in table["scores"].items()}
        return Golden(**{**table, "prompts": tuple(table["prompts"]), "scores": scores})
    except (OSError, ValueError, TypeError, KeyError, AttributeError, DeclarationError) as error:
        raise DeclarationError(
            f"{path}: expected golden scores, found something else ({type(error).__name__}: {error}); remove the "
            "file, and make them again"
        ) from error
