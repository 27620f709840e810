"""Defects planted into copies of two released pipelines, as a developer would make them in that code.

The released package stays as it is: its module is executed once more from patched source.
"""

import copy
import inspect
import sys
import types
from dataclasses import dataclass
from typing import Any

from fmcheck.case import Case
from fmcheck.subject import Subject
from fmcheck.subjects.diffusers import subject
from fmcheck.subjects.diffusers.builds import BUILDS

SD3, FLUX = "StableDiffusion3Pipeline", "FluxPipeline"


@dataclass(frozen=True)
class Patch:
    """`old` stands exactly once in the module of the pipeline, and becomes `new`."""

    pipeline: str
    defect: str
    old: str
    new: str


def _sd3(defect: str, old: str, new: str) -> Patch:
    return Patch(SD3, defect, old, new)


def _flux(defect: str, old: str, new: str) -> Patch:
    return Patch(FLUX, defect, old, new)


_COMBINED = "noise_pred = noise_pred_uncond + self.guidance_scale * (noise_pred_text - noise_pred_uncond)"
_UNSCALED = "latents = (latents / self.vae.config.scaling_factor) + self.vae.config.shift_factor\n\n            image"
_FLUX_UNSCALED = (
    "latents = (latents / self.vae.config.scaling_factor) + self.vae.config.shift_factor\n            latents ="
)
_STEP = "latents = self.scheduler.step(noise_pred, t, latents, return_dict=False)[0]"
_POSTPROCESS = "image = self.image_processor.postprocess(image, output_type=output_type)"
_TOKENS = "latents = latents.permute(0, 3, 1, 4, 2, 5)"

PATCHES = (
    _sd3(
        "halves swapped",
        "noise_pred_uncond, noise_pred_text = noise_pred",
        "noise_pred_text, noise_pred_uncond = noise_pred",
    ),
    _sd3(
        "scale of the other formula", _COMBINED, _COMBINED.replace("noise_pred_uncond + self", "noise_pred_text + self")
    ),
    _sd3("guidance dropped", _COMBINED, "noise_pred = noise_pred_text"),
    _sd3("guidance of a fixed scale", _COMBINED, _COMBINED.replace("self.guidance_scale", "7.0")),
    _sd3(
        "difference reversed",
        _COMBINED,
        _COMBINED.replace("(noise_pred_text - noise_pred_uncond)", "(noise_pred_uncond - noise_pred_text)"),
    ),
    _sd3("velocity negated", _STEP, _STEP.replace("noise_pred,", "-noise_pred,")),
    _sd3("velocity a hundredth too long", _STEP, _STEP.replace("noise_pred,", "1.01 * noise_pred,")),
    _sd3(
        "one step dropped",
        "for i, t in enumerate(timesteps):\n                if self.interrupt",
        "for i, t in enumerate(timesteps[:-1]):\n                if self.interrupt",
    ),
    _sd3(
        "time of the next step",
        "timestep = t.expand(latent_model_input",
        "after = timesteps[min(i + 1, len(timesteps) - 1)]\n                timestep = after.expand(latent_model_input",
    ),
    _sd3(
        "time as a fraction",
        "timestep = t.expand(latent_model_input.shape[0])\n                # on",
        "timestep = t.expand(latent_model_input.shape[0]) / 1000\n                # on",
    ),
    _sd3("shift forgotten", _UNSCALED, _UNSCALED.replace(" + self.vae.config.shift_factor", "")),
    _sd3("scale multiplied", _UNSCALED, _UNSCALED.replace("/ self", "* self")),
    _sd3("velocity decoded", _UNSCALED, _UNSCALED.replace("(latents /", "(noise_pred[: len(latents)] /")),
    _sd3("picture mapped twice", _POSTPROCESS, f"{_POSTPROCESS}\n            image = image / 2 + 0.5"),
    _sd3(
        "rows rotated",
        _UNSCALED,
        _UNSCALED.replace("\n\n            image", "\n            latents = latents.roll(1, 0)\n            image"),
    ),
    _sd3("state in bfloat16", _STEP, f"{_STEP.removesuffix('[0]')}[0].bfloat16().float()"),
    _sd3("noise of the global generator", _STEP, f"{_STEP} + 0 * torch.randn_like(latents)"),
    _flux("tokens folded with rows and columns exchanged", _TOKENS, "latents = latents.permute(0, 3, 1, 5, 2, 4)"),
    _flux("velocity negated", _STEP, _STEP.replace("noise_pred,", "-noise_pred,")),
    _flux(
        "one step dropped",
        "for i, t in enumerate(timesteps):\n                if self.interrupt",
        "for i, t in enumerate(timesteps[:-1]):\n                if self.interrupt",
    ),
    _flux(
        "time not divided",
        "timestep=timestep / 1000,\n"
        "                        guidance=guidance,\n                        pooled_projections=pooled",
        "timestep=timestep,\n"
        "                        guidance=guidance,\n                        pooled_projections=pooled",
    ),
    _flux("scale not passed on", "guidance = torch.full([1], guidance_scale", "guidance = torch.full([1], 3.5"),
    _flux("shift of the native size", "image_seq_len = latents.shape[1]", "image_seq_len = 4096"),
    _flux(
        "uniform levels to a thousandth",
        "sigmas = np.linspace(1.0, 1 / num_inference_steps, num_inference_steps) if sigmas is None",
        "sigmas = np.linspace(1.0, 0.001, num_inference_steps) if sigmas is None",
    ),
    _flux("shift forgotten", _FLUX_UNSCALED, _FLUX_UNSCALED.replace(" + self.vae.config.shift_factor", "")),
    _flux(
        "scale applied twice",
        _FLUX_UNSCALED,
        _FLUX_UNSCALED.replace("scaling_factor)", "scaling_factor / self.vae.config.scaling_factor)"),
    ),
    _flux(
        "rows averaged a little",
        _STEP,
        f"{_STEP}\n                latents = 0.99 * latents + 0.01 * latents.roll(1, 0)",
    ),
    _flux("picture not clamped", _POSTPROCESS, "image = image / 2 + 0.6"),
)


def patched_class(patch: Patch) -> type:
    """The pipeline's class from patched source, in a module of its own.

    Raises:
        ValueError: the text to be patched does not stand in the released module exactly once.
    """
    original = type(BUILDS[patch.pipeline]())
    module = sys.modules[original.__module__]
    source = inspect.getsource(module)
    if source.count(patch.old) != 1:
        raise ValueError(f"{patch.pipeline}, {patch.defect}: found {source.count(patch.old)} times: {patch.old!r}")
    made = types.ModuleType(original.__module__)
    made.__dict__.update({"__package__": module.__package__, "__file__": module.__file__})
    exec(compile(source.replace(patch.old, patch.new), f"<{patch.defect}>", "exec"), made.__dict__)
    found: type = getattr(made, patch.pipeline)
    return found


def patched(patch: Patch) -> Subject:
    """The subject of the patched pipeline, with the conventions of the released one."""
    kind, clean = patched_class(patch), subject(BUILDS[patch.pipeline]())

    def build(case: Case) -> Any:
        pipe = copy.copy(clean.build(case))
        pipe.__class__ = kind
        return pipe

    return clean.but(name=f"{patch.pipeline}, {patch.defect}", build=build)
