from pathlib import Path

import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch import nn

from builders import build_random_pipeline, random_transformer
from contentv.base.errors import ModelFilesError, UserError
from contentv.base.files import write_json
from contentv.distributed.checkpoint import Checkpoint, CheckpointWriter
from contentv.recipes.starts import find_start, load_transformer, read_averages
from contentv.training.state import untied

SD3 = {
    "sample_size": 16,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "joint_attention_dim": 64,
    "caption_projection_dim": 32,
    "pooled_projection_dim": 48,
    "pos_embed_max_size": 16,
    "qk_norm": "rms_norm",
}


def image_model(folder: Path, **changes: object) -> SD3Transformer2DModel:
    """A folder like Stable Diffusion 3.5's: another autoencoder, a 2-D table of positions."""
    torch.manual_seed(0)
    model = SD3Transformer2DModel(**{**SD3, **changes})
    model.bfloat16().save_pretrained(folder / "transformer")
    index = {
        "_class_name": "StableDiffusion3Pipeline",
        "transformer": ["diffusers", "SD3Transformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    write_json(folder / "model_index.json", index)
    return model


def networks() -> nn.Module:
    return nn.ModuleDict({"transformer": random_transformer(1)})


def checkpoint(folder: Path, step: int, *, more: bool = False) -> dict[str, torch.Tensor]:
    """A stage's checkpoint; gives its averages. `more`: another network beside the transformer."""
    averages = {name: torch.randn_like(x) for name, x in untied(networks()).items()}
    others = {"text_encoder.weight": torch.ones(3)} if more else {}
    kept = {"model": untied(networks()), "ema": {**averages, **others}}
    with CheckpointWriter(folder) as writer:
        writer.save(Checkpoint(step, kept, {}))
    return averages


@pytest.mark.parametrize("more", [False, True])
def test_the_averages_of_a_checkpoint_are_read(tmp_path: Path, *, more: bool) -> None:
    checkpoint(tmp_path / "stage", 1)
    expected = checkpoint(tmp_path / "stage", 2, more=more)
    start = find_start(str(tmp_path / "stage"))
    assert start.is_checkpoint
    found = networks()
    read_averages(start.path, found, group=None)
    assert all(torch.equal(value, expected[name]) for name, value in untied(found).items())
    assert find_start(str(start.path)) == start


def test_averages_of_another_network_are_refused(tmp_path: Path) -> None:
    checkpoint(tmp_path / "stage", 1)
    other = nn.ModuleDict({"transformer": random_transformer(2)})
    with pytest.raises(UserError, match="is of another network"):
        read_averages(find_start(str(tmp_path / "stage")).path, other, group=None)


def test_an_image_models_layers_are_taken_over(tmp_path: Path) -> None:
    source = image_model(tmp_path)
    start = find_start(str(tmp_path))
    assert not start.is_checkpoint
    transformer = load_transformer(start.path)
    ours, theirs = dict(transformer.named_parameters()), dict(source.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(x.dtype == torch.float32 for x in ours.values())
    assert all(torch.equal(ours[name], theirs[name].float()) for name in ours)


def test_blocks_that_a_video_model_has_not_are_refused(tmp_path: Path) -> None:
    image_model(tmp_path, dual_attention_layers=(0,))
    with pytest.raises(UserError, match="dual_attention_layers"):
        load_transformer(tmp_path)


def test_weights_that_are_missing_are_not_made_up(tmp_path: Path) -> None:
    folder = build_random_pipeline(tmp_path / "model", blocks=1)
    (file,) = (folder / "transformer").glob("*.safetensors")
    file.unlink()
    with pytest.raises(ModelFilesError, match=r"no \.safetensors file"):
        load_transformer(folder)


def test_what_holds_no_weights_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="neither a model folder nor a stage of a run"):
        find_start(str(tmp_path))
    with pytest.raises(UserError, match="no such model"):
        find_start(str(tmp_path / "absent"))
