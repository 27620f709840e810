"""More defects of the twelve pipelines, chosen from their code and from the classes of defects that really happened."""

from tests.foreign.planting import of

__all__ = ["FURTHER"]

FURTHER = [
    *of(
        "p01_crossflow",
        "crossflow",
        ("halves exchanged", "c, u = self.backbone", "u, c = self.backbone"),
        ("scale of the other formula", "((1 + w) * c - w * u)", "(u + w * (c - u))"),
        ("asked at the left edge", "4 - 8 * (start + end) / 2", "4 - 8 * start"),
        ("log-SNR of the other sign", "4 - 8 * (start + end) / 2", "8 * (start + end) / 2 - 4"),
        (
            "edges in equal steps",
            "torch.special.ndtri(torch.linspace(0, 1, steps + 1, dtype=torch.float64)).sigmoid()",
            "torch.linspace(0, 1, steps + 1, dtype=torch.float64)",
        ),
        ("noise of the text latent without the generator", "mean.shape, generator=generator, ", "mean.shape, "),
        (
            "padding attended to",
            'scores = scores.masked_fill(attention_mask[:, None] == 0, float("-inf"))',
            "scores = scores.contiguous()",
        ),
        ("latent scaled twice", "to_latent(x).to(dtype)", "to_latent(self.codec.to_latent(x)).to(dtype)"),
        ("height for width", "mask, (height // 8, width // 8)", "mask, (width // 8, height // 8)"),
        (
            "training path backwards",
            "(1 - (1 - SIGMA_MIN) * s) * x0 + s * x1",
            "(1 - (1 - SIGMA_MIN) * s) * x1 + s * x0",
        ),
    ),
    *of(
        "p02_sd3",
        "sd3",
        ("pooled halves in the other order", "torch.cat((neg_pooled, pooled))", "torch.cat((pooled, neg_pooled))"),
        (
            "shift applied twice",
            "sigmas = self.shift * sigmas / (1 + (self.shift - 1) * sigmas)",
            "for _ in range(2):\n            sigmas = self.shift * sigmas / (1 + (self.shift - 1) * sigmas)",
        ),
        (
            "times told before the shift",
            "sigmas = self.shift * sigmas / (1 + (self.shift - 1) * sigmas)\n"
            "        self.timesteps = (sigmas * self.num_train_timesteps).to(device, torch.float32)",
            "self.timesteps = (sigmas * self.num_train_timesteps).to(device, torch.float32)\n"
            "        sigmas = self.shift * sigmas / (1 + (self.shift - 1) * sigmas)",
        ),
        ("a last step of length zero", "torch.linspace(1, 1 / self.num_train_timesteps,", "torch.linspace(1, 0,"),
        (
            "place in the schedule kept over calls",
            "self.step_index = 0",
            'self.step_index = getattr(self, "step_index", 0)',
        ),
        ("half of every step", "return sample.float() + delta", "return sample.float() + delta / 2"),
        (
            "scale multiplied, not divided",
            "latents / self.vae.config.scaling_factor",
            "latents * self.vae.config.scaling_factor",
        ),
        ("guided for scales up to one", "do_cfg = guidance_scale > 1", "do_cfg = guidance_scale > 0"),
        (
            "odd sizes rounded down in silence",
            'raise ValueError(f"`height` and `width` have to be divisible by 8 but are {height} and {width}.")',
            "height, width = height // 8 * 8, width // 8 * 8",
        ),
        ("training told a fraction", "pipe.transformer(noisy, sigma * 1000,", "pipe.transformer(noisy, sigma,"),
        (
            "prompts never dropped in training",
            '["" if d else p for p, d in zip(prompts, drop.tolist(), strict=True)]',
            "prompts",
        ),
    ),
    *of(
        "p03_flux",
        "flux",
        ("guidance of the default", "float(guidance), device", "3.5, device"),
        (
            "channels counted for tokens",
            "get_schedule(num_steps, img.shape[1])",
            "get_schedule(num_steps, img.shape[2])",
        ),
        (
            "shift left out",
            "[math.exp(mu) / (math.exp(mu) + (1 / s - 1)) for s in linear] + [0.0]",
            "linear + [0.0]",
        ),
        ("patches unpacked transposed", "permute(0, 3, 1, 4, 2, 5)", "permute(0, 3, 1, 5, 2, 4)"),
        (
            "channels unpacked last",
            "d // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)",
            "2, 2, d // 4).permute(0, 5, 1, 3, 2, 4)",
        ),
        ("positions of columns for rows", "torch.stack((ys, xs), -1)", "torch.stack((xs, ys), -1)"),
        ("shift subtracted", "+ bag.ae.shift_factor", "- bag.ae.shift_factor"),
        ("level told in thousands", "((len(img),), now, device", "((len(img),), 1000 * now, device"),
        (
            "one noise for all rows",
            "torch.randn(len(prompts), 4, height // 8, width // 8, generator=rng, device=weight.device)",
            "torch.randn(1, 4, height // 8, width // 8, generator=rng, device=weight.device)"
            ".expand(len(prompts), -1, -1, -1)",
        ),
        ("the network's answer subtracted", "img + (then - now) * pred", "img - (then - now) * pred"),
    ),
    *of(
        "p04_functional",
        "functional",
        ("guidance off below one", "if scale == 1:", "if scale <= 1:"),
        (
            "last step of Euler",
            "k1 = velocity_fn(z + (t1 - t0) * k0, t1)",
            "k1 = velocity_fn(z + (t1 - t0) * k0, t1) if t1 < 1 else k0",
        ),
        ("training path backwards", "torch.lerp(noise, data,", "torch.lerp(data, noise,"),
        (
            "another null than in training",
            "uncond = bundle.prompt_net.nothing.expand_as(cond)",
            "uncond = torch.zeros_like(cond)",
        ),
        ("prompts cut after eight letters", "length: int = 64", "length: int = 8"),
    ),
    *of(
        "p05_data",
        "data",
        ("noise without the generator", "size[1] // 8, generator=rng, device", "size[1] // 8, device"),
        ("noise a little small", "z = torch.randn(len(codes), 4", "z = 0.9 * torch.randn(len(codes), 4"),
        ("finished twice", "self.render(self.finish(z))", "self.render(self.finish(self.finish(z)))"),
        (
            "padding counted",
            "place.to(self.table) * keep.to(self.table)",
            "place.to(self.table) * torch.ones_like(keep)",
        ),
        ("height for width", "size[0] // 8, size[1] // 8, generator", "size[1] // 8, size[0] // 8, generator"),
        ("training latent not shifted", "(self.compress(images) + 0.2) * 0.8", "self.compress(images) * 0.8"),
    ),
    *of(
        "p06_noise",
        "noise",
        ("denominator of the next level", "(eps - z) / (1 - middle)", "(eps - z) / (1 - s1)"),
        ("edges in equal steps", "1 - (i / k) ** 1.5", "1 - (i / k)"),
        (
            "scaled by the caller too",
            "decode_first_stage(z.to(c.dtype))",
            "decode_first_stage(z.to(c.dtype) / model.scale_factor)",
        ),
        (
            "seeds everything",
            "c = model.cond_stage(prompts)",
            "torch.manual_seed(0)\n    c = model.cond_stage(prompts)",
        ),
        ("prompt for the empty prompt", '[""] * len(prompts)', "prompts"),
        ("first prompt for all", "c = model.cond_stage(prompts)", "c = model.cond_stage(prompts[:1] * len(prompts))"),
        ("no steps taken for one", 'raise ValueError(f"K must be at least 1, not {K}")', "K = 1"),
    ),
    *of(
        "p07_sampler_object",
        "sampler_object",
        (
            "state in the network's dtype",
            "x = x + self._velocity(x, (k + 0.5) / self.steps, text, mask) / self.steps",
            "x = (x + self._velocity(x, (k + 0.5) / self.steps, text, mask) / self.steps).to(text.dtype)",
        ),
        (
            "rows doubled one by one",
            "(torch.cat((part, part)) for part in",
            "(part.repeat_interleave(2, 0) for part in",
        ),
        ("padding pooled", "null, text_, mask_).float()", "null, text_, torch.ones_like(mask_)).float()"),
        ("noise in the network's dtype", "device=text.device)", "device=text.device, dtype=text.dtype)"),
        ("last step left out", "for k in range(self.steps):", "for k in range(self.steps - 1):"),
        (
            "no null in training",
            "null = torch.rand(len(x1), generator=generator, device=x1.device) < 0.15",
            "null = torch.zeros(len(x1), dtype=torch.bool, device=x1.device)",
        ),
    ),
    *of(
        "p08_tokens",
        "tokens",
        ("rescaled, then thrown away", "return PHI * rescaled + (1 - PHI) * mixed", "return mixed"),
        (
            "rescale over the batch",
            "c.std(dim=(1, 2), keepdim=True) / mixed.std(dim=(1, 2), keepdim=True)",
            "c.std() / mixed.std()",
        ),
        (
            "rescale over channels alone",
            "c.std(dim=(1, 2), keepdim=True) / mixed.std(dim=(1, 2), keepdim=True)",
            "c.std(dim=2, keepdim=True) / mixed.std(dim=2, keepdim=True)",
        ),
        ("phi for its rest", "PHI * rescaled + (1 - PHI) * mixed", "(1 - PHI) * rescaled + PHI * mixed"),
        (
            "tokens folded column by column",
            "unflatten(2, (height // 8, width // 8))",
            "unflatten(2, (width // 8, height // 8)).mT",
        ),
        ("the prompt's mask on the empty one", "torch.cat((mask, empty_mask))", "torch.cat((mask, mask))"),
        ("level of the next edge", "((len(context),), now, device", "((len(context),), after, device"),
        ("level the other way", "((len(context),), now, device", "((len(context),), 1 - now, device"),
        ("halves exchanged", "self.guide(*out.chunk(2), strength)", "self.guide(*out.chunk(2)[::-1], strength)"),
        ("training towards the source", "(out - noise + data)", "(out - data + noise)"),
    ),
    *of(
        "p09_interval",
        "interval",
        (
            "conditional branch told the other time",
            "c = self.unet(x.to(text.dtype), sigma,",
            "c = self.unet(x.to(text.dtype), 1 - sigma,",
        ),
        ("a seed of its own", "generator=noise_source", "generator=torch.Generator().manual_seed(0)"),
        ("padding read", "h = torch.where(attention_mask[:, k, None] > 0, new, h)", "h = new"),
        ("half the range", ".clamp(-1, 1)", ".clamp(0, 1)"),
    ),
    *of(
        "p10_video",
        "video",
        ("not stretched to the terminal", "s = 1 - (1 - s) * (1 - terminal) / (1 - s[-1])", "s = s.contiguous()"),
        ("shifted the wrong way", "shift * s / (1 + (shift - 1) * s)", "s / (s + shift * (1 - s))"),
        ("one deviation for all channels", "x * self.latents_std.float() +", "x * self.latents_std.float().mean() +"),
        (
            "the prompt's mask on the negative one",
            "told, *negative_context)",
            "told, negative_context[0], context[1])",
        ),
        ("level of the next edge", "told = (1000 * sigma)", "told = (1000 * after)"),
        (
            "prompts never dropped in training",
            '["" if d else p for p, d in zip(prompts, drop.tolist(), strict=True)]',
            "prompts",
        ),
        (
            "training told the other time",
            "1000 * sigma, *context)[0], noise - data",
            "1000 * (1 - sigma), *context)[0], noise - data",
        ),
    ),
    *of(
        "p11_wrapped",
        "wrapped",
        ("shift left out", "(1 - shift * sigma / (1 + (shift - 1) * sigma))", "(1 - sigma)"),
        (
            "shift of the other end",
            "(1 - shift * sigma / (1 + (shift - 1) * sigma))",
            "(shift * (1 - sigma) / (1 + (shift - 1) * (1 - sigma)))",
        ),
        ("texts in the other order", '[""] * len(prompts) + list(prompts)', 'list(prompts) + [""] * len(prompts)'),
        ("noise without the generator", "width // 8, generator=generator, device", "width // 8, device"),
        ("scale multiplied, not divided", "(x / 1.2)", "(x * 1.2)"),
        (
            "guidance of the first four channels",
            "(u + guidance * (c - u))",
            "torch.cat(((u + guidance * (c - u))[:, :4], c[:, 4:]), 1)",
        ),
    ),
    *of(
        "p12_lists",
        "lists",
        ("norm over the last axis", "v.flatten(1).norm(dim=1)[:, None, None, None]", "v.norm(dim=-1, keepdim=True)"),
        ("norm over the batch", "v.flatten(1).norm(dim=1)[:, None, None, None]", "v.norm()"),
        ("norm of the unconditional half", "for v in (c, mixed)]", "for v in (u, mixed)]"),
        ("norm not put back", "return mixed * (norms[0] / norms[1])", "return mixed"),
        ("not negated", "out = -torch.stack(", "out = torch.stack("),
        ("level for time", "((len(rows),), 1 - sigma, device", "((len(rows),), sigma, device"),
        ("difference added to the conditional half", "mixed = u + scale * (c - u)", "mixed = c + scale * (c - u)"),
        (
            "rows doubled one by one",
            "[*latents.to(texts[0].dtype).unbind(0)] * (len(texts) // n)",
            "[row for row in latents.to(texts[0].dtype).unbind(0) for _ in range(len(texts) // n)]",
        ),
        (
            "a grid that ends early",
            "1 - k / steps, 1 - (k + 1) / steps",
            "1 - k / (steps + 1), 1 - (k + 1) / (steps + 1)",
        ),
        ("shift subtracted", "/ self.scaling + self.shift", "/ self.scaling - self.shift"),
    ),
]
