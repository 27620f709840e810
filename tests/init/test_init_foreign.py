"""`fmcheck init` on pipelines that nobody wrote for it, against subjects that somebody wrote by hand for them."""

import importlib
from pathlib import Path

import pytest

from fmcheck.commands_init import load_file
from fmcheck.flow import time_edges
from fmcheck.init import propose, write_proposal
from fmcheck.run import check

PACKAGE = "tests.foreign.pipelines"
TARGETS = {
    "crossflow": "p01_crossflow:make_crossflow",
    "sd3": "p02_sd3:load_pipeline",
    "flux": "p03_flux:load",
    "functional": "p04_functional:build_bundle",
    "data": "p05_data:new_painter",
    "noise": "p06_noise:instantiate",
    "sampler_object": "p07_sampler_object:create",
    "tokens": "p08_tokens:TokenFlow",
    "interval": "p09_interval:get_model",
    "video": "p10_video:video_pipe",
    "wrapped": "p11_wrapped:assemble",
    "lists": "p12_lists:ListPipeline.from_seed",
}
RULES = ("FM1", "FM2", "FM3", "FM5", "FM6")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (Path(__file__).parents[1] / "foreign").is_dir(), reason="no foreign pipelines here"),
]


def conventions(subject):
    """What two subjects of one pipeline must agree on, whatever words they use for it."""
    spec = subject.spec
    return {
        "time": spec.time_map,
        "prediction": {"noise": "x0"}.get(spec.prediction, spec.prediction),
        "solver": (spec.solver, spec.evaluation_point if spec.solver == "euler" else ""),
        "weights": [spec.guidance_weight(scale) for scale in (0.5, 1.0, 2.5)],
        "layout": spec.guidance_layout,
        "norm": spec.guidance_norm,
        "interval": spec.guidance_interval,
        "latent": (spec.latent_size(64, 96), spec.latent_frames, spec.token_patch, spec.multiple),
        "start": spec.initial_state,
        "range": spec.image_range,
    }


def numbers(subject):
    """Fitted numbers: edges for other steps and sizes than were seen, scales, shifts."""
    spec, found = subject.spec, []
    for steps, height, width in ((5, 64, 96), (3, 128, 64), (9, 32, 32)):
        case = subject.case.but(height=height, width=width, num_steps=steps)
        found += time_edges(steps, subject.at(case).spec).tolist()
    for value in (spec.latent_scale, spec.latent_shift):
        found += value if isinstance(value, tuple) else [value]
    return [*found, spec.guidance_rescale]


@pytest.mark.parametrize("name", TARGETS)
def test_the_proposal_says_what_was_declared_by_hand(name, tmp_path):
    proposal = propose(f"{PACKAGE}.{TARGETS[name]}")
    assert not proposal.missing
    write_proposal(proposal, tmp_path / "proposed.py")
    proposed = load_file(tmp_path / "proposed.py")
    by_hand = importlib.import_module("tests.foreign.subjects").SUBJECTS[name]
    assert conventions(proposed) == conventions(by_hand)
    assert numbers(proposed) == pytest.approx(numbers(by_hand), abs=1e-4)


@pytest.mark.parametrize("name", TARGETS)
def test_the_proposal_has_no_finding_that_the_subject_by_hand_has_not(name, tmp_path):
    write_proposal(propose(f"{PACKAGE}.{TARGETS[name]}"), tmp_path / "proposed.py")
    by_hand = importlib.import_module("tests.foreign.subjects").SUBJECTS[name]

    def failed(subject):
        return {o.rule.code for o in check(subject, select=RULES).outcomes if o.status == "failed"}

    assert failed(load_file(tmp_path / "proposed.py")) <= failed(by_hand)
