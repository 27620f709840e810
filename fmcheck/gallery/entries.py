"""What hangs in the gallery: the clean model, the development log's defects, and two that no score can see."""

from collections.abc import Iterable
from dataclasses import dataclass

from fmcheck.errors import DeclarationError, did_you_mean
from fmcheck.mutants import Mutant, get_mutant

__all__ = ["Entry", "entries"]

# A few words each, that fit above a small picture; the number is the line of the development log.
_LABELS = {
    "log1_generator_undefined": "1 generator undefined",
    "log1_output_not_cond_half": "1 both halves returned",
    "log1_output_channels_last": "1 channels last",
    "log1_output_out_of_range": "1 grey levels to 255",
    "log2_latents_to_pixels": "2 decoding by a helper",
    "log3_projection_instead_of_reshape": "3 random projection",
    "log3_projection_made_in_generate": "3 layer in generate",
    "log4_log_snr_column": "4 log-SNR [N, 1]",
    "log4_log_snr_four_dimensions": "4 log-SNR [N, 1, 1, 1]",
    "log5_random_time_per_step": "5 random time a step",
    "log6_null_indicator_of_b_rows": "6 null flags of B rows",
    "log6_log_snr_of_b_rows": "6 log-SNR of B rows",
    "log6_halves_mixed_up": "6 halves mixed up",
    "log6_rows_interleaved": "6 rows interleaved",
    "log7_guidance_in_initial_state_too": "7 start guided too",
    "log7_guidance_in_initial_state_only": "7 only start guided",
    "log8_x_cat_decoded": "8 x_cat decoded",
    "log8_v_all_decoded": "8 velocity decoded",
    "log9_mapping_rebuilt_for_every_size": "9 mapping rebuilt",
    "log9_fallback_made_again": "9 fallback made again",
    "uniform_grid": "uniform grid",
    "evaluated_at_the_left_edge": "left edge, not midpoint",
}


@dataclass(frozen=True)
class Entry:
    """One picture of the gallery.

    Attributes:
        name: of the mutant, or `clean`.
        label: a few words.
        mutant: None for the clean model.
    """

    name: str
    label: str
    mutant: Mutant | None = None

    @property
    def summary(self) -> str:
        return self.mutant.summary if self.mutant else "The model as it is."


def entries(names: Iterable[str] = ()) -> list[Entry]:
    """The clean model, which the others are compared with, and the defects of these names, by default all.

    Raises:
        DeclarationError: a name that is not in the gallery; names the nearest.
    """
    chosen = list(names) or list(_LABELS)
    for name in chosen:
        if name not in _LABELS:
            raise DeclarationError(f"no defect {name!r} in the gallery{did_you_mean(name, _LABELS)}")
    return [Entry("clean", "clean model"), *(Entry(name, _LABELS[name], get_mutant(name)) for name in chosen)]
