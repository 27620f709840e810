"""Judge: what a subject knows about its own pictures, beyond numbers: whether they show what their prompts ask for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fmcheck.errors import DeclarationError
from fmcheck.golden import Golden

__all__ = ["Judge"]

# A mean of float32 scores may come out this much beyond [0, 1].
_ROUNDING = 1e-6


@dataclass(frozen=True, kw_only=True)
class Judge:
    """A score of pictures under their prompts.

    Attributes:
        score: `score(prompts, images)` with images `[N, channels, H, W]`, float32 on the CPU, in the spec's image
            range, and N prompts. Returns scores in [0, 1], each `[N]`, by the name of what they measure.
        headline: the name of the score by which settings are ranked.
        prompts: prompts that the judge understands and that the model was not trained on, in a fixed order.
        golden: scores of the first of these prompts, made when the pictures were known to be right: rule FM609 compares
            new ones with them.

    Raises:
        DeclarationError: no function, no headline, prompts that are no texts, or golden scores of other prompts.
    """

    score: Callable[[Sequence[str], Tensor], Mapping[str, Tensor]]
    headline: str
    prompts: tuple[str, ...]
    golden: Golden | None = None

    def __post_init__(self) -> None:
        if not callable(self.score):
            raise DeclarationError(f"Judge: score: expected a function; found {type(self.score).__name__}")
        if not isinstance(self.headline, str) or not self.headline:
            raise DeclarationError(f"Judge: headline: expected the name of a score; found {self.headline!r}")
        if not isinstance(self.prompts, tuple) or not self.prompts:
            raise DeclarationError(f"Judge: prompts: expected a tuple of texts; found {self.prompts!r}")
        if not all(isinstance(prompt, str) for prompt in self.prompts):
            raise DeclarationError("Judge: prompts: expected texts only")
        self._check_golden()

    def _check_golden(self) -> None:
        golden = self.golden
        if golden is None:
            return
        if not isinstance(golden, Golden):
            raise DeclarationError(f"Judge: golden: expected a Golden; found {type(golden).__name__}")
        if self.headline not in golden.scores:
            raise DeclarationError(f"Judge: golden: no score {self.headline!r}; make the golden scores again")
        if golden.prompts != self.prompts[: len(golden.prompts)]:
            raise DeclarationError(
                f"Judge: golden: its {len(golden.prompts)} prompts are not the first of the judge's; make the golden "
                "scores again"
            )

    def __call__(self, prompts: Sequence[str], images: Tensor) -> dict[str, Tensor]:
        """Scores by name, each float64 `[N]`, the headline among them.

        Raises:
            DeclarationError: the function raised, has no headline, or returned anything but numbers in [0, 1].
        """
        try:
            scores = self.score(list(prompts), images.detach().to("cpu", torch.float32))
            found = {name: torch.as_tensor(values).double() for name, values in scores.items()}
        except Exception as error:
            raise DeclarationError(
                f"Judge: score raised {type(error).__name__}: {error}; it is given {len(prompts)} prompts and images "
                f"{list(images.shape)} and returns a mapping of scores"
            ) from error
        if self.headline not in found:
            raise DeclarationError(f"Judge: no score {self.headline!r} among {', '.join(found) or 'none'}")
        for name, values in found.items():
            inside = bool(((values >= -_ROUNDING) & (values <= 1 + _ROUNDING)).all())
            if list(values.shape) != [len(prompts)] or not inside:
                raise DeclarationError(
                    f"Judge: score {name!r}: expected {len(prompts)} numbers in [0, 1]; found {list(values.shape)}"
                    f"{'' if inside else ' with others'}"
                )
        return {name: values.clamp(0, 1) for name, values in found.items()}
