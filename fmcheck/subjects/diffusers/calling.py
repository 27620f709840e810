"""How a pipeline is called, read from the signature of its `__call__`."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fmcheck.errors import DeclarationError, did_you_mean

__all__ = ["Calling"]

# Passed where the signature has them. Tokens are few, so that a check takes seconds; one frame makes a video a picture;
# a pipeline that rounds sizes to its own list of them would answer another request than the one made.
_OPTIONS: Mapping[str, Any] = {
    "max_sequence_length": 32,
    "num_frames": 1,
    "use_resolution_binning": False,
    "output_type": "pt",
}
_NEEDED = ("prompt", "height", "width", "num_inference_steps", "generator", "output_type")


@dataclass(frozen=True)
class Calling:
    """Calls of one pipeline.

    Attributes:
        scale: name of the argument that is the guidance scale; None when the pipeline has none.
        negative: whether empty negative prompts are passed, which some pipelines need before they guide at all.
        options: further arguments, the same in every call.
    """

    scale: str | None
    negative: bool
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, pipe: Any, embedded: bool, options: Mapping[str, Any]) -> "Calling":
        """From the signature; `embedded` says that `guidance_scale` is an input of the network.

        Raises:
            DeclarationError: an argument that every text-to-image pipeline has is missing, or an option is unknown.
        """
        known = inspect.signature(pipe.__call__).parameters
        name = type(pipe).__name__
        for needed in _NEEDED:
            if needed not in known:
                raise DeclarationError(f"{name}: its __call__ has no argument {needed!r}; expected a text-to-image one")
        for option in options:
            if option not in known:
                raise DeclarationError(f"{name}: its __call__ has no argument {option!r}{did_you_mean(option, known)}")
        own = {option: value for option, value in _OPTIONS.items() if option in known}
        names = ("guidance_scale",) if embedded else ("true_cfg_scale", "guidance_scale")
        scale = next((option for option in names if option in known), None)
        return cls(scale, "negative_prompt" in known and not embedded, {**own, **options})

    def __call__(
        self,
        pipe: Any,
        prompts: Sequence[str],
        *,
        size: tuple[int, int],
        steps: int,
        scale: float,
        generator: torch.Generator,
        **more: Any,
    ) -> Any:
        """What the pipeline returns, under inference mode off and its own `no_grad`."""
        asked: dict[str, Any] = {"prompt": list(prompts), "height": size[0], "width": size[1]}
        asked |= {"num_inference_steps": steps, "generator": generator}
        if self.scale is not None:
            asked[self.scale] = scale
        if self.negative:
            asked["negative_prompt"] = [""] * len(prompts)
        return pipe(**{**asked, **self.options, **more})

    @staticmethod
    def images(returned: Any) -> Tensor:
        """`[B, 3, H, W]`: the pictures, or the first frames of videos.

        Raises:
            DeclarationError: there are none.
        """
        # With return_dict=False pipelines return tuples.
        whole = returned[0] if type(returned) is tuple and returned else None
        found = getattr(returned, "images", getattr(returned, "frames", whole))
        if isinstance(found, Tensor) and found.dim() == 5:
            found = found[:, 0]
        if not isinstance(found, Tensor):
            raise DeclarationError(
                f"a pipeline returned {type(returned).__name__} without a tensor of images or frames "
                "for output_type='pt'"
            )
        return found
