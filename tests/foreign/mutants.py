"""Defects planted into the foreign pipelines, as their own developers would make them."""

from tests.foreign.further_mutants import FURTHER
from tests.foreign.planting import Mutant, of, planted

__all__ = ["MUTANTS", "Mutant", "planted"]

MUTANTS = [
    *of(
        "p04_functional",
        "functional",
        ("second stage at the old time", "velocity_fn(z + (t1 - t0) * k0, t1)", "velocity_fn(z + (t1 - t0) * k0, t0)"),
        ("second stage at the old state", "velocity_fn(z + (t1 - t0) * k0, t1)", "velocity_fn(z, t1)"),
        ("stages added, not averaged", "(k0 + k1) / 2", "(k0 + k1)"),
        ("one step too few", "torch.linspace(0, 1, n_steps + 1, device", "torch.linspace(0, 1, n_steps, device"),
        ("a path that ends early", "torch.linspace(0, 1, n_steps + 1", "torch.linspace(0, 0.999, n_steps + 1"),
        ("noise without the generator", "width // 8, generator=seed_gen, device", "width // 8, device"),
        ("training towards the source", "text), data - noise)", "text), noise - data)"),
    ),
    *of(
        "p05_data",
        "data",
        ("halves swapped", "(data[n:] + g * (data[:n] - data[n:]) - z)", "(data[:n] + g * (data[n:] - data[:n]) - z)"),
        ("guided without the difference", "(data[n:] + g * (data[:n] - data[n:]) - z)", "(g * data[:n] - z)"),
        ("conversion without its denominator", "- z) / (1 - t)", "- z)"),
        ("a quarter step for the half", "z + 0.5 / n *", "z + 0.25 / n *"),
        (
            "second stage at the start",
            "self.derivative(half, (k + 0.5) / n, text, g)",
            "self.derivative(half, k / n, text, g)",
        ),
        ("every row is conditional", "[False] * n + [True] * n", "[False] * n + [False] * n"),
        ("training without the source", "(1 - w) * x0 + w * x1, t", "x0 + w * x1, t"),
    ),
    *of(
        "p06_noise",
        "noise",
        ("edge for the middle", "middle = (s0 + s1) / 2", "middle = s0"),
        ("formula of the other scale", "e_u + scale * (e_c - e_u)", "e_c + scale * (e_c - e_u)"),
        (
            "state in a short dtype",
            "* (eps - z) / (1 - middle)",
            "* (eps - z) / (1 - middle)\n        z = z.bfloat16().float()",
        ),
        ("scale left out", "return self.first_stage(z / self.scale_factor)", "return self.first_stage(z)"),
    ),
    *of(
        "p07_sampler_object",
        "sampler_object",
        ("micro-batches in reverse", "return torch.cat(parts)", "return torch.cat(parts[::-1])"),
        ("time of the edge", "(k + 0.5) / self.steps, text", "k / self.steps, text"),
        ("time the other way", "1000 * (1 - t), device", "1000 * t, device"),
        ("scale and shift in the wrong order", "x / 0.7 + 0.3", "(x + 0.3) / 0.7"),
        (
            "all null",
            "null = torch.arange(len(x_), device=x.device) < (n if on else 0)",
            "null = torch.arange(len(x_), device=x.device) >= 0",
        ),
        ("training told the other time", "1000 * (1 - t), null, self", "1000 * t, null, self"),
    ),
    *of(
        "p09_interval",
        "interval",
        ("guided everywhere", "if w == 0 or not INTERVAL[0] <= 1 - float(sigma) <= INTERVAL[1]:", "if w == 0:"),
        (
            "guided up to the interval",
            "if w == 0 or not INTERVAL[0] <= 1 - float(sigma) <= INTERVAL[1]:",
            "if w == 0 or not 1 - float(sigma) <= INTERVAL[1]:",
        ),
        ("weight for scale", "(1 + w) * c - w * u", "u + w * (c - u)"),
        ("decoder not unscaled", "self.vae(self.vae.unscale(x).to(text.dtype))", "self.vae(x.to(text.dtype))"),
        ("last state dropped", "*_, x = self.diffuse(x, text, steps, w)", "*_, x, _ = self.diffuse(x, text, steps, w)"),
    ),
    *of(
        "p10_video",
        "video",
        ("velocity of the wrong sign", "x = x + (after - sigma) * noise_pred", "x = x + (sigma - after) * noise_pred"),
        (
            "mean forgotten",
            "(x * self.latents_std.float() + self.latents_mean.float())",
            "(x * self.latents_std.float())",
        ),
        ("deviation divided", "x * self.latents_std.float() +", "x / self.latents_std.float() +"),
        (
            "negative prompt for the prompt",
            "unguided + cfg * (noise_pred - unguided)",
            "noise_pred + cfg * (unguided - noise_pred)",
        ),
        ("level told as a fraction", "told = (1000 * sigma).expand", "told = sigma.expand"),
        (
            "training without its mean",
            "(self.vae.encode(images[:, :, None]) - self.latents_mean)",
            "(self.vae.encode(images[:, :, None]))",
        ),
    ),
    *of(
        "p11_wrapped",
        "wrapped",
        ("chunks in the other order", "u, c = parts", "c, u = parts"),
        ("guidance dropped", "(u + guidance * (c - u))", "c"),
        ("time of the next edge", "torch.cat((x, x)), times[k], words", "torch.cat((x, x)), times[k + 1], words"),
        ("range not mapped", "return (images + 1) / 2, {", "return images, {"),
        ("decoded from the first row", 'parts["paint"](x / 1.2)', 'parts["paint"](x[:1].expand_as(x) / 1.2)'),
    ),
    *FURTHER,
]
