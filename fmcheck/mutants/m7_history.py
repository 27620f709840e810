"""FM7, history: what an earlier call, an earlier size or an exception leaves in the model for the next one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fmcheck.mutants.registry import mutant
from fmcheck.mutants.surgery import bind, wrap
from fmcheck.tiny import TinyFlowModel

# FM705 seed-ignored


@mutant("FM705")
def generator_asked_for_its_seed_only(model: TinyFlowModel) -> None:
    """Noise comes from a new generator with the caller's seed, so that the caller's own never moves."""

    def again(reparametrise: Any, mu: Tensor, log_var: Tensor, generator: torch.Generator | None) -> Tensor:
        own = None if generator is None else torch.Generator().manual_seed(generator.initial_seed())
        return reparametrise(mu, log_var, own)  # type: ignore[no-any-return]

    wrap(model.text_encoder, "reparametrise", again)


# FM711 not-repeatable


@mutant("FM711")
def latent_cached_by_seed(model: TinyFlowModel) -> None:
    """Text latents are cached by prompt and seed, so a generator that has moved on is ignored."""
    kept: dict[Any, Any] = {}

    def cached(forward: Any, ids: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Any:
        if generator is None or torch.is_grad_enabled():
            return forward(ids, mask, generator)
        key = str(ids.tolist()), str(mask.tolist()), generator.initial_seed()
        if key not in kept:
            kept[key] = forward(ids, mask, generator)
        return type(kept[key])(*(part.clone() for part in kept[key]))

    wrap(model.text_encoder, "forward", cached)


@mutant("FM711")
def pictures_in_a_buffer_of_the_model(model: TinyFlowModel) -> None:
    """The pictures are returned in a buffer into which the next call of their shape writes."""
    buffers: dict[torch.Size, Tensor] = {}
    wrap(
        model,
        "decode_state",
        lambda decode, x: (lambda image: buffers.setdefault(image.shape, torch.empty_like(image)).copy_(image))(
            decode(x)
        ),
    )


@mutant("FM711")
def step_skipped_after_an_exception(model: TinyFlowModel) -> None:
    """A flag that marks a running evaluation stays set after an exception, and the next call skips its first step."""
    state = {"busy": False}

    @contextmanager
    def running() -> Iterator[None]:
        state["busy"] = True
        yield
        state["busy"] = False

    def integrate(found: TinyFlowModel, x: Tensor, grid: Any, scale: float) -> Tensor:
        for t, dt in zip(grid.t_mid, grid.dt, strict=True):
            if state["busy"]:
                state["busy"] = False
                continue
            with running():
                c, u = found.velocities(x, t, guided=scale != 0)
            x = x + dt * (c.float() if u is None else found.combine(c, u, scale))
        return x

    bind(model, "integrate", integrate)


# FM717 depends-on-history


@mutant("FM717")
def positions_cached_by_tokens(model: TinyFlowModel) -> None:
    """Positions are cached by the number of tokens, which two shapes of one area share."""
    kept: dict[int, torch.Size] = {}

    def around(forward: Any, x: Tensor, *given: Any) -> Tensor:
        # Tokens are rows of cells, so the positions of another shape are those of the same tokens folded otherwise.
        shape = kept.setdefault(x.shape[-2:].numel(), x.shape[-2:])
        return forward(x.reshape(*x.shape[:2], *shape), *given).reshape(x.shape)  # type: ignore[no-any-return]

    wrap(model.fm_transformers, "forward", around)


@mutant("FM717")
def scale_fixed_by_the_first_size(model: TinyFlowModel) -> None:
    """The aspect ratio of the first picture decides a factor that all later ones share."""
    kept: list[float] = []

    def integrate(run: Any, x: Tensor, grid: Any, scale: float) -> Tensor:
        kept[:] = kept or [(x.shape[-2] / x.shape[-1]) ** 0.125]
        return kept[0] * run(x, grid, scale)  # type: ignore[no-any-return]

    wrap(model, "integrate", integrate)
