"""Parts read from disk when they are needed: the same videos, and one act's parts at a time."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import T5Config, T5EncoderModel

from builders import build_random_pipeline, make_clip, random_pipeline, random_transformer
from contentv.base.errors import ModelFilesError, UserError
from contentv.pipelines.memory.disk import ACTS, DiskPart, transplant
from contentv.pipelines.memory.offloading import networks
from contentv.pipelines.pipeline import ContentVPipeline

CPU = torch.device("cpu")
WEIGHTS = "diffusion_pytorch_model.safetensors"
ENCODERS = ACTS["text"]
NAMES = {"transformer", "vae", *ENCODERS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_pipeline(tmp_path_factory.mktemp("model") / "tiny")


def open_lazily(folder: Path, **options: Any) -> ContentVPipeline:  # noqa: ANN401
    pipe = ContentVPipeline.from_pretrained(folder, lazy=True, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def expected(folder: Path) -> np.ndarray:
    pipe = ContentVPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return make_clip(pipe)


def present(pipe: ContentVPipeline) -> set[str]:
    """Networks with weights in memory, by looking at them."""
    return {
        name
        for name, network in networks(pipe).items()
        if not all(p.is_meta for p in network.parameters())
    }


class Reads:
    """Counts how often each network is read."""

    def __init__(self, pipe: ContentVPipeline) -> None:
        self.names: list[str] = []
        for name in pipe._parts:
            pipe._when_present(name, lambda _network, name=name: self.names.append(name))


def test_nothing_is_in_memory_before_it_is_needed(folder: Path) -> None:
    pipe = open_lazily(folder)
    assert pipe.is_lazy
    assert set(networks(pipe)) == NAMES
    assert present(pipe) == set()
    assert pipe.transformer.config.num_layers == 2
    make_clip(pipe, output_type="latent")
    assert present(pipe) == {"transformer", *ENCODERS}
    make_clip(pipe)
    assert present(pipe) == NAMES


@pytest.mark.parametrize("options", [{}, {"release": True}])
def test_videos_are_the_same_bit_by_bit(
    folder: Path, expected: np.ndarray, options: dict[str, bool]
) -> None:
    pipe = open_lazily(folder, **options)
    reads = Reads(pipe)
    for _ in range(2):
        np.testing.assert_array_equal(make_clip(pipe), expected)
    if options:
        # The second time, prompts come from the cache.
        assert sorted(reads.names) == sorted([*ENCODERS, *["transformer", "vae"] * 2])
        make_clip(pipe, prompt="a blue square")
        assert reads.names.count("text_encoder_3") == 2
    else:
        assert sorted(reads.names) == sorted(NAMES)


def test_one_act_s_parts_are_in_memory_at_a_time(folder: Path) -> None:
    pipe = open_lazily(folder, release=True)
    seen: list[tuple[str, set[str]]] = []
    for name in NAMES:
        pipe._when_present(name, lambda _network, name=name: seen.append((name, present(pipe))))

    def step(pipe: ContentVPipeline, *_: object) -> dict[str, Any]:
        assert present(pipe) == {"transformer"}
        return {}

    make_clip(pipe, callback_on_step_end=step)
    for name, there in seen:
        act = next(act for act, needed in ACTS.items() if name in needed)
        assert there <= ACTS[act]
    assert [name for name, _ in seen][-2:] == ["transformer", "vae"]
    assert present(pipe) == set()


def test_parts_come_when_they_are_called_by_themselves(folder: Path) -> None:
    pipe = open_lazily(folder)
    eager = ContentVPipeline.from_pretrained(folder)
    ours, theirs = (p.encode_prompt("a red circle") for p in (pipe, eager))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert present(pipe) == ENCODERS
    video = torch.rand(1, 3, 5, 32, 32)
    with torch.no_grad():
        ours, theirs = (p.vae.encode(video).latent_dist.mean for p in (pipe, eager))
    assert torch.equal(ours, theirs)


def test_what_is_switched_on_stays_as_weights_come_and_go(folder: Path) -> None:
    pipe = open_lazily(folder, release=True)
    eager = ContentVPipeline.from_pretrained(folder)
    eager.set_progress_bar_config(disable=True)
    for each in (pipe, eager):
        each.transformer.enable_forward_chunking(3)
        each.vae.enable_tiling()
        each.enable_precomputed_modulation()
    for _ in range(2):
        np.testing.assert_array_equal(make_clip(pipe), make_clip(eager))
    assert pipe.transformer.transformer_blocks[0].chunk_size == 3


@pytest.mark.parametrize("release", [False, True])
@pytest.mark.parametrize("kind", ["model", "group"])
def test_offload_of_parts_that_come_from_disk(
    folder: Path, expected: np.ndarray, kind: str, release: bool
) -> None:
    pipe = open_lazily(folder, release=release)
    if kind == "model":
        pipe.enable_model_cpu_offload(device=CPU)
    else:
        pipe.enable_group_offload(CPU)
    for _ in range(2):
        np.testing.assert_array_equal(make_clip(pipe), expected)
    if not release:
        assert pipe.offload_kind == kind
    pipe.disable_offload()
    np.testing.assert_array_equal(make_clip(pipe), expected)


def test_quantized_as_it_is_read(folder: Path) -> None:
    pytest.importorskip("torchao")
    eager = ContentVPipeline.from_pretrained(folder, quantization="int8")
    eager.set_progress_bar_config(disable=True)
    wanted = make_clip(eager)
    early = open_lazily(folder, release=True, quantization="int8")
    late = open_lazily(folder, release=True)
    late.enable_model_quantization("int8")
    for pipe in (early, late):
        reads = Reads(pipe)
        for _ in range(2):
            np.testing.assert_array_equal(make_clip(pipe), wanted)
        assert reads.names.count("text_encoder_3") == 1


def test_quantizing_names_parts_that_are_read(folder: Path) -> None:
    pytest.importorskip("torchao")
    with pytest.raises(UserError, match="components: vae"):
        open_lazily(folder).enable_model_quantization("int8", ["vae"])


def test_a_device_chosen_while_offload_is_on(folder: Path) -> None:
    pipe = open_lazily(folder)
    pipe.enable_model_cpu_offload(device=CPU)
    with pytest.raises(UserError, match=r"pipe\.disable_offload\(\) first"):
        pipe.to("cpu")
    pipe.disable_offload()
    assert pipe.to("cpu")._execution_device == CPU


def test_saved_again_it_is_the_same_folder(folder: Path, tmp_path: Path) -> None:
    pipe = open_lazily(folder, release=True)
    make_clip(pipe)
    pipe.save_pretrained(tmp_path / "again")
    assert present(pipe) == set()
    for file in folder.rglob("*.safetensors"):
        assert (tmp_path / "again" / file.relative_to(folder)).read_bytes() == file.read_bytes()


def test_number_formats(folder: Path) -> None:
    pipe = open_lazily(folder, dtype=torch.bfloat16)
    assert (pipe.transformer.dtype, pipe.vae.dtype) == (torch.bfloat16, torch.float32)
    make_clip(pipe)
    assert (pipe.transformer.dtype, pipe.vae.dtype) == (torch.bfloat16, torch.float32)
    with pytest.raises(UserError, match="from_pretrained"):
        pipe.to(torch.float32)


def test_parts_may_be_given_or_left_out(folder: Path, expected: np.ndarray) -> None:
    eager = ContentVPipeline.from_pretrained(folder)
    pipe = open_lazily(folder, vae=eager.vae, release=True)
    assert present(pipe) == {"vae"}
    np.testing.assert_array_equal(make_clip(pipe), expected)
    assert present(pipe) == {"vae"}
    absent = dict.fromkeys([*ENCODERS, "tokenizer", "tokenizer_2", "tokenizer_3"])
    assert open_lazily(folder, **absent)._parts.keys() == {"transformer", "vae"}


# --- refused, before any work ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["transformer", "vae"])
def test_a_cut_file_is_noticed_at_once(folder: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "cut"))
    file = copy / name / WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelFilesError, match="safetensors"):
        open_lazily(copy)


def test_a_file_that_went_away_is_a_world_error(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    pipe = open_lazily(copy)
    (copy / "transformer" / WEIGHTS).unlink()
    with pytest.raises(ModelFilesError, match="transformer: cannot be read"):
        make_clip(pipe)


@pytest.mark.parametrize("option", [{"device_map": "balanced"}, {"quantization_config": object()}])
def test_options_that_contradict_laziness(folder: Path, option: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="not with lazy=True"):
        open_lazily(folder, **option)


def test_release_needs_laziness(folder: Path) -> None:
    with pytest.raises(UserError, match="add lazy=True"):
        ContentVPipeline.from_pretrained(folder, release=True)


def test_lora_and_sequential_offload_are_refused(folder: Path, tmp_path: Path) -> None:
    pipe = open_lazily(folder)
    with pytest.raises(UserError, match="load without lazy=True"):
        pipe.load_lora_weights(tmp_path)
    with pytest.raises(UserError, match="leaf_level"):
        pipe.enable_sequential_cpu_offload(device=CPU)


# --- weights ----------------------------------------------------------------------------------


def test_transplanted_weights_are_shared_tied_and_unwritten() -> None:
    def build() -> nn.Module:
        model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False))
        model[1].weight = model[0].weight
        return model

    source = build()
    with torch.no_grad():
        source[0].weight.add_(1)
    with torch.device("meta"):
        target = build()
    transplant(source, target)
    assert target[0].weight is target[1].weight
    assert target[0].weight.data_ptr() == source[0].weight.data_ptr()
    assert target[0].weight._version == 0 < source[0].weight._version


def test_an_emptied_part_is_empty(folder: Path) -> None:
    part = DiskPart(folder, "text_encoder_3", torch.float32)
    network = part.network
    part.fill()
    assert not any(p.is_meta for p in network.parameters())
    part.empty()
    assert part.network is network
    assert all(p.is_meta for p in network.parameters())


MEMORY = """
import sys
from pathlib import Path
from contentv.pipelines.pipeline import ContentVPipeline

