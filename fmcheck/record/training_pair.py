"""Two losses with the same draws and other data ends: how the states answer shows times and pairs without the source.

With `x_t = (1 - (1 - s_min) t) x0 + t x1` and the same `x0` and `t` in both, `x_t' - x_t = t (x1' - x1)`.
"""

from functools import cached_property

import torch
from torch import Tensor

from fmcheck.errors import NotInformative
from fmcheck.record.disturb import Disturbance, change_output
from fmcheck.record.training import TrainingReading

__all__ = ["TrainingPair", "other_data_ends"]


def other_data_ends() -> Disturbance:
    """Every encoded image becomes another one, by itself: its numbers move on by one place."""
    return change_output(
        "other encoded images", "encode", lambda _, z: z.flatten(1).roll(1, dims=1).reshape_as(z) if z.dim() > 1 else z
    )


class TrainingPair:
    """A loss, and the same one with :func:`other_data_ends`.

    Raises:
        NotInformative: on access, when the two losses do not have the same draws, or nothing answers.
    """

    def __init__(self, plain: TrainingReading, moved: TrainingReading) -> None:
        self.plain, self.moved = plain, moved

    @cached_property
    def answer(self) -> Tensor:
        """`x_t' - x_t`, `[B, D]`."""
        if not torch.equal(self.plain.told, self.moved.told):
            raise NotInformative("two losses with the same seed have different times (see FM907)")
        answer = self.moved.state - self.plain.state
        if not bool(answer.any()):
            raise NotInformative("the training states do not depend on what the encode point returns (see FM906)")
        return answer

    @cached_property
    def questions(self) -> list[Tensor]:
        """`x1' - x1` for every candidate of the data end, `[B, D]`."""
        return [b.rows - a.rows for a, b in zip(self.plain.ends, self.moved.ends, strict=True)]

    @cached_property
    def partners(self) -> Tensor:
        """The row whose data end each row's state follows, `[B]`: the one whose change it answers in direction."""
        asked = torch.nn.functional.normalize(self.questions[0], dim=1)
        return (torch.nn.functional.normalize(self.answer, dim=1) @ asked.T).argmax(dim=1)

    @cached_property
    def unit(self) -> int:
        """Number of the candidate that the loss used; its units scale the times, so the told ones decide."""
        rows = self.plain.conditional
        errors = [(self._time(question) - self.plain.told)[rows].abs().nanmedian() for question in self.questions]
        return int(torch.stack(errors).argmin())

    @cached_property
    def time(self) -> Tensor:
        """Flow time of every row's state, `[B]`; NaN where the data end did not change."""
        return self._time(self.questions[self.unit])

    @cached_property
    def residual(self) -> Tensor:
        """What the change of a row's own data end leaves unexplained of its answer, Euclidean, `[B]`."""
        unexplained: Tensor = self.answer - self.time.unsqueeze(1) * self.questions[self.unit]
        return unexplained.square().sum(1).sqrt()

    def _time(self, question: Tensor) -> Tensor:
        return (self.answer * question).sum(1) / question.square().sum(1)
