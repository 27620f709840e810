"""Tiny builds of pipelines whose network works on latents as pictures."""

from typing import Any

from fmcheck.subjects.diffusers.builds.common import clip_text, decoder_text, image_vae, seeded, t5_text, tokenizer

__all__ = ["aura_flow", "cogview4", "lumina2", "sana", "stable_diffusion_3"]


@seeded
def sana() -> Any:
    """`SanaPipeline` with a deep-compression autoencoder of factor 8."""
    from diffusers import AutoencoderDC, FlowMatchEulerDiscreteScheduler, SanaPipeline, SanaTransformer2DModel
    from transformers import Gemma2Config, Gemma2Model

    vae = AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock",) * 4,
        decoder_block_types=("ResBlock",) * 4,
        encoder_block_out_channels=(4, 4, 8, 8),
        decoder_block_out_channels=(4, 4, 8, 8),
        encoder_layers_per_block=(1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1),
        encoder_qkv_multiscales=((), (), (), ()),
        decoder_qkv_multiscales=((), (), (), ()),
        scaling_factor=0.41407,
    )
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_attention_heads=2,
        attention_head_dim=8,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=16,
        sample_size=32,
    )
    return SanaPipeline(
        tokenizer=tokenizer(),
        text_encoder=Gemma2Model(Gemma2Config(**decoder_text())),
        vae=vae,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


@seeded
def stable_diffusion_3() -> Any:
    """`StableDiffusion3Pipeline`."""
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    transformer = SD3Transformer2DModel(
        sample_size=32,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        pos_embed_max_size=64,
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=image_vae(),
        text_encoder=clip_text(projection=True),
        tokenizer=tokenizer(),
        text_encoder_2=clip_text(projection=True),
        tokenizer_2=tokenizer(),
        text_encoder_3=t5_text(32),
        tokenizer_3=tokenizer(),
    )


@seeded
def lumina2() -> Any:
    """`Lumina2Pipeline`."""
    from diffusers import FlowMatchEulerDiscreteScheduler, Lumina2Pipeline, Lumina2Transformer2DModel
    from transformers import Gemma2Config, Gemma2Model

    transformer = Lumina2Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        hidden_size=24,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=2,
        num_kv_heads=2,
        multiple_of=8,
        axes_dim_rope=(4, 4, 4),
        axes_lens=(128, 64, 64),
        cap_feat_dim=16,
    )
    pipe = Lumina2Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=image_vae(scaling_factor=0.3611, shift_factor=0.1159),
        text_encoder=Gemma2Model(Gemma2Config(**decoder_text())),
        tokenizer=tokenizer(64),
    )
    pipe.system_prompt = "draw"  # the real one is longer than all the text that this build reads
    return pipe


@seeded
def aura_flow() -> Any:
    """`AuraFlowPipeline`."""
    from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler
    from transformers import UMT5Config, UMT5EncoderModel

    transformer = AuraFlowTransformer2DModel(
        sample_size=32,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=16,
        pos_embed_max_size=256,
    )
    config = UMT5Config(vocab_size=512, d_model=16, d_ff=32, d_kv=8, num_layers=1, num_heads=2, dropout_rate=0.0)
    return AuraFlowPipeline(
        tokenizer=tokenizer(),
        text_encoder=UMT5EncoderModel(config),
        vae=image_vae(scaling_factor=0.13025, shift_factor=None),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
    )


@seeded
def cogview4() -> Any:
    """`CogView4Pipeline`, whose shift follows the square root of the number of tokens."""
    from diffusers import CogView4Pipeline, CogView4Transformer2DModel, FlowMatchEulerDiscreteScheduler
    from transformers import GlmConfig, GlmModel

    transformer = CogView4Transformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        text_embed_dim=16,
        time_embed_dim=8,
        condition_dim=4,
        pos_embed_max_size=32,
        sample_size=8,
        rope_axes_dim=(32, 32),
    )
    scheduler = FlowMatchEulerDiscreteScheduler(
        base_shift=0.25, max_shift=0.75, use_dynamic_shifting=True, time_shift_type="linear"
    )
    return CogView4Pipeline(
        tokenizer=tokenizer(side="left"),
        text_encoder=GlmModel(GlmConfig(**decoder_text())),
        vae=image_vae(scaling_factor=1.0, shift_factor=0.0),
        transformer=transformer,
        scheduler=scheduler,
    )
