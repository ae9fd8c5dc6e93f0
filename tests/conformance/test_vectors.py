"""Everything recorded from the published code, one test per recorded value.

`check.py` counts 146 of them; here they have names, and the folder forms are tried besides.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, DiffusionPipeline, SD3Transformer2DModel
from safetensors.torch import load_file
from torch import Tensor

from contentv.models import vae as autoencoder
from contentv.models.embeddings import Grid, SinCosPositions
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.pipelines.pipeline import ContentVPipeline

HERE = Path(__file__).parent
CHECKPOINT = HERE / "checkpoint"
VARIANTS = sorted((HERE / "model_index_variants").glob("*.json"))
INPUTS = ("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep")

META = json.loads((HERE / "meta.json").read_text())
GRADIENT_NORMS = json.loads((HERE / "grad_norms.json").read_text())
SCHEDULES = json.loads((HERE / "schedule.json").read_text())["steps"]
RUNS = [run for run in META["pipeline_runs"] if not run["name"].startswith("bf16")]
CASES = load_file(HERE / "transformer.safetensors")
VIDEO_CASE = load_file(HERE / "transformer_video_intermediates.safetensors")
POSITIONS = load_file(HERE / "pos_embed.safetensors")
TEXT = load_file(HERE / "text.safetensors")
PIPELINE = load_file(HERE / "pipeline.safetensors")
VAE = load_file(HERE / "vae.safetensors")
LORA = load_file(HERE / "lora" / "expected.safetensors")
GRADIENTS = [name for name in VIDEO_CASE if name.startswith("grad.param.")]


def assert_close(got: Tensor, expected: Tensor, tolerance: float) -> None:
    """`tolerance` is relative to the largest value expected."""
    assert got.shape == expected.shape
    error = (got.detach().double() - expected.double()).abs().max()
    assert error <= tolerance * expected.double().abs().max().clamp_min(1e-9)


def case_inputs(name: str) -> dict[str, Tensor]:
    return {key: CASES[f"{name}.{key}"] for key in INPUTS}


@pytest.fixture(scope="module")
def transformer() -> ContentVTransformer3DModel:
    return ContentVTransformer3DModel.from_pretrained(CHECKPOINT, subfolder="transformer").eval()


@pytest.fixture(scope="module")
def trained(transformer: ContentVTransformer3DModel) -> dict[str, Tensor]:
    """Loss of the recorded case and its gradients, by parameter name."""
    inputs = case_inputs("video")
    inputs["hidden_states"] = inputs["hidden_states"].clone().requires_grad_()
    velocity = transformer(**inputs, return_dict=False)[0]
    loss = torch.nn.functional.mse_loss(velocity, VIDEO_CASE["grad.target"])
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in transformer.named_parameters()}
    transformer.zero_grad(set_to_none=True)
    return {**gradients, "loss": loss.detach(), "input": inputs["hidden_states"].grad}


@pytest.fixture(scope="module")
def pipe() -> ContentVPipeline:
    loaded = ContentVPipeline.from_pretrained(CHECKPOINT)
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.mark.parametrize("case", META["transformer_cases"], ids=lambda case: case["name"])
def test_transformer(transformer: ContentVTransformer3DModel, case: dict[str, str]) -> None:
    with torch.no_grad():
        velocity = transformer(**case_inputs(case["name"])).sample
    stored = velocity if case["stored"] == "all" else velocity[:, :4]
    assert_close(stored, CASES[f"{case['name']}.output"], 1e-4)


def test_transformer_layer_by_layer(transformer: ContentVTransformer3DModel) -> None:
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_module: object, _inputs: object, output: Tensor | tuple[Tensor, Tensor]) -> None:
            if isinstance(output, tuple):
                seen[f"{name}.context"], seen[f"{name}.hidden"] = output
            else:
                seen[name] = output

        return hook

    blocks = transformer.transformer_blocks
    layers = {"context_embedder": transformer.context_embedder, "proj_out": transformer.proj_out}
    layers |= {"temb": transformer.time_text_embed}
    layers |= {f"block{index}": block for index, block in enumerate(blocks)}
    handles = [layer.register_forward_hook(keep(name)) for name, layer in layers.items()]
    with torch.no_grad():
        transformer(**case_inputs("video"))
    for handle in handles:
        handle.remove()
    tokens = transformer.pos_embed(CASES["video.hidden_states"])
    assert transformer.sincos is not None
    seen["pos_embed"] = transformer.sincos.add(tokens).flatten(1, 3)
    del seen["block2.context"]  # the published model has none: its last block returns None
    assert len(seen) == 9
    for name, value in seen.items():
        assert_close(value, VIDEO_CASE[name], 1e-4)


def test_loss(trained: dict[str, Tensor]) -> None:
    assert_close(trained["loss"].reshape(1), VIDEO_CASE["grad.loss"], 1e-4)


def test_gradient_of_the_input(trained: dict[str, Tensor]) -> None:
    assert_close(trained["input"], VIDEO_CASE["grad.hidden_states"], 1e-3)


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient(trained: dict[str, Tensor], name: str) -> None:
    assert_close(trained[name.removeprefix("grad.param.")], VIDEO_CASE[name], 1e-3)


@pytest.mark.parametrize(
    "name", [name for name, norm in GRADIENT_NORMS.items() if norm is not None]
)
def test_gradient_norm(trained: dict[str, Tensor], name: str) -> None:
    expected = torch.tensor([GRADIENT_NORMS[name]])
    assert_close(trained[name].norm().reshape(1), expected, 2e-3)


@pytest.mark.parametrize("steps", SCHEDULES)
def test_timesteps(pipe: ContentVPipeline, steps: str) -> None:
    pipe.scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, int(steps) + 1)[:-1])
    assert_close(pipe.scheduler.timesteps, torch.tensor(SCHEDULES[steps]["timesteps"]), 1e-6)


@pytest.mark.parametrize(("number", "length"), [(1, 77), (2, 77), (3, 256)])
def test_token_ids(pipe: ContentVPipeline, number: int, length: int) -> None:
    tokenizer = (pipe.tokenizer, pipe.tokenizer_2, pipe.tokenizer_3)[number - 1]
    tokens = tokenizer(
        META["text"]["prompt"],
        padding="max_length",
        max_length=length,
        truncation=True,
        return_tensors="pt",
    )
    assert torch.equal(tokens.input_ids, TEXT[f"ids_{number}"])


@pytest.mark.parametrize("length", [16, 256])
@pytest.mark.parametrize("which", range(4))
def test_prompt_embeddings(pipe: ContentVPipeline, length: int, which: int) -> None:
    names = ("prompt", "negative_prompt", "pooled_prompt", "negative_pooled_prompt")
    text = META["text"]
    embeds = pipe.encode_prompt(
        text["prompt"], negative_prompt=text["negative_prompt"], max_sequence_length=length
    )[which]
    expected = TEXT[f"len{length}.{names[which]}_embeds.stride"]
    assert_close(embeds[..., ::128] if embeds.ndim == 3 else embeds, expected, 1e-4)


def run_arguments(run: dict[str, Any]) -> dict[str, Any]:
    given = "main_cfg6_steps4.in."
    tensors = {
        name.removeprefix(given): t for name, t in PIPELINE.items() if name.startswith(given)
    }
    special = {
        "<tensor>": lambda name: tensors[name],
        "<generator seed 42>": lambda _: torch.Generator().manual_seed(42),
    }
    return {
        name: special[value](name) if isinstance(value, str) and value in special else value
        for name, value in run["args"].items()
    }


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run["name"])
def test_pipeline(pipe: ContentVPipeline, run: dict[str, Any]) -> None:
    latents = pipe(**run_arguments(run), output_type="latent").frames
    assert_close(latents, PIPELINE[f"{run['name']}.latents"], 1e-3)


def test_pipeline_step_by_step(pipe: ContentVPipeline) -> None:
    path: list[Tensor] = []

    def keep(
        _pipe: object, _step: int, _timestep: Tensor, tensors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        path.append(tensors["latents"])
        return tensors

    pipe(**run_arguments(RUNS[0]), output_type="latent", callback_on_step_end=keep)
    expected = PIPELINE[f"{RUNS[0]['name']}.trajectory"]
    kept_frames = expected.shape[3]
    assert_close(torch.stack(path)[:, :, :, :kept_frames], expected, 1e-3)


def test_pipeline_video(pipe: ContentVPipeline) -> None:
    video = pipe(**run_arguments(RUNS[0]), output_type="np").frames
    assert_close(torch.as_tensor(video), PIPELINE[f"{RUNS[0]['name']}.video_np"], 1e-3)


def test_pipeline_in_bfloat16() -> None:
    """Only near: rounding differs between machines."""
    run = next(run for run in META["pipeline_runs"] if run["name"].startswith("bf16"))
    pipe = ContentVPipeline.from_pretrained(CHECKPOINT, dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.vae.dtype == torch.float32
    latents = pipe(**run_arguments(run), output_type="latent").frames.float()
    expected = PIPELINE[f"{run['name']}.latents"].float()
    assert (latents - expected).norm() <= 0.1 * expected.norm()


def test_decoded_video(pipe: ContentVPipeline) -> None:
    latents = autoencoder.normalize(pipe.vae, VAE["decode.z"])
    with torch.no_grad():
        assert_close(autoencoder.decode(pipe.vae, latents), VAE["decode.video"], 1e-3)
        one = autoencoder.decode(pipe.vae, latents[:, :, :1])
    assert_close(one, VAE["decode.one_frame_video"], 1e-3)


def test_encoded_video(pipe: ContentVPipeline) -> None:
    with torch.no_grad():
        mean = autoencoder.encode(pipe.vae, VAE["encode.video"]).mean
    assert_close(mean, VAE["encode.mode"], 1e-3)
    normalised = autoencoder.normalize(pipe.vae, mean)
    assert_close(normalised, VAE["encode.mode_normalised"], 1e-3)


@pytest.mark.parametrize(("scale", "kwargs"), [("1", None), ("0.5", {"scale": 0.5})])
def test_lora(scale: str, kwargs: dict[str, float] | None) -> None:
    pipe = ContentVPipeline.from_pretrained(CHECKPOINT)
    before = pipe.transformer(**case_inputs("video")).sample
    pipe.load_lora_weights(HERE / "lora", weight_name="pytorch_lora_weights.safetensors")
    with torch.no_grad():
        velocity = pipe.transformer(**case_inputs("video"), joint_attention_kwargs=kwargs).sample
    assert_close(velocity, LORA[f"video.output_lora_scale_{scale}"], 1e-4)
    pipe.unload_lora_weights()
    assert torch.equal(pipe.transformer(**case_inputs("video")).sample, before)


@pytest.mark.parametrize("name", [name for name in POSITIONS if "real" not in name])
def test_position_table(name: str) -> None:
    *grid, dim = (int(part[1:]) for part in name.split("_"))
    assert_close(full_table(Grid(*grid), dim), POSITIONS[name], 1e-5)


def test_real_position_table() -> None:
    """Axis by axis: the whole table has 100 million entries."""
    grid, known = Grid(32, 27, 48), META["pos_embed_real"]
    num_tokens, dim = known["shape"]
    axes = SinCosPositions(dim).axes(grid, torch.float64, torch.device("cpu"))
    copies = [num_tokens // axis[..., 0].numel() for axis in axes]
    total = sum(n * float(axis.sum()) for n, axis in zip(copies, axes, strict=True))
    assert total == pytest.approx(known["sum"], rel=1e-9)
    squares = sum(n * float(axis.square().sum()) for n, axis in zip(copies, axes, strict=True))
    assert squares == pytest.approx(known["sumsq"], rel=1e-9)
    rows = POSITIONS["real_t32_h27_w48_d2432.rows"].long()
    t, y, x = rows // (27 * 48), rows // 48 % 27, rows % 48
    table = torch.cat([axes[0][t, 0, 0], axes[1][0, x], axes[2][y, 0]], dim=-1)
    assert_close(table, POSITIONS["real_t32_h27_w48_d2432.values"], 1e-5)


def full_table(grid: Grid, dim: int) -> Tensor:
    tokens = torch.zeros(1, *grid, dim, dtype=torch.float64)
    return SinCosPositions(dim).add(tokens).flatten(0, 3)


def test_names_and_shapes_of_the_8b_model() -> None:
    known = json.loads((HERE / "state_dict_8b.json").read_text())
    with torch.device("meta"):
        model = ContentVTransformer3DModel()
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert len(shapes) == known["number_of_tensors"]
    assert sum(p.numel() for p in model.parameters()) == known["number_of_parameters"]
    # The list names the first and the last block; those between are like the first.
    first = {name: shape for name, shape in known["tensors"].items() if ".0." in name}
    for block in range(1, 37):
        for name, shape in first.items():
            if name.startswith("transformer_blocks.0."):
                assert shapes[name.replace(".0.", f".{block}.", 1)] == shape
    assert {name: shapes[name] for name in known["tensors"]} == known["tensors"]


def copy_with_index(folder: Path, index: dict[str, Any]) -> Path:
    shutil.copytree(CHECKPOINT, folder)
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def short_run(pipe: DiffusionPipeline) -> Tensor:
    pipe.set_progress_bar_config(disable=True)
    run = next(run for run in RUNS if run["name"] == "no_cfg_steps2")
    latents: Tensor = pipe(**run_arguments(run), output_type="latent").frames
    return latents


EXPECTED_SHORT_RUN = PIPELINE["no_cfg_steps2.latents"]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda path: path.stem)
def test_every_form_of_the_index_loads(tmp_path: Path, variant: Path) -> None:
    folder = copy_with_index(tmp_path / "model", json.loads(variant.read_text()))
    pipe = ContentVPipeline.from_pretrained(folder)
    assert type(pipe.transformer) is ContentVTransformer3DModel
    assert_close(short_run(pipe), EXPECTED_SHORT_RUN, 1e-3)


@pytest.mark.parametrize("entry", [[None, None], "absent"], ids=["null", "absent"])
def test_index_without_transformer_loads(tmp_path: Path, entry: object) -> None:
    index = json.loads((CHECKPOINT / "model_index.json").read_text())
    del index["transformer"]
    if entry != "absent":
        index["transformer"] = entry
    pipe = ContentVPipeline.from_pretrained(copy_with_index(tmp_path / "model", index))
    assert_close(short_run(pipe), EXPECTED_SHORT_RUN, 1e-3)


def test_what_we_save_loads_again(tmp_path: Path, pipe: ContentVPipeline) -> None:
    pipe.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["_class_name"] == "ContentVPipeline"
    assert index["transformer"] == ["diffusers", "SD3Transformer2DModel"]
    assert index["tokenizer_3"] == ["transformers", "T5TokenizerFast"]
    assert_close(short_run(ContentVPipeline.from_pretrained(tmp_path)), EXPECTED_SHORT_RUN, 1e-3)


def test_what_we_save_diffusers_reads(tmp_path: Path, pipe: ContentVPipeline) -> None:
    pipe.save_pretrained(tmp_path)
    loaded = DiffusionPipeline.from_pretrained(tmp_path)
    assert type(loaded) is ContentVPipeline
    assert type(loaded.transformer) is ContentVTransformer3DModel
    assert_close(short_run(loaded), EXPECTED_SHORT_RUN, 1e-3)


def test_what_we_save_has_the_weights_of_a_plain_sd3_model(
    tmp_path: Path, pipe: ContentVPipeline
) -> None:
    """The published demo.py passes its own transformer, a subclass of diffusers' SD3 model."""
    pipe.save_pretrained(tmp_path)
    plain = SD3Transformer2DModel.from_pretrained(tmp_path, subfolder="transformer")
    ours = pipe.transformer.state_dict()
    theirs = {n: t for n, t in plain.state_dict().items() if n != "pos_embed.pos_embed"}
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in theirs.items())
    vae = AutoencoderKLWan.from_pretrained(tmp_path, subfolder="vae")
    assert vae.config.z_dim == 16


def test_the_script_that_came_with_the_vectors() -> None:
    classes = (
        "contentv.models.transformer:ContentVTransformer3DModel",
        "contentv.pipelines.pipeline:ContentVPipeline",
    )
    command = [sys.executable, str(HERE / "check.py"), *classes]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stdout.strip().splitlines()[-1] == "146 passed, 0 failed"
