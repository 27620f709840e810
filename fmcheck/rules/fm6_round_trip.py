"""FM6, continued: a known picture that goes through the encoder and the end of the sampler comes back."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fmcheck.errors import NotInformative
from fmcheck.flow import to_decoder
from fmcheck.plan import Plan, Run, Wish
from fmcheck.record.disturb import Disturbance, change_input
from fmcheck.record.training import TrainingReading
from fmcheck.record.training_pair import TrainingPair
from fmcheck.rules.evidence import given, measured, require, require_finite, within
from fmcheck.rules.pictures import altered_pictures
from fmcheck.rules.registry import Check, rule
from fmcheck.spec import FlowSpec
from fmcheck.tensors import describe
from fmcheck.tolerance import reconstructs, round_trip_bound


class _Repair(NamedTuple):
    """`factor * x1 + offset`: what would have to be decoded, were `text` the mistake."""

    factor: float
    offset: float
    text: str


def _repairs(spec: FlowSpec) -> list[_Repair]:
    """Nothing to repair, and one repair a known mistake; mistakes of one and the same repair are named once."""
    scale, shift = spec.latent_scale, spec.latent_shift
    if isinstance(scale, tuple) or isinstance(shift, tuple):
        raise NotInformative("scale and shift differ from channel to channel, for which no repairs are known")
    candidates = (
        _Repair(1.0, 0.0, ""),
        _Repair(scale, -shift * scale, "training leaves out scale and shift (or they are undone twice after the loop)"),
        _Repair(1 / scale, shift, "training applies scale and shift twice (or they are never undone after the loop)"),
        _Repair(scale**2, 0.0, "training divides by the scale, expected multiplies"),
        _Repair(scale**-2, 0.0, "the state is multiplied by the scale after the loop, expected divided"),
        _Repair(scale, 0.0, "training leaves out the scale (or it is undone twice after the loop)"),
        _Repair(1 / scale, 0.0, "training applies the scale twice (or it is never undone after the loop)"),
        _Repair(1.0, -shift * scale, "training forgets the shift"),
        _Repair(1.0, shift * scale, "the shift is forgotten after the loop"),
        _Repair(1.0, -2 * shift * scale, "training adds the shift, expected subtracts"),
        _Repair(1.0, 2 * shift * scale, "the shift is subtracted after the loop, expected added"),
        _Repair(1.0, shift - shift * scale, "training subtracts the shift after it multiplies"),
        _Repair(1.0, shift * scale - shift, "the shift is added before the division after the loop"),
    )
    known: dict[tuple[float, float], _Repair] = {}
    for repair in candidates:
        known.setdefault((round(repair.factor, 12), round(repair.offset, 12)), repair)
    return list(known.values())


def _back_again(plan: Plan, runs: Mapping[str, Run]) -> dict[str, Wish]:
    """One sampling run whose final states are the encoded image of the loss under every repair, a row each."""
    if any(run.failure for run in runs.values()):
        return {}
    latent = _data_end(runs)[0]
    rows = torch.stack([repair.factor * latent + repair.offset for repair in _repairs(plan.subject.spec)])
    case = plan.loss.case.with_batch(len(rows)).but(num_steps=1, guidance_scale=plan.subject.spec.neutral_scale)
    return {"back": Wish("round-trip", case, disturbances=(_decoded_instead(plan, rows),))}


def _data_end(runs: Mapping[str, Run]) -> Tensor:
    """The latents that training's paths end at, `[B, D]`, in the units that the loss uses."""
    plain, moved = (TrainingReading(runs[name].trace, runs[name].subject.spec) for name in ("loss", "moved"))
    return plain.ends[TrainingPair(plain, moved).unit].rows


def _decoded_instead(plan: Plan, rows: Tensor) -> Disturbance:
    """The rows in the place of the states that leave the loop, whatever parts of the batch they are decoded in."""
    spec, points, done = plan.subject.spec, plan.subject.points, [0]
    role = "sample" if "sample" in points else "decode"
    if role == "decode" and spec.unscale_before_decode:
        # What undoes the scale inline stands before the only place where a latent can be put in.
        rows = to_decoder(rows, spec)

    def feed(inputs: dict[str, Any]) -> dict[str, Any]:
        x = inputs.get("x")
        if not isinstance(x, Tensor) or not x.dim() or x[0].numel() != rows.shape[1]:
            raise NotInformative(f"{role} takes {describe(x)}, and the encoded image has {rows.shape[1]} numbers")
        which = (torch.arange(len(x)) + done[0]) % len(rows)
        done[0] += len(x)
        return {"x": rows[which].reshape(x.shape).to(x)}

    return change_input("encoded image under every repair", role, feed)


