"""Known mistakes of layout: what a tensor of the wrong shape really is."""

from torch import Tensor

from fmcheck.plan import Run
from fmcheck.record.trace import Call

__all__ = ["latent_cause", "picture_cause"]


def picture_cause(run: Run, _: Call | None, found: object) -> str | None:
    """The known mistake that makes a picture of this shape, judged by the case of the run."""
    if not isinstance(found, Tensor) or found.dim() != 4:
        return None
    case, channels = run.case, run.subject.spec.image_channels
    rows, *rest = found.shape
    if rest == [channels, case.height, case.width]:
        return "both guidance halves are returned" if rows == 2 * case.batch else None
    known: dict[tuple[int, ...], str] = {
        (channels, case.width, case.height): "height and width are exchanged",
        (case.height, case.width, channels): "channels last",
        run.subject.spec.latent_size(case.height, case.width): "a latent, never decoded",
    }
    return known.get(tuple(rest))


def latent_cause(run: Run, _: Call, found: object) -> str | None:
    """The known mistake that makes a latent of this shape, judged by the case of the run."""
    if not isinstance(found, Tensor):
        return None
    if not found.is_floating_point():
        return "integers where a floating tensor was declared"
    channels, h, w = run.subject.spec.latent_size(run.case.height, run.case.width)
    rest = tuple(found.shape[1:])
    known = {
        (channels, w, h): "height and width are exchanged",
        (h, w, channels): "channels last",
        (h * w, channels): "tokens instead of an image; packed latents are declared in Subject.annotations",
        (2 * channels, h, w): "mean and log-variance are still in one tensor",
        (run.subject.spec.image_channels, run.case.height, run.case.width): "a picture where a latent is expected",
    }
    if rest in known:
        return known[rest]
    other_size = len(rest) == 3 and rest[0] == channels
    return f"made for another picture size than {run.case.height}x{run.case.width}" if other_size else None
