from pathlib import Path

import pytest
import torch

from builders import build_random_pipeline, random_pipeline
from contentv.base.device import pick_device
from contentv.base.errors import UserError
from contentv.pipelines.memory.fitting import card_memory, place
from contentv.pipelines.memory.modes import EXACT, Mode
from contentv.pipelines.pipeline import ContentVPipeline

CPU = torch.device("cpu")
WITHOUT_A_CARD = pytest.mark.skipif(pick_device() != CPU, reason="this machine has a card")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_pipeline(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def usual() -> torch.Tensor:
    return latents(random_pipeline())


def latents(pipe: ContentVPipeline) -> torch.Tensor:
    found = pipe(
        "a red circle moves left",
        num_frames=5,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    ).frames
    assert isinstance(found, torch.Tensor)
    return found


@pytest.mark.parametrize("mode", EXACT, ids=str)
def test_modes_are_what_they_say(mode: Mode) -> None:
    pipe = random_pipeline()
    place(pipe, mode, chunk=7 if mode.chunked else None, device=CPU)
    assert pipe.offload_kind == mode.offload
    chunks = {block.chunk_size for block in pipe.transformer.transformer_blocks}
    assert chunks == {7 if mode.chunked else None}
    assert not pipe.vae.use_tiling


# accelerate cannot bring single layers from the CPU to the CPU.
@pytest.mark.parametrize("mode", [mode for mode in EXACT if mode.offload != "sequential"], ids=str)
def test_exact_modes_give_the_same_latents(mode: Mode, usual: torch.Tensor) -> None:
    pipe = random_pipeline()
    place(pipe, mode, chunk=7 if mode.chunked else None, device=CPU)
    difference = (latents(pipe) - usual).norm() / usual.norm()
    assert difference <= 1e-5


def test_parts_from_disk_give_the_same_latents(folder: Path, usual: torch.Tensor) -> None:
    pipe = ContentVPipeline.from_pretrained(folder, lazy=True, release=True)
    pipe.set_progress_bar_config(disable=True)
    place(pipe, Mode("model", modulation=True, chunked=True, lazy=True), chunk=7, device=CPU)
    assert (latents(pipe) - usual).norm() <= 1e-5 * usual.norm()


def test_one_mode_after_another(usual: torch.Tensor) -> None:
    """What an earlier mode switched on is off in a later one."""
    pipe = random_pipeline()
    place(pipe, Mode("group", chunked=True, decoding="tiles"), chunk=7, device=CPU)
    place(pipe, Mode("model", modulation=True), chunk=None, device=CPU)
    assert pipe.offload_kind == "model"
    assert not pipe.vae.use_tiling
    assert pipe.transformer.transformer_blocks[0].chunk_size is None
    place(pipe, Mode(), chunk=None, device=CPU)
    assert pipe.offload_kind == "none"
    assert torch.equal(latents(pipe), usual)


def test_tiles_are_switched_on() -> None:
    pipe = random_pipeline()
    place(pipe, Mode(decoding="tiles"), chunk=None, device=CPU)
    assert pipe.vae.use_tiling


@WITHOUT_A_CARD
def test_without_a_card_main_memory_is_planned_for(usual: torch.Tensor) -> None:
    pipe = random_pipeline()
    plan = pipe.fit(vram_gb=8)
    assert "no card here" in str(plan)
    assert plan.mode == Mode()
    assert pipe.offload_kind == "none"
    assert torch.equal(latents(pipe), usual)


@WITHOUT_A_CARD
def test_what_fits_depends_on_the_video() -> None:
    pipe = random_pipeline()
    small, large = pipe.fit(8, host_gb=4), pipe.fit(8, host_gb=4, height=512, width=512)
    assert small.mode == Mode()
    assert large.prediction.alone > small.prediction.alone
    tight = large.prediction.alone / 2**30 - 0.01
    assert pipe.fit(8, host_gb=tight, height=512, width=512).mode.decoding == "bfloat16"
    assert pipe.vae.dtype == torch.bfloat16


@WITHOUT_A_CARD
def test_too_little_memory_changes_nothing(folder: Path) -> None:
    pipe = random_pipeline()
    with pytest.raises(UserError, match=r"host=0\.5: the least that works is .*lazy=True"):
        pipe.fit(8, host_gb=0.5)
    with pytest.raises(UserError, match="height=100: must be a positive multiple of 16"):
        pipe.fit(8, height=100)
    with pytest.raises(UserError, match="vram=0: must be"):
        pipe.fit(0)
    assert pipe.transformer.transformer_blocks[0].chunk_size is None
    lazy = ContentVPipeline.from_pretrained(folder, lazy=True, release=True)
    with pytest.raises(UserError, match="quantization=int8"):
        lazy.fit(8, host_gb=0.5)


def test_a_cpu_is_no_card() -> None:
    assert card_memory(CPU) is None
