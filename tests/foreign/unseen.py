"""The planted defects that no rule reports, and why: each is a blind spot, a missing point or a matter of taste."""

__all__ = ["UNSEEN"]

_NULL_ROWS = "which rows of a loss are unconditional is read from `velocity.null`, which these networks are not told"
_OWN_DTYPE = "the state is seen in the network's dtype alone, after a cast (FM502 says so); there is no `sample` point"

# (subject, defect): the reason.
UNSEEN = {
    ("sd3", "prompts never dropped in training"): _NULL_ROWS,
    ("video", "prompts never dropped in training"): _NULL_ROWS,
    ("functional", "another null than in training"): _NULL_ROWS,
    ("sampler_object", "state in the network's dtype"): _OWN_DTYPE,
    ("sampler_object", "noise in the network's dtype"): _OWN_DTYPE,
    ("sampler_object", "padding pooled"): "no `pad` is declared (FM804); FM801 sees it in float32, not in bfloat16",
    ("sd3", "guided for scales up to one"): "scales below the neutral one that are declared off are not tried",
    (
        "data",
        "noise a little small",
    ): "a tenth is within the statistics of FM407 for 2304 numbers, even of all rows together",
    ("interval", "half the range"): "a narrower range lies within the declared one, and there is no encoder",
    ("noise", "scale left out"): "the decoder scales by itself, and there is no encoder",
    ("noise", "no steps taken for one"): "a number of steps below one is never asked for",
    ("functional", "last step of Euler"): "a Heun sampler may save its last corrector (FM301)",
    ("flux", "positions of columns for rows"): "positions are the network's own convention; only its weights know it",
}
