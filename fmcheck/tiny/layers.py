"""Building blocks shared by the networks: layers with a declared starting variance, attention, embeddings."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


def linear(inputs: int, outputs: int, gain: float = 1.0) -> nn.Linear:
    """``nn.Linear`` whose weights are normal with standard deviation ``gain / sqrt(inputs)``, bias zero.

    The default of ``nn.Linear`` loses a factor of sqrt(3) a layer, after which an untrained network answers
    nearly the same to everything.
    """
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(inputs))
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer


def conv(inputs: int, outputs: int, gain: float = 1.0, size: int = 3) -> nn.Conv2d:
    """Convolution that keeps height and width (odd ``size``), weights as in :func:`linear` over the fan-in."""
    layer = nn.Conv2d(inputs, outputs, kernel_size=size, padding=size // 2)
    nn.init.normal_(layer.weight, std=gain / math.sqrt(size * size * inputs))
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer


def normalise(x: Float[Tensor, "... width"]) -> Float[Tensor, "... width"]:
    """Layer norm over the last axis of one token, without parameters: never over tokens or rows."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


class Attention(nn.Module):
    """Multi-head attention of ``queries`` ``[B, Q, width]`` over ``context`` ``[B, S, width]``.

    ``valid`` ``[B, S]`` is True where a context token may be seen; None shows all of them.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        # Sharper than unit logits, since nearly uniform attention would make all tokens alike before training.
        self.query = linear(width, width, gain=1.5)
        self.key = linear(width, width, gain=1.5)
        self.value = linear(width, width)
        self.out = linear(width, width)

    def forward(
        self,
        queries: Float[Tensor, "B Q width"],
        context: Float[Tensor, "B S width"],
        valid: Bool[Tensor, "B S"] | None = None,
    ) -> Float[Tensor, "B Q width"]:
        """Attend; a row of ``valid`` without any True gives NaN in that row."""
        q, k, v = self._split(self.query(queries)), self._split(self.key(context)), self._split(self.value(context))
        mask = None if valid is None else valid[:, None, None, :]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, x: Float[Tensor, "B S width"]) -> Float[Tensor, "B heads S d"]:
        return x.reshape(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Mlp(nn.Sequential):
    """Two linear layers with a GELU between them, ``[..., width]`` to ``[..., width]``."""

    def __init__(self, width: int, ratio: int) -> None:
        # GELU halves the power of a normal input and a little more; the gain gives it back.
        super().__init__(linear(width, ratio * width), nn.GELU(), linear(ratio * width, width, gain=1.5))


class MixMlp(nn.Module):
    """MLP over the tokens of a grid whose hidden units also see the eight cells around: an outline that crosses
    cells must agree on both sides of their border, which attention alone learns slowly.

    Source: Mix-FFN of SegFormer (arXiv 2105.15203, section 3.1), used in Sana (arXiv 2410.10629, section 2.2).
    """

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        hidden = ratio * width
        self.expand = linear(width, hidden)
        # Beside the cell itself, so that the neighbours start as a tenth of its power.
        self.mix = nn.Conv2d(hidden, hidden, kernel_size=3, padding=1, groups=hidden)
        nn.init.normal_(self.mix.weight, std=0.1)
        nn.init.zeros_(self.mix.get_parameter("bias"))
        self.gelu = nn.GELU()
        self.project = linear(hidden, width, gain=1.5)

    def forward(self, x: Float[Tensor, "N tokens width"], height: int) -> Float[Tensor, "N tokens width"]:
        """Update the tokens of a grid of ``height`` rows, given in row-major order."""
        hidden = self.expand(x)
        cells = hidden.transpose(1, 2).unflatten(2, (height, -1))
        return self.project(self.gelu(hidden + self.mix(cells).flatten(2).transpose(1, 2)))  # type: ignore[no-any-return]


def sinusoids(values: Float[Tensor, " N"], width: int, slowest: float, fastest: float) -> Float[Tensor, "N width"]:
    """Sines and cosines of ``values`` at ``width / 2`` angular frequencies in geometric progression.

    Source: Vaswani et al. 2017, section 3.5, with the range of frequencies as a choice.
    The frequencies are made on the spot in float32: as a buffer they would follow the module into bfloat16,
    where neighbouring times become the same number.
    """
    exponents = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float32, device=values.device)
    frequencies = slowest * (fastest / slowest) ** exponents
    angles = values.to(torch.float32)[:, None] * frequencies[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def grid_positions(
    height: int, width: int, channels: int, extent: int, device: torch.device
) -> Float[Tensor, "tokens channels"]:
    """Make fixed sin-cos positions of a ``height`` x ``width`` grid in row-major order, float32.

    Half of the channels tell the row, half the column.  Coordinates are cell centres scaled to ``extent``, so
    that "top left" is the same place at every resolution.
    """
    rows = (torch.arange(height, dtype=torch.float32, device=device) + 0.5) * (extent / height)
    columns = (torch.arange(width, dtype=torch.float32, device=device) + 0.5) * (extent / width)
    # The slowest wave has half a period over the grid, the fastest one period every four cells.
    slowest, fastest = math.pi / extent, math.pi / 2
    row_part = sinusoids(rows, channels // 2, slowest, fastest)[:, None, :].expand(height, width, -1)
    column_part = sinusoids(columns, channels // 2, slowest, fastest)[None, :, :].expand(height, width, -1)
    return torch.cat([row_part, column_part], dim=-1).flatten(0, 1)
