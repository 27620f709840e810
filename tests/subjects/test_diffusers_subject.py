"""Subjects of diffusers' pipelines: conventions are learned from the object and from small calls of it."""

import copy
import sys
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers

from fmcheck import check
from fmcheck.errors import DeclarationError
from fmcheck.rules import get_rule
from fmcheck.session import Session
from fmcheck.subject import Request, Subject
from fmcheck.subjects.diffusers import subject
from fmcheck.subjects.diffusers.builds import BUILDS
from fmcheck.subjects.diffusers.lists import STACKED
from fmcheck.subjects.diffusers.schedulers import SCHEDULERS
from fmcheck.subjects.load import load_subject

FLOW: dict[str, Any] = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}


def declared(name: str) -> dict[str, Any]:
    return load_subject(f"diffusers:{name}").spec.as_table()


def with_scheduler(name: str, scheduler: Any) -> Subject:
    pipe = BUILDS[name]()
    pipe.scheduler = scheduler
    return subject(pipe)


# Z-Image's guidance begins above 1 in diffusers 0.36, above 0 in later releases.
_Z_IMAGE_FROM = 1.0 if version("diffusers").startswith("0.36.") else 0.0


@pytest.mark.parametrize(
    ("name", "conventions"),
    [
        ("SanaPipeline", {"guidance_layout": "uncond_first", "time_argument": "timestep", "size_multiple": 32}),
        ("StableDiffusion3Pipeline", {"guidance_layout": "uncond_first", "grid_shift": 3.0, "latent_shift": 0.0609}),
        (
            "FluxPipeline",
            {
                "guidance_layout": "embedded",
                "time_argument": "sigma",
                "token_patch": 2,
                "token_order": "channels_first",
                "grid_shift_by_tokens": [256.0, 0.5, 4096.0, 1.15],
            },
        ),
        (
            "Lumina2Pipeline",
            {
                "guidance_layout": "separate",
                "time_argument": "t",
                "prediction": "velocity",
                "guidance_norm": "last_axis",
            },
        ),
        ("AuraFlowPipeline", {"time_argument": "sigma", "grid_shift": 1.73, "latent_shift": 0.0}),
        ("CogView4Pipeline", {"grid": "declared", "guidance_layout": "separate"}),
        (
            "QwenImagePipeline",
            {"grid_terminal": 0.02, "guidance_norm": "last_axis", "latent_frames": 1, "token_patch": 2},
        ),
        ("ZImagePipeline", {"guidance_formula": "cond_plus", "guidance_from": _Z_IMAGE_FROM, "prediction": "velocity"}),
        ("WanPipeline", {"solver": "other", "grid": "declared", "latent_frames": 1, "prediction": "reverse_velocity"}),
        ("ChromaPipeline", {"guidance_layout": "separate", "time_argument": "sigma", "token_patch": 2}),
        ("LTXPipeline", {"grid_terminal": 0.1, "token_patch": 1, "latent_frames": 1, "size_multiple": 32}),
    ],
)
def test_conventions_are_learned(name: str, conventions: dict[str, Any]) -> None:
    found = declared(name)
    assert {key: found.get(key) for key in conventions} == conventions


def test_the_last_noise_level_of_a_scheduler_that_is_asked_for_none_is_its_own_smallest() -> None:
    shifted = 3 * 0.001 / (1 + 2 * 0.001)
    assert declared("StableDiffusion3Pipeline")["grid_last_sigma"] == pytest.approx(shifted, rel=1e-6)
    assert "grid_last_sigma" not in declared("FluxPipeline")


def test_scale_and_shift_a_channel_come_from_the_autoencoder() -> None:
    found = load_subject("diffusers:QwenImagePipeline").spec
    assert found.latent_scale == pytest.approx([1 / 2.8184, 1 / 1.4541, 1 / 2.3275, 1 / 2.6558])
    assert found.latent_shift == pytest.approx([-0.7571, -0.7089, -0.9113, 0.1075])


@pytest.mark.parametrize(
    ("scheduler", "solver"),
    [
        (lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), "euler"),
        (lambda: diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0), "heun"),
        (lambda: diffusers.FlowMatchLCMScheduler(shift=3.0), "stochastic"),
        (lambda: diffusers.DPMSolverMultistepScheduler(**FLOW), "other"),
        (lambda: diffusers.UniPCMultistepScheduler(**FLOW), "other"),
    ],
    ids=["euler", "heun", "lcm", "dpm", "unipc"],
)
def test_the_solver_is_seen_in_the_steps(scheduler: Any, solver: str) -> None:
    assert with_scheduler("SanaPipeline", scheduler()).spec.solver == solver


@pytest.mark.parametrize("name", ["StableDiffusion3Pipeline", "FluxPipeline"])
def test_a_pipeline_in_bfloat16_has_the_same_conventions_but_for_its_dtypes(name: str) -> None:
    half = subject(BUILDS[name]().to(torch.bfloat16))
    assert half.case.dtype == "bfloat16"
    same = {**half.spec.as_table(), "state_dtype": "float32", "size_multiple": half.spec.multiple}
    assert half.spec.state_dtype == "network"
    assert same == declared(name)


def test_a_shift_that_counts_something_else_is_declared_with_the_tokens_of_the_network() -> None:
    """Lumina2 takes the number of channels for that of tokens: FM303 shall say so, and the spec not excuse it."""
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    spec = with_scheduler("Lumina2Pipeline", scheduler).spec
    assert spec.grid_token_patch == 2
    assert spec.grid_shift_by_tokens == (256.0, 0.5, 4096.0, 1.15)


