"""Tiny, offline, randomly initialised builds of diffusers' flow-matching pipelines, equal at every build."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from fmcheck.subjects.diffusers.builds import images, packed, videos

__all__ = ["BUILDS"]

BUILDS: Mapping[str, Callable[[], Any]] = MappingProxyType(
    {
        "SanaPipeline": images.sana,
        "StableDiffusion3Pipeline": images.stable_diffusion_3,
        "FluxPipeline": packed.flux,
        "Lumina2Pipeline": images.lumina2,
        "AuraFlowPipeline": images.aura_flow,
        "CogView4Pipeline": images.cogview4,
        "QwenImagePipeline": packed.qwen_image,
        "ZImagePipeline": packed.z_image,
        "LTXPipeline": videos.ltx,
        "WanPipeline": videos.wan,
        "ChromaPipeline": packed.chroma,
    }
)
