import json
from pathlib import Path

import pytest

from builders import random_pipeline
from contentv.base.errors import UserError, WorldError
from contentv.pipelines.folder import GenerationDefaults
from contentv.pipelines.locate import built_in_models
from contentv.pipelines.memory.fitting import sizes_of
from contentv.pipelines.memory.sizes import PUBLISHED, PUBLISHED_MODEL, find_sizes, read_sizes

# The published folder's configs, but for what costs do not depend on.
CONFIGS = {
    "transformer": {"num_layers": 38, "attention_head_dim": 64, "num_attention_heads": 38},
    "vae": {"base_dim": 96, "dim_mult": [1, 2, 4, 4], "z_dim": 16},
    "text_encoder": {"hidden_size": 768, "num_hidden_layers": 12, "projection_dim": 768},
    "text_encoder_2": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "projection_dim": 1280,
    },
    "text_encoder_3": {"d_model": 4096, "d_ff": 10240, "num_layers": 24},
}


def write_configs(folder: Path, parts: dict[str, dict[str, object]]) -> Path:
    for name, config in parts.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(config))
    index = {name: ["diffusers", "AnyClass"] for name in parts}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def test_a_folder_is_known_by_its_configs_alone(tmp_path: Path) -> None:
    assert read_sizes(write_configs(tmp_path, CONFIGS)) == PUBLISHED


def test_text_encoders_may_be_absent(tmp_path: Path) -> None:
    parts = {name: CONFIGS[name] for name in ("transformer", "vae")}
    assert read_sizes(write_configs(tmp_path, parts)) == PUBLISHED.without_text()


def test_a_loaded_pipeline_has_the_sizes_of_its_folder(tmp_path: Path) -> None:
    pipe = random_pipeline()
    pipe.save_pretrained(tmp_path)
    assert sizes_of(pipe) == read_sizes(tmp_path)


def test_the_published_model_is_known_before_it_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/nowhere")
    assert find_sizes(PUBLISHED_MODEL) == (PUBLISHED, GenerationDefaults())
    with pytest.raises(WorldError, match="not on this machine"):
        find_sizes("Somebody/Else")
    with pytest.raises(UserError, match="no such model"):
        find_sizes("tinny")


def test_the_tiny_model_is_read_from_its_folder() -> None:
    sizes, defaults = find_sizes("tiny")
    assert sizes == read_sizes(built_in_models()["tiny"])
    assert defaults.height == 64
