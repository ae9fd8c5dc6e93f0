import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from contentv.base.errors import ModelFilesError, UserError
from contentv.pipelines import folder as folder_module
from contentv.pipelines.folder import (
    GenerationDefaults,
    check_folder,
    fingerprint,
    read_defaults,
    read_header,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("vae", "transformer"):
        (tmp_path / part).mkdir()
        save_file({"weight": torch.ones(3, 5)}, tmp_path / part / "model.safetensors")
        (tmp_path / part / "config.json").write_text("{}")
    index = {
        "_class_name": "ContentVPipeline",
        "vae": ["diffusers", "AutoencoderKLWan"],
        "transformer": ["diffusers", "SD3Transformer2DModel"],
        "text_encoder": [None, None],
        "generation_defaults": {"height": 64, "invented_later": 1},
    }
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    return tmp_path


def test_a_whole_folder_passes(folder: Path) -> None:
    check_folder(folder)
    assert read_header(folder / "vae" / "model.safetensors")["weight"]["shape"] == [3, 5]


def test_defaults_are_the_folders_or_the_published_models(folder: Path) -> None:
    assert read_defaults(folder) == GenerationDefaults(height=64)
    assert read_defaults(folder).num_frames == 125


@pytest.mark.parametrize("size", [0, 5, 8, 60, -1])
def test_a_cut_file_is_named(folder: Path, size: int) -> None:
    file = folder / "vae" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(ModelFilesError, match=r"vae/model\.safetensors: not a whole safetensors"):
        check_folder(folder)


@pytest.mark.parametrize(
    "content", [b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"PK\x03\x04" * 99]
)
def test_a_foreign_file_is_named(folder: Path, content: bytes) -> None:
    (folder / "transformer" / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelFilesError, match="not a whole safetensors file"):
        check_folder(folder)


def test_a_missing_part_or_shard_is_named(folder: Path) -> None:
    index = folder / "transformer" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-00002-of-00002.safetensors"}}))
    with pytest.raises(ModelFilesError, match=r"model-00002-of-00002\.safetensors: is missing"):
        check_folder(folder)
    (folder / "vae").rename(folder / "vea")
    with pytest.raises(ModelFilesError, match="vae: is missing"):
        check_folder(folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00"])
def test_a_broken_index_is_named(folder: Path, content: str) -> None:
    (folder / "model_index.json").write_text(content)
    with pytest.raises(ModelFilesError, match=r"model_index\.json"):
        check_folder(folder)


def test_a_folder_without_index_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no model_index\.json"):
        check_folder(tmp_path)


@pytest.mark.parametrize("limit", [1 << 30, 1])
def test_the_fingerprint_sees_every_change_of_weights_or_settings(
    folder: Path, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder_module, "_HASHED_WHOLE", limit)
    seen = {fingerprint(folder)["sha256"]}
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.json").write_text("{}")
    (folder / "README.md").write_text("about")
    assert fingerprint(folder)["sha256"] in seen
    (folder / "vae" / "config.json").write_text('{"a": 1}')
    seen.add(fingerprint(folder)["sha256"])
    save_file({"weight": torch.zeros(3, 5)}, folder / "vae" / "model.safetensors")
    seen.add(fingerprint(folder)["sha256"])
    (folder / "vae" / "model.safetensors").rename(folder / "vae" / "other.safetensors")
    seen.add(fingerprint(folder)["sha256"])
    assert len(seen) == 4


def test_the_fingerprint_says_how_it_was_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fingerprint(folder)["of"] == "all bytes"
    monkeypatch.setattr(folder_module, "_HASHED_WHOLE", 1)
    assert fingerprint(folder)["of"] == "sizes, first and last MiB of each file"
