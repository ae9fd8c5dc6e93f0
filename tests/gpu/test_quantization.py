"""Kinds of weights that compute on graphics cards only: near, the same after loading, offloaded.

Written without such a card at hand and not run yet.
"""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from builders import build_random_pipeline
from contentv.base.device import pick_device
from contentv.lowbit.libraries import predicted_bytes, stored_bytes
from contentv.pipelines.memory.quantizing import TRANSFORMER_LAYERS
from contentv.pipelines.pipeline import ContentVPipeline

pytest.importorskip("torchao")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator"),
]

SMALL = {"height": 64, "width": 64, "num_frames": 17, "num_inference_steps": 2}
LARGEST_ERRORS = {"int8": 0.02, "int8-dynamic": 0.03, "fp8": 0.1, "int4": 0.3, "nf4": 0.3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_pipeline(tmp_path_factory.mktemp("model") / "float")


def load(folder: Path, **options: object) -> ContentVPipeline:
    pipe = ContentVPipeline.from_pretrained(folder, dtype=torch.bfloat16, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latents(pipe: ContentVPipeline) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    settings = {**SMALL, "output_type": "latent"}
    return pipe("a red circle moves left", generator=rng, **settings).frames.float().cpu()


@pytest.mark.parametrize("kind", LARGEST_ERRORS)
def test_near_and_the_same_after_saving(folder: Path, tmp_path: Path, kind: str) -> None:
    pipe = load(folder).to(pick_device())
    exact = latents(pipe)
    weights = [layer.weight for _, layer in TRANSFORMER_LAYERS.chosen(pipe.transformer)]
    predicted = stored_bytes(pipe.transformer) - sum(weight.nbytes for weight in weights)
    predicted += sum(predicted_bytes(kind, *weight.shape) for weight in weights)
    report = pipe.enable_model_quantization(kind)
    assert report.parts[0].bytes_after == pytest.approx(predicted, rel=0.01)
    rounded = latents(pipe)
    assert 0 < (rounded - exact).norm() / exact.norm() < LARGEST_ERRORS[kind]
    pipe.save_pretrained(tmp_path / "low")
    again = load(tmp_path / "low").to(pick_device())
    assert torch.equal(latents(again), rounded)


@pytest.mark.parametrize("kind", LARGEST_ERRORS)
def test_at_load_as_after_load(folder: Path, kind: str) -> None:
    after = load(folder)  # on the CPU: layers visit the device, where their kernels are
    after.enable_model_quantization(kind)
    at = load(folder, quantization=kind)
    assert torch.equal(latents(after.to(pick_device())), latents(at.to(pick_device())))


@pytest.mark.parametrize("kind", LARGEST_ERRORS)
def test_quantized_then_offloaded(folder: Path, kind: str) -> None:
    pipe = load(folder, quantization=kind)
    resident = latents(pipe.to(pick_device()))
    pipe.to("cpu")
    pipe.enable_model_cpu_offload(device=pick_device())
    assert torch.equal(latents(pipe), resident)


@pytest.mark.parametrize("kind", ["int8", "int8-dynamic", "int4", "fp8"])
def test_quantized_then_streamed(folder: Path, kind: str) -> None:
    pipe = load(folder, quantization=kind)
    resident = latents(pipe.to(pick_device()))
    pipe.to("cpu")
    pipe.enable_group_offload(onload_device=pick_device(), use_stream=True)
    assert torch.equal(latents(pipe), resident)
