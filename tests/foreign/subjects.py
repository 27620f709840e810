"""One hand-written `Subject` for each foreign pipeline, with nothing but what the README documents.

The first statement of a name says how its sampler is run and watched; the second one (`.but`) adds what the pipeline
offers besides: its entry, its encoder, its training loss. `lines_of` counts both for the README.
"""

import ast
from dataclasses import replace
from pathlib import Path

from fmcheck import Case, FlowSpec, Point, Subject
from tests.foreign.pipelines import p01_crossflow as p01
from tests.foreign.pipelines import p02_sd3 as p02
from tests.foreign.pipelines import p03_flux as p03
from tests.foreign.pipelines import p04_functional as p04
from tests.foreign.pipelines import p05_data as p05
from tests.foreign.pipelines import p06_noise as p06
from tests.foreign.pipelines import p07_sampler_object as p07
from tests.foreign.pipelines import p08_tokens as p08
from tests.foreign.pipelines import p09_interval as p09
from tests.foreign.pipelines import p10_video as p10
from tests.foreign.pipelines import p11_wrapped as p11
from tests.foreign.pipelines import p12_lists as p12

# What nearly every model but CrossFlow does; a user of one model writes these into its spec.
NOISE = FlowSpec(initial_state="noise", grid="uniform", evaluation_point="left", latent_channels=4, downsampling=8)
UNCOND = replace(NOISE, guidance_formula="uncond_plus", guidance_layout="uncond_first", guidance_from=1.0)
SMALL = Case(height=64, width=96)

crossflow = Subject(
    build=lambda case: p01.make_crossflow(device=case.device, dtype=case.torch_dtype),
    tokenize=lambda model, prompts: dict(zip(("ids", "mask"), p01.encode_prompts(prompts), strict=True)),
    generate=lambda model, r: model.text_to_image(**r.inputs, **r.keywords(steps="num_steps", w="guidance_scale")),
    velocity="backbone",
    text="text",
    sample="codec.to_latent",
    decode="codec.decode",
    spec=FlowSpec(latent_channels=4, downsampling=8, sigma_min=1e-5, latent_scale=0.41, latent_shift=0.15),
)
crossflow = crossflow.but(
    name="crossflow",
    case=SMALL,
    entry="text_to_image",
    encode="codec.encode",
    loss=lambda model, r: model.training_loss(**r.inputs, images=r.images, generator=r.generator),
    loss_entry="training_loss",
)

sd3 = Subject(
    name="sd3",
    build=lambda case: p02.load_pipeline(case.torch_dtype, case.device),
    generate=lambda m, r: m(r.prompts, r.height, r.width, r.num_steps, r.guidance_scale, generator=r.generator).images,
    velocity=Point("transformer", arguments={"x": "hidden_states", "time": "timestep", "null": None}),
    text="text_encoder",
    decode="vae.decode",
    spec=replace(
        replace(UNCOND, prediction="reverse_velocity", time_argument="timestep", latent_scale=1.5, latent_shift=0.06),
        grid="shifted",
        grid_shift=3.0,
        grid_last_sigma=0.001,
        latent_channels=8,
    ),
)
sd3 = sd3.but(
    case=SMALL,
    encode="vae.encode",
    loss=lambda model, r: p02.train_step(model, r.prompts, r.images, r.generator),
    loss_entry="tests.foreign.pipelines.p02_sd3:train_step",
)

flux = Subject(
    name="flux",
    build=lambda case: p03.load(device=case.device, dtype=case.torch_dtype),
    generate=lambda m, r: p03.generate(m, r.prompts, r.width, r.height, r.num_steps, r.guidance_scale, r.generator),
    velocity=Point("flow", arguments={"x": "img", "time": "timesteps", "null": None}),
    text="t5",
    decode="ae.decode",
    encode="ae.encode",
    spec=replace(
        replace(
            NOISE, time_argument="sigma", prediction="reverse_velocity", guidance_layout="embedded", grid="shifted"
        ),
        grid_shift_by_tokens=(16, 0.5, 256, 1.15),
        size_multiple=16,
        token_patch=2,
        latent_scale=0.36,
        latent_shift=0.11,
    ),
)
flux = flux.but(case=SMALL, entry="tests.foreign.pipelines.p03_flux:generate")