folder, options = Path(sys.argv[1]), {{"lazy": True, "release": True}} if {lazy} else {{}}
pipe = ContentVPipeline.from_pretrained(folder, **options)
pipe.set_progress_bar_config(disable=True)
pipe("a red circle", height=32, width=32, num_frames=5, num_inference_steps=1)
status = Path("/proc/self/status").read_text()
print(status.split("VmHWM:")[1].split()[0])
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak where Linux keeps it")
def test_host_memory_holds_one_act_s_parts(tmp_path: Path) -> None:
    """T5 and the transformer, above 120 MB each, never are both in a lazy process's memory."""
    pipe = random_pipeline()
    encoder = pipe.text_encoder_3.config.to_dict()
    pipe.text_encoder_3 = T5EncoderModel(
        T5Config(**{**encoder, "d_ff": 2048, "num_layers": 10, "d_kv": 64, "num_heads": 88})
    )
    pipe.transformer = random_transformer(
        blocks=2, num_attention_heads=22, caption_projection_dim=704
    )
    sizes = [
        sum(p.numel() * 4 for p in network.parameters())
        for network in (pipe.transformer, pipe.text_encoder_3)
    ]
    assert min(sizes) > 120e6
    pipe.save_pretrained(tmp_path / "mid")
    peaks = {}
    for lazy in (False, True):
        done = subprocess.run(
            [sys.executable, "-c", MEMORY.format(lazy=lazy), str(tmp_path / "mid")],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks[lazy] = int(done.stdout.split()[-1]) * 1024
    assert peaks[False] - peaks[True] > 0.7 * min(sizes), peaks