def test_a_network_without_an_embedded_scale_is_guided_by_true_cfg() -> None:
    pipe = BUILDS["FluxPipeline"]()
    config = {**pipe.transformer.config, "guidance_embeds": False}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe.transformer = type(pipe.transformer).from_config(config).eval()
        torch.nn.init.normal_(pipe.transformer.proj_out.weight)
    assert subject(pipe).spec.guidance_layout == "separate"


def test_builds_are_copies_and_the_pipeline_is_left_as_it_was() -> None:
    pipe = BUILDS["StableDiffusion3Pipeline"]()
    weights, scheduler = copy.deepcopy(pipe.transformer.state_dict()), pipe.scheduler
    made = subject(pipe)
    first, second = made.build(made.case), made.build(made.case)
    assert first.transformer is not second.transformer
    assert first.transformer is not pipe.transformer
    assert pipe.scheduler is scheduler
    assert scheduler.step_index is None
    assert all(torch.equal(weights[name], value) for name, value in pipe.transformer.state_dict().items())


def test_generate_returns_pictures_of_videos() -> None:
    made = load_subject("diffusers:LTXPipeline")
    model = made.build(made.case)
    images = made.generate(model, Request(made.case, {}, torch.Generator().manual_seed(0)))
    assert images.shape == (3, 3, 64, 64)
    assert 0 <= float(images.min()) <= float(images.max()) <= 1


def test_rows_in_a_list_are_seen_as_one_tensor() -> None:
    made = load_subject("diffusers:ZImagePipeline")
    model = made.build(made.case)
    assert made.points["velocity"].path == f"transformer.{STACKED}"
    x, captions = torch.randn(2, 4, 8, 8), [torch.randn(3, 16), torch.randn(7, 16)]
    with torch.no_grad():
        rows = model.transformer.rows_forward(x, torch.tensor([0.25, 0.25]), captions)
        listed = model.transformer(list(x.unsqueeze(2)), torch.tensor([0.25, 0.25]), captions)[0]
    assert rows.shape == x.shape
    assert torch.equal(rows.unsqueeze(2), torch.stack(listed))


def test_a_network_that_cuts_its_tokens_to_the_longest_prompt_rounds_otherwise_and_leaks_nothing() -> None:
    made = load_subject("diffusers:Lumina2Pipeline")
    case = made.case.but(prompts=("", ""), height=16, width=16, num_steps=1, guidance_scale=1.0)
    outcome = Session(made.but(case=case)).judge(get_rule("FM801"))
    assert (outcome.status, outcome.findings) == ("passed", ())


def test_what_raises_inside_a_library_is_placed_there() -> None:
    (finding,) = check(load_subject("diffusers:LTXPipeline"), select=["FM701"]).findings
    assert "scheduling_flow_match_euler_discrete.py:" in finding.where


def test_further_arguments_are_passed_on_and_unknown_ones_refused() -> None:
    pipe = BUILDS["Lumina2Pipeline"]()
    assert subject(pipe, cfg_normalization=False).spec.guidance_norm == "none"
    with pytest.raises(DeclarationError, match="no argument 'cfg_normalisation'; did you mean"):
        subject(pipe, cfg_normalisation=False)


def test_rescaled_guidance_is_seen_in_the_rows() -> None:
    assert subject(BUILDS["LTXPipeline"](), guidance_rescale=0.7).spec.guidance_rescale == pytest.approx(0.7)


def test_what_is_no_pipeline_of_a_flow_is_refused() -> None:
    with pytest.raises(DeclarationError, match="expected a diffusers pipeline"):
        subject(object())
    with pytest.raises(DeclarationError, match="noise levels up to"):
        with_scheduler("SanaPipeline", diffusers.DPMSolverMultistepScheduler())


def test_an_unknown_build_is_refused_with_the_nearest() -> None:
    with pytest.raises(DeclarationError, match="did you mean 'FluxPipeline'"):
        load_subject("diffusers:FluxPipelin")


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DeclarationError, match=r"pip install 'fmcheck\[diffusers\]'"):
        load_subject("diffusers:SanaPipeline")
    assert "fmcheck" in sys.modules


@pytest.mark.parametrize("name", sorted(SCHEDULERS))
def test_a_scheduler_alone_makes_pictures(name: str) -> None:
    made = load_subject(f"diffusers:{name}")
    images = made.generate(made.build(made.case), Request(made.case, {}, torch.Generator().manual_seed(0)))
    assert images.shape == (3, 3, 64, 64)
    assert images.isfinite().all()


@pytest.mark.parametrize("code", ["FM303", "FM504"])
def test_a_grid_that_is_declared_wrongly_is_found(code: str) -> None:
    """Edges that are known for one number of steps allow few diagnoses, which must not hide the finding."""
    made = load_subject("diffusers:StableDiffusion3Pipeline")
    spec = replace(made.spec, grid="declared", grid_last_sigma=None)
    half = made.but(spec=spec, time_edges=lambda case: [0.5 * k / case.num_steps for k in range(case.num_steps)] + [1])
    assert check(half, select=[code]).failed()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["SanaPipeline", "StableDiffusion3Pipeline", "Lumina2Pipeline", "AuraFlowPipeline", "ZImagePipeline"]
)
def test_released_pipelines_are_clean(name: str) -> None:
    assert not check(load_subject(f"diffusers:{name}")).failed()
