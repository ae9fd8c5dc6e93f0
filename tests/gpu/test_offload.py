"""Offload on an accelerator: the same latents, and less of its memory.

Written without such a card at hand and not run yet.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from builders import build_random_pipeline, random_pipeline, random_transformer
from contentv.models.modulation import modulation_parts
from contentv.pipelines.memory.offloading import networks
from contentv.pipelines.pipeline import ContentVPipeline

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs an accelerator"),
]

MIB = 2**20


def wide_pipeline() -> ContentVPipeline:
    """A pipeline whose transformer, 12 blocks and 340 MB in float32, outweighs its activations."""
    pipe = random_pipeline()
    pipe.transformer = random_transformer(
        blocks=12, num_attention_heads=16, caption_projection_dim=512
    )
    return pipe


def make(pipe: ContentVPipeline, **settings: Any) -> Any:  # noqa: ANN401 - by `output_type`
    options = {
        "height": 32,
        "width": 32,
        "num_frames": 5,
        "num_inference_steps": 3,
        "generator": torch.Generator().manual_seed(0),
        "output_type": "latent",
    }
    frames = pipe("a red circle moves left", **{**options, **settings}).frames
    return frames.cpu() if isinstance(frames, Tensor) else frames


def peak(pipe: ContentVPipeline) -> int:
    """Bytes of the accelerator in use at most, in the second call: hooks know the order then."""
    make(pipe)
    torch.accelerator.empty_cache()
    torch.accelerator.reset_peak_memory_stats()
    make(pipe)
    return torch.accelerator.max_memory_allocated()


def device() -> torch.device:
    found = torch.accelerator.current_accelerator()
    assert found is not None
    return found


ENABLE: dict[str, Callable[[ContentVPipeline], object]] = {
    "model": lambda pipe: pipe.enable_model_cpu_offload(),
    "sequential": lambda pipe: pipe.enable_sequential_cpu_offload(),
    "group": lambda pipe: pipe.enable_group_offload(),
    "leaves": lambda pipe: pipe.enable_group_offload(offload_type="leaf_level"),
    "no stream": lambda pipe: pipe.enable_group_offload(use_stream=False),
    "modulation": lambda pipe: (pipe.enable_precomputed_modulation(), pipe.to(device())),
    "model, modulation": lambda pipe: (
        pipe.enable_precomputed_modulation(),
        pipe.enable_model_cpu_offload(),
    ),
    "group, modulation": lambda pipe: (
        pipe.enable_precomputed_modulation(),
        pipe.enable_group_offload(),
    ),
}


@pytest.mark.parametrize("mode", ENABLE)
def test_latents_and_frames_are_those_of_a_resident_pipeline(mode: str) -> None:
    plain = random_pipeline().to(device())
    pipe = random_pipeline()
    ENABLE[mode](pipe)
    for _ in range(3):  # with streams, the first call learns the order
        torch.testing.assert_close(make(pipe), make(plain), atol=1e-5, rtol=1e-5)
    ours, theirs = (torch.from_numpy(make(p, output_type="np")) for p in (pipe, plain))
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("mode", ["group", "model, modulation", "modulation"])
def test_frames_and_tiles_are_decoded(mode: str) -> None:
    latents = torch.randn(1, 16, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    for tiled in (False, True):
        pipes = [random_pipeline(), random_pipeline().to(device())]
        ENABLE[mode](pipes[0])
        for pipe in pipes:
            if tiled:
                pipe.vae.enable_tiling()
        ours, theirs = (torch.from_numpy(np.stack(list(pipe.stream(latents)))) for pipe in pipes)
        assert (ours.int() - theirs.int()).abs().max() <= 1


def test_streaming_holds_two_blocks() -> None:
    """And the ends of the model; blocks must not pile up when copies are faster than computing."""
    pipe = wide_pipeline()
    block = sum(p.nbytes for p in pipe.transformer.transformer_blocks[0].parameters())
    whole = sum(p.nbytes for p in pipe.transformer.parameters())
    ends = whole - 12 * block
    pipe.enable_group_offload()
    assert peak(pipe) <= ends + 2 * block + 40 * MIB < whole


def test_model_offload_holds_one_part_and_no_modulation() -> None:
    pipe = wide_pipeline()
    whole = sum(p.nbytes for p in pipe.transformer.parameters())
    away = sum(p.nbytes for m in modulation_parts(pipe.transformer) for p in m.parameters())
    pipe.enable_model_cpu_offload()
    resident = peak(pipe)
    pipe.enable_precomputed_modulation()
    assert resident - peak(pipe) >= 0.9 * away
    assert resident <= whole + 40 * MIB


def test_after_a_call_and_after_a_failure_nothing_is_left() -> None:
    def fail(*_: object) -> dict[str, Any]:
        raise ZeroDivisionError

    for mode in ("model", "group"):
        pipe = random_pipeline()
        ENABLE[mode](pipe)
        make(pipe)
        with pytest.raises(ZeroDivisionError):
            make(pipe, callback_on_step_end=fail)
        for network in networks(pipe).values():
            assert {p.device.type for p in network.parameters()} == {"cpu"}


@pytest.mark.parametrize("mode", ["none", "model", "group"])
def test_parts_from_disk(tmp_path: Path, mode: str) -> None:
    folder = build_random_pipeline(tmp_path / "model")
    plain = ContentVPipeline.from_pretrained(folder).to(device())
    pipe = ContentVPipeline.from_pretrained(folder, lazy=True, release=True)
    pipe.to(device()) if mode == "none" else ENABLE[mode](pipe)
    for _ in range(2):
        torch.testing.assert_close(make(pipe), make(plain), atol=1e-5, rtol=1e-5)
    assert all(p.is_meta for p in pipe.transformer.parameters())