@rule(
    "FM607",
    "broken-round-trip",
    needs=("velocity", "loss", "encode", "decode"),
    wishes=lambda plan: {"loss": plan.loss, "moved": plan.moved_loss},
    follow_up=_back_again,
)
def broken_round_trip(runs: Mapping[str, Run]) -> Iterator[Check]:
    """What training's paths end at decodes to the picture it was made of: `generate`'s end undoes training's beginning.

    How it goes wrong: training uses the encoder's output as it is, while sampling divides by the latent scale; it
    scales twice, forgets the shift, or takes scale and shift in another order; `decode` undoes the scale itself and
    `sample` does too; `decode` returns BGR, a mirrored picture or another range. Each half looks right by itself.

    Checked: the encoded image of a training loss, in the units that the loss uses, takes the place of the state that
    leaves the user's own loop, and the picture that comes out of `generate` is compared with the one that went in. The
    same under every known mistake repaired: where a repair brings back what the declared chain loses (half of its
    error or less is left), that is the mistake. Not informative where no chain brings the picture back, as with
    an autoencoder that nobody trained, and where every repair changes less than the codec loses anyway. Without a
    `sample` point a scale that is undone inline is FM601's.

    Fix: one function that scales after encoding, its inverse before decoding, declared as `latent_scale` and
    `latent_shift`. Source: latent diffusion's scale factor, arXiv 2112.10752, section G; development log, defect 2.
    """
    pictures = given(runs["loss"].trace.images, "the loss was handed no pictures")
    back, spec = runs["back"].result, runs["back"].subject.spec
    require(back.is_floating_point(), "the result is no floating tensor (see FM704)")
    found = list(_chains(spec, pictures, back))
    declared, *others = found
    told = [chain for chain in others if chain.told_from(declared)]
    least = min([declared, *told], key=lambda chain: chain.lost)
    decibels = _decibels(declared.error, spec)
    yield measured(f"an encoded and decoded picture has a PSNR of {decibels:.1f} dB")
    require(
        reconstructs(least.lost),
        f"no chain brings a picture back: the declared one loses {declared.lost:.2g} of its squared contrast "
        f"({decibels:.1f} dB), the best of {len(found)} {min(chain.lost for chain in found):.2g}; is the autoencoder "
        "trained?",
    )
    require(
        bool(told),
        f"no known mistake changes a picture by more than the codec itself, which loses {declared.lost:.2g} of its "
        "squared contrast",
    )
    best = min(told, key=lambda chain: chain.lost)
    yield within(
        declared.lost,
        round_trip_bound(best.lost),
        f"a picture that is encoded as in training and decoded as in sampling loses {declared.lost:.3g} of its squared "
        f"contrast (PSNR {decibels:.1f} dB), and {best.lost:.3g} once a known mistake is repaired",
        where=f"runs {runs['loss'].name} and {runs['back'].name}",
        diagnosis=best.text,
    )


@dataclass(frozen=True)
class _Chain:
    """A way from a picture to its latent and back: its squared error, that relative to the picture, its mistake."""

    error: float
    lost: float
    text: str

    def told_from(self, declared: "_Chain") -> bool:
        """Whether one of the two loses so much less than the other that it is known which is right."""
        less, more = sorted((self.lost, declared.lost))
        return more >= round_trip_bound(less)


def _chains(spec: FlowSpec, pictures: Tensor, back: Tensor) -> Iterator[_Chain]:
    """The declared chain, and the others: the latent under every repair, then the picture under every known change."""
    repairs = _repairs(spec)
    expected = (len(repairs), *pictures.shape[1:])
    require(back.shape == expected, f"generate returned {describe(back)}, expected {list(expected)} (see FM702)")
    picture, made = pictures[0].cpu().double(), back.cpu().double()
    require_finite(picture, made)
    for repair, image in zip(repairs, made, strict=True):
        yield _chain(image, picture, repair.text)
    for altered, text in altered_pictures(picture.unsqueeze(0)):
        yield _chain(made[0], altered[0], text)


def _chain(image: Tensor, picture: Tensor, text: str) -> _Chain:
    """How much of a picture `[ch, H, W]` an image loses, in squared contrast: 1 for the best constant picture."""
    contrast = (picture - picture.mean((1, 2), keepdim=True)).square().mean()
    error = (image - picture).square().mean()
    return _Chain(float(error), float(error / contrast), text)


def _decibels(error: float, spec: FlowSpec) -> float:
    low, high = spec.image_range
    return 10 * math.log10((high - low) ** 2 / error) if error else math.inf