functional = Subject(
    name="functional",
    build=lambda case: p04.build_bundle(where=case.device),
    generate=lambda m, r: p04.txt2img(
        m, r.prompts, shape=(r.height, r.width), n_steps=r.num_steps, cfg=r.guidance_scale, seed_gen=r.generator
    ),
    velocity=Point("field", arguments={"null": None}),
    text="prompt_net",
    decode=Point("tests.foreign.pipelines.p04_functional:to_pixels", arguments={"x": 1}),
    spec=replace(
        UNCOND, guidance_layout="separate", guidance_from=None, solver="heun", time_argument="t", latent_channels=6
    ),
)
functional = functional.but(
    case=SMALL,
    spec=replace(functional.spec, time_distribution="uniform"),
    entry="tests.foreign.pipelines.p04_functional:txt2img",
    encode=Point("tests.foreign.pipelines.p04_functional:to_latent", arguments={"x": 1}),
    loss=lambda model, r: p04.flow_loss(model, r.prompts, r.images, r.generator),
    loss_entry="tests.foreign.pipelines.p04_functional:flow_loss",
)

data = Subject(
    name="data",
    build=lambda case: p05.new_painter(case.device, case.torch_dtype),
    tokenize=lambda m, prompts: dict(zip(("codes", "keep"), m.codes(prompts), strict=True)),
    generate=lambda m, r: m.paint(*r.inputs.values(), (r.height, r.width), r.num_steps, r.guidance_scale, r.generator),
    velocity=Point("net", arguments={"null": 3}),
    text="text",
    sample="finish",
    decode="render",
    spec=replace(
        replace(UNCOND, guidance_layout="cond_first", guidance_from=None, prediction="x1", solver="midpoint"),
        time_argument="t",
        latent_scale=0.8,
        latent_shift=-0.2,
    ),
)
data = data.but(
    case=SMALL,
    spec=replace(data.spec, time_distribution="uniform"),
    entry="paint",
    encode="compress",
    loss=lambda model, r: model.objective(*r.inputs.values(), r.images, r.generator),
    loss_entry="objective",
)

noise = Subject(
    name="noise",
    build=lambda case: p06.instantiate({"dtype": case.torch_dtype, "device": case.device}),
    generate=lambda m, r: p06.run_sampler(m, r.prompts, r.height, r.width, r.num_steps, r.guidance_scale, r.generator)[
        "samples"
    ],
    velocity=Point("eps_model", arguments={"null": None}, output="eps"),
    decode="decode_first_stage",
    time_edges=lambda case: [(k / case.num_steps) ** 1.5 for k in range(case.num_steps + 1)],
    spec=replace(
        replace(UNCOND, guidance_layout="separate_uncond_first", guidance_from=None, time_argument="sigma"),
        prediction="noise",
        grid="declared",
        evaluation_point="midpoint",
        latent_scale=0.13,
        unscale_before_decode=False,
    ),
)
noise = noise.but(
    case=SMALL,
    text=Point("cond_stage", arguments={"input_ids": None, "attention_mask": None}),
    entry="tests.foreign.pipelines.p06_noise:run_sampler",
)

sampler_object = Subject(
    name="sampler_object",
    build=lambda case: p07.create(dtype=case.torch_dtype, device=case.device),
    tokenize=lambda model, prompts: p07.tokenise(prompts),
    generate=lambda model, r: p07.Sampler(model, r.num_steps, r.guidance_scale)(
        **r.inputs, height=r.height, width=r.width, generator=r.generator
    ),
    velocity="velocity",
    text="text_encoder",
    decode="ae.decode",
    dtypes=("bfloat16", "float32"),
    spec=replace(
        replace(UNCOND, evaluation_point="midpoint", time_argument="timestep", downsampling=16),
        latent_scale=0.7,
        latent_shift=0.3,
    ),
)
sampler_object = sampler_object.but(
    case=replace(SMALL, dtype="bfloat16"),
    spec=replace(sampler_object.spec, time_distribution="uniform", null_probability=0.15),
    encode="ae.encode",
    loss=lambda model, r: model.loss(**r.inputs, images=r.images, generator=r.generator),
    loss_entry="loss",
)

