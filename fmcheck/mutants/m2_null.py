"""FM2: unconditional branches that know the prompt, in a flow that starts at noise."""

import torch

from fmcheck.mutants.noise_start import normal, with_noise_start
from fmcheck.mutants.registry import subject_mutant
from fmcheck.subject import Subject

# FM209 prompted-null


@subject_mutant("FM209")
def prompt_in_both_branches(subject: Subject) -> Subject:
    """The text moves the conditional and the unconditional velocity alike."""
    return with_noise_start(subject, "prompt_in_both_branches", normal, torch.ones_like)


@subject_mutant("FM209")
def prompt_in_the_other_branch(subject: Subject) -> Subject:
    """The texts of the two branches are concatenated in the other order."""
    return with_noise_start(subject, "prompt_in_the_other_branch", normal, lambda null: null)


@subject_mutant("FM209")
def a_tenth_of_the_prompt_in_the_null(subject: Subject) -> Subject:
    """One of several text inputs reaches the unconditional branch as well."""
    return with_noise_start(
        subject, "a_tenth_of_the_prompt_in_the_null", normal, lambda null: torch.where(null, 0.1, 1.0)
    )
