"""What the tiny builds share: a tokenizer made in place, weights from a seed, a small autoencoder and text encoders."""

import zlib
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

__all__ = ["clip_text", "decoder_text", "image_vae", "seeded", "t5_text", "tokenizer", "wake"]

_WORDS = (
    "a an and at on the with top bottom left right large small tiny big red green blue yellow purple white black "
    "circle square triangle cross background user assistant describe no"
)


def tokenizer(length: int = 32, side: str = "right", **special: Any) -> Any:
    """A byte-level tokenizer whose commonest words are one token each: no text is unknown, nothing is downloaded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        min_frequency=1,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([_WORDS], trainer)
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        model_max_length=length,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        padding_side=side,
        **special,
    )


def seeded(build: Callable[[], Any]) -> Callable[[], Any]:
    """The same weights at every call, and the caller's generators as they were."""

    @wraps(build)
    def wrapped() -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(zlib.crc32(build.__name__.encode()))
            pipe = build()
            wake(pipe.transformer)
        pipe.set_progress_bar_config(disable=True)
        for component in pipe.components.values():
            if isinstance(component, torch.nn.Module):
                component.eval().requires_grad_(False)
        return pipe

    return wrapped


def wake(network: torch.nn.Module) -> None:
    """Draws weights anew so that text, time and state all show in the output.

    Gates that start at zero hide them, and so does attention that starts near the mean of all tokens.
    """
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    for module in network.modules():
        if isinstance(module, torch.nn.Linear):
            torch.nn.init.normal_(module.weight, std=module.in_features**-0.5)


def image_vae(**changes: Any) -> Any:
    """An `AutoencoderKL` with 4 channels and a downsampling factor of 8."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        **{
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "block_out_channels": (4, 4, 8, 8),
            "layers_per_block": 1,
            "norm_num_groups": 2,
            "latent_channels": 4,
            "mid_block_add_attention": False,
            "use_quant_conv": False,
            "use_post_quant_conv": False,
            "scaling_factor": 1.5305,
            "shift_factor": 0.0609,
            **changes,
        }
    )


def clip_text(width: int = 16, projection: bool = False) -> Any:
    """A CLIP text encoder of two layers."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=512,
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=32,
        hidden_act="gelu",
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config)


def t5_text(width: int = 16) -> Any:
    """A T5 encoder of one layer."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(vocab_size=512, d_model=width, d_ff=2 * width, d_kv=8, num_layers=1, num_heads=2, dropout_rate=0.0)
    )


def decoder_text(width: int = 16, **changes: Any) -> dict[str, Any]:
    """Settings of a small decoder-only language model, for its configuration class."""
    return {
        "vocab_size": 512,
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **changes,
    }