tokens = Subject(
    name="tokens",
    build=lambda case: p08.TokenFlow(case.device, case.torch_dtype),
    tokenize=lambda model, prompts: dict(zip(("ids", "mask"), model.tokenize(prompts), strict=True)),
    generate=lambda model, r: (
        model.imagine(
            **r.inputs,
            resolution=(r.height, r.width),
            iterations=r.num_steps,
            strength=r.guidance_scale,
            random=r.generator,
        ).pictures
    ),
    velocity=Point("dit", arguments={"null": None}),
    text="prompts",
    sample="fold",
    decode="paint",
    encode="read",
    spec=replace(
        replace(UNCOND, guidance_layout="cond_first", guidance_rescale=0.7, token_patch=1, latent_channels=8),
        time_argument="sigma",
        prediction="reverse_velocity",
        latent_scale=0.9,
        latent_shift=0.05,
    ),
)
tokens = tokens.but(
    case=SMALL,
    spec=replace(tokens.spec, time_distribution="uniform"),
    entry="imagine",
    loss=lambda model, r: model.study(**r.inputs, pictures=r.images, random=r.generator),
    loss_entry="study",
)

interval = Subject(
    name="interval",
    build=lambda case: p09.get_model(on=case.device, precision=case.torch_dtype),
    tokenize=lambda model, prompts: model.prepare(prompts),
    generate=lambda model, r: model.generate(
        r.inputs, r.height, r.width, r.num_steps, r.guidance_scale, noise_source=r.generator
    ),
    velocity=Point("unet", arguments={"null": None}),
    text="tower",
    sample="vae.unscale",
    decode="vae",
    spec=replace(
        NOISE, guidance_layout="separate", guidance_interval=(0.17, 0.83), time_argument="sigma", latent_scale=0.5
    ),
)
interval = interval.but(case=SMALL, entry="generate")

video = Subject(
    name="video",
    build=lambda case: p10.video_pipe(case.device, case.torch_dtype),
    generate=lambda model, r: model.text2image(
        r.prompts, "", r.height, r.width, r.num_steps, r.guidance_scale, r.generator
    )["images"],
    velocity=Point("transformer", arguments={"null": None}),
    text=Point("text_encoder", output="hidden_states"),
    decode="vae.decode",
    spec=replace(
        replace(UNCOND, guidance_layout="separate", prediction="reverse_velocity", time_argument="timestep"),
        grid="shifted",
        grid_shift=2.5,
        grid_terminal=0.02,
        latent_channels=6,
        latent_frames=1,
        latent_scale=tuple(1 / s for s in p10.STD),
        latent_shift=p10.MEAN,
    ),
)
video = video.but(
    case=SMALL,
    entry="text2image",
    encode="vae.encode",
    loss=lambda model, r: model.loss(r.prompts, r.images, r.generator),
    loss_entry="loss",
)

wrapped = Subject(
    name="wrapped",
    build=lambda case: p11.assemble(device=case.device, dtype=case.torch_dtype),
    generate=lambda m, r: p11.make_images(
        m, r.prompts, (r.height, r.width), r.num_steps, r.guidance_scale, r.generator
    )[0],
    velocity=Point("velocity", arguments={"null": None}),
    text="words",
    decode="paint",
    spec=replace(
        replace(UNCOND, guidance_from=None, time_argument="t", latent_channels=5, latent_scale=1.2, grid="shifted"),
        grid_shift=2.0,
        image_range=(0.0, 1.0),
        decode_range=(-1.0, 1.0),
    ),
)
wrapped = wrapped.but(case=SMALL, entry="tests.foreign.pipelines.p11_wrapped:make_images")

lists = Subject(
    name="lists",
    build=lambda case: p12.ListPipeline.from_seed(12, case.torch_dtype, case.device),
    generate=lambda m, r: m(r.prompts, r.height, r.width, r.num_steps, r.guidance_scale, r.generator),
    velocity=Point("transformer", arguments={"null": None}),
    decode="decoder",
    spec=replace(
        replace(UNCOND, guidance_layout="cond_first", guidance_norm="row", time_argument="t"),
        prediction="reverse_velocity",
        latent_scale=0.6,
        latent_shift=-0.1,
    ),
)
lists = lists.but(case=SMALL, text=Point("text_model", arguments={"input_ids": None, "attention_mask": None}))

SUBJECTS: dict[str, Subject] = {
    subject.name: subject
    for subject in (
        *(crossflow, sd3, flux, functional, data, noise),
        *(sampler_object, tokens, interval, video, wrapped, lists),
    )
}


def lines_of(name: str, *, everything: bool = False) -> int:
    """Source lines of a subject's first statement, or of all its statements, as `ruff format` leaves them.

    Imports and the three constants at the top, which the subjects share, are not counted.
    """
    statements = [
        node
        for node in ast.parse(Path(__file__).read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name
    ]
    counts = [(node.end_lineno or node.lineno) - node.lineno + 1 for node in statements]
    return sum(counts) if everything else counts[0]
