"""Training of the tiny model, from nothing: ``fmcheck tiny train``.

Four stages on rendered pictures (:mod:`fmcheck.tiny.scenes`), each AdamW with half a cosine of learning rate and an
average of the weights (decay 0.995) as its result:

1. **Autoencoder.** L1 plus twice MSE, in bfloat16; four of five batches are 128 pixel crops around the shape, one is
   whole pictures. Noise of up to 0.15 on the latent makes the decoder forgive what the flow misses; a price on the
   latent's power keeps it from outgrowing the noise.
2. **Text branch.** Its sample is regressed to the picture's latent through a throw-away 1 x 1 convolution, with the KL
   term of the loss. Then it is frozen: a start of the flow that moves while the velocity is learned costs more steps
   than it saves.
3. **Velocity network.** Flow matching on the design's path, ``log_snr = 4 - 8 t`` with logit-normal ``t``, a tenth of
   the rows null with their targets permuted among themselves, on cached latents.
4. **Decoder.** The decoder again, for half of the rows from where the sampler ends when it starts on the path to a
   picture's latent. The flow leaves every cell a little beside what the encoder says, and outlines break where cells
   meet: the decoder learns to mend them. *Full* rises by 0.03 for 0.2 dB of PSNR.

One compute thread: sums over several depend on how many there are, and the same seed shall give the same weights.

Outlines are what is learned last. A velocity network of plain MLPs ended at a loss of 0.079 and *full* 0.83, and a
second cosine of 2,000 steps changed nothing; a 3 x 3 depthwise convolution in them, 1.5% more numbers, ended at 0.058.
A KL weight of 0.02 for the text gave better colours and worse outlines (*full* 0.79).

What did not stand: all three at once from scratch (the text latent collapses before the velocity means anything); a
KL weight of 0.1 (the latent shrinks to noise, shapes are lost); batches of 64 crops instead of 32 (fewer steps in the
same time: 32.8 instead of 34.0 dB); ``torch.compile`` (minutes of compilation for no gain at this size).
"""

from fmcheck.tiny.training.result import scored, write_trained
from fmcheck.tiny.training.run import train
from fmcheck.tiny.training.stages import Recipe

__all__ = ["Recipe", "scored", "train", "write_trained"]
