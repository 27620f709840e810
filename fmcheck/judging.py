"""What a subject's judge says of pictures, without a trace in the process that asked it."""

from collections.abc import Sequence

from torch import Tensor

from fmcheck.judge import Judge
from fmcheck.record.watch import global_random_state

__all__ = ["scores_of"]


def scores_of(
    judge: Judge, prompts: Sequence[str], images: Tensor, image_range: tuple[float, float]
) -> dict[str, Tensor]:
    """Scores by name, each float64 `[N]`, of images `[N, channels, H, W]` as a viewer sees them: within the range.

    The global generators are seeded for it and put back: a judge that draws says the same of the same pictures.

    Raises:
        DeclarationError: the judge raised, or its scores are none.
    """
    with global_random_state("cpu", disturb=0):
        return judge(prompts, images.clamp(*image_range))
