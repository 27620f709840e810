"""Training of the tiny model, from nothing: ``fmcheck tiny train``.

Three stages on rendered pictures (:mod:`fmcheck.tiny.scenes`), each AdamW with half a cosine of learning rate and an
average of the weights (decay 0.995) as its result:

1. **Autoencoder.** L1 plus twice MSE, in bfloat16; four of five batches are 128 pixel crops around the shape, one is
   whole pictures. Noise of up to 0.15 on the latent makes the decoder forgive what the flow misses; a price on the
   latent's power keeps it from outgrowing the noise.
2. **Text branch.** Its sample is regressed to the picture's latent through a throw-away 1 x 1 convolution, with the KL
   term of the loss. Then it is frozen: a start of the flow that moves while the velocity is learned costs more steps
   than it saves.
3. **Velocity network.** Flow matching on the design's path, ``log_snr = 4 - 8 t`` with logit-normal ``t``, a tenth of
   the rows null with their targets permuted among themselves, on cached latents.

One compute thread: sums over several depend on how many there are, and the same seed shall give the same weights.

What it comes to is limited by the outlines: a tenth of the pictures has more than a few wrong pixels there. A second
cosine of 2,000 steps for the velocity network changed nothing (full 0.84 instead of 0.83), so that its size is the
limit rather than its time. A KL weight of 0.02 for the text gave better colours and worse outlines (full 0.79).

What did not stand: all three at once from scratch (the text latent collapses before the velocity means anything); a
KL weight of 0.1 (the latent shrinks to noise, shapes are lost); batches of 64 crops instead of 32 (fewer steps in the
same time: 32.8 instead of 34.0 dB); ``torch.compile`` (minutes of compilation for no gain at this size).
"""

from fmcheck.tiny.training.result import scored, write_trained
from fmcheck.tiny.training.run import train
from fmcheck.tiny.training.stages import Recipe

__all__ = ["Recipe", "scored", "train", "write_trained"]
