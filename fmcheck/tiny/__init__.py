"""A tiny, real text-to-image flow-matching model.

>>> import torch
>>> from fmcheck.tiny import build
>>> model = build()
>>> ids, mask = model.tokenizer(["a large red circle on a blue background, top left", ""])
>>> image = model.generate(ids, mask, 3.0, 2, torch.Generator().manual_seed(0), 256, 256)
>>> list(image.shape)
[1, 3, 256, 256]
"""

import torch

from fmcheck.tiny.config import TinyConfig
from fmcheck.tiny.model import TinyFlowModel
from fmcheck.tiny.tokenizer import WordTokenizer
from fmcheck.tiny.trained import load_trained
from fmcheck.tiny.weights import load_weights, save_weights

__all__ = ["TinyConfig", "TinyFlowModel", "WordTokenizer", "build", "load_weights", "save_weights"]


def build(
    device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, config: TinyConfig | None = None
) -> TinyFlowModel:
    """Build the model in eval mode on ``device``: the trained one, or with a ``config`` an untrained one.

    ``dtype`` is that of the velocity network: float32, or bfloat16 or float16, which leave the state, the text
    branch and the autoencoder in float32.  Raises ``ValueError`` for any other.
    """
    if dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(f"dtype: expected torch.float32, torch.bfloat16 or torch.float16, found {dtype}")
    model = TinyFlowModel(config)
    if config is None:
        load_trained(model)
    model.to(device)
    model.fm_transformers.to(dtype)
    return model.eval()
