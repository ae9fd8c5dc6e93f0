"""Model folders: every part is ours or refused, nothing is filled with random numbers."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline, PipelineQuantizationConfig
from safetensors.torch import load_file, save_file

from builders import build_random_pipeline
from contentv.base.errors import ModelFilesError, UserError
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.pipelines.loading import component_dtypes
from contentv.pipelines.pipeline import ContentVPipeline

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_pipeline(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(whole, tmp_path / "tiny"))


def test_saved_folder_has_the_published_form(whole: Path) -> None:
    index = json.loads((whole / "model_index.json").read_text())
    assert index["_class_name"] == "ContentVPipeline"
    assert index["transformer"] == ["diffusers", "SD3Transformer2DModel"]
    assert index["tokenizer_3"] == ["transformers", "T5TokenizerFast"]
    assert not any(name.startswith("_name") for name in index)
    assert {path.name for path in whole.iterdir()} == {
        *("model_index.json", "scheduler", "transformer", "vae"),
        *("text_encoder", "text_encoder_2", "text_encoder_3"),
        *("tokenizer", "tokenizer_2", "tokenizer_3"),
    }
    assert not list(whole.rglob("*.bin"))


def test_fault_11_tokenizers_are_in_the_classic_form(whole: Path) -> None:
    """transformers 4.51 reads CLIP's two files, and wants no list as `extra_special_tokens`."""
    for name in ("tokenizer", "tokenizer_2"):
        vocabulary = json.loads((whole / name / "vocab.json").read_text())
        assert vocabulary["<|startoftext|>"] == len(vocabulary) - 2
        assert (whole / name / "merges.txt").read_text().startswith("#version: 0.2\n")
    config = json.loads((whole / "tokenizer_3" / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "T5TokenizerFast"
    assert "extra_special_tokens" not in config


def test_using_a_pipeline_does_not_change_what_it_saves(whole: Path, tmp_path: Path) -> None:
    pipe = ContentVPipeline.from_pretrained(whole)
    pipe.encode_prompt("a red circle")
    pipe.save_pretrained(tmp_path / "again")
    for path in whole.rglob("*"):
        if path.is_file():
            again = tmp_path / "again" / path.relative_to(whole)
            assert again.read_bytes() == path.read_bytes(), path


def test_the_folder_s_settings_come_along(whole: Path) -> None:
    pipe = ContentVPipeline.from_pretrained(whole)
    assert (pipe.defaults.num_frames, pipe.defaults.fps) == (17, 8)
    assert pipe.config["_name_or_path"] == str(whole)


@pytest.mark.parametrize("argument", ["dtype", "torch_dtype"])
def test_fault_10_both_names_of_the_dtype(whole: Path, argument: str) -> None:
    pipe = ContentVPipeline.from_pretrained(whole, **{argument: torch.bfloat16})
    assert pipe.transformer.dtype == pipe.text_encoder_3.dtype == torch.bfloat16
    assert pipe.vae.dtype == torch.float32


def test_dtype_per_component(whole: Path) -> None:
    dtypes = {"default": torch.bfloat16, "text_encoder": torch.float32, "vae": torch.bfloat16}
    pipe = ContentVPipeline.from_pretrained(whole, dtype=dtypes)
    assert pipe.transformer.dtype == pipe.vae.dtype == torch.bfloat16
    assert pipe.text_encoder.dtype == torch.float32


@pytest.mark.parametrize(
    ("given", "transformer", "vae"),
    [
        (None, torch.float32, torch.float32),
        (torch.float16, torch.float16, torch.float32),
        ({"default": torch.float16}, torch.float16, torch.float32),
        ({"transformer": torch.float16}, torch.float16, torch.float32),
    ],
)
def test_dtypes(
    given: torch.dtype | dict[str, torch.dtype] | None, transformer: torch.dtype, vae: torch.dtype
) -> None:
    dtypes = component_dtypes(given)
    assert dtypes.get("transformer", dtypes["default"]) == transformer
    assert dtypes["vae"] == vae


def test_fault_13_loading_says_nothing(whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    ContentVPipeline.from_pretrained(whole)
    assert caplog.records == []


def test_components_can_be_passed_or_left_out(folder: Path) -> None:
    transformer = ContentVTransformer3DModel.from_pretrained(folder, subfolder="transformer")
    shutil.rmtree(folder / "transformer")
    shutil.rmtree(folder / "text_encoder_3")
    pipe = ContentVPipeline.from_pretrained(
        folder, transformer=transformer, text_encoder_3=None, tokenizer_3=None
    )
    assert pipe.transformer is transformer
    assert pipe.text_encoder_3 is None
    settings = {"height": 32, "width": 32, "num_frames": 1, "num_inference_steps": 1}
    assert pipe("a red circle", output_type="latent", **settings).frames.isfinite().all()


def test_device_map(whole: Path) -> None:
    pipe = ContentVPipeline.from_pretrained(whole, device_map="cpu")
    assert type(pipe.transformer) is ContentVTransformer3DModel
    assert pipe.hf_device_map == "cpu"


def test_fault_1_the_model_card_s_line(whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    pipe = DiffusionPipeline.from_pretrained(whole, dtype=torch.bfloat16, device_map="cpu")
    assert type(pipe) is ContentVPipeline
    assert type(pipe.transformer) is ContentVTransformer3DModel
    assert "autoencoder is in torch.bfloat16" in caplog.text
    settings = {"height": 32, "width": 32, "num_frames": 1, "num_inference_steps": 1}
    assert pipe("a red circle", **settings).images[0].shape == (1, 32, 32, 3)


def test_sharded_weights(whole: Path, tmp_path: Path) -> None:
    pipe = ContentVPipeline.from_pretrained(whole)
    pipe.save_pretrained(tmp_path, max_shard_size="500KB")
    assert len(list((tmp_path / "transformer").glob("*.safetensors"))) > 1
    again = ContentVPipeline.from_pretrained(tmp_path)
    for name, tensor in again.transformer.state_dict().items():
        assert torch.equal(tensor, pipe.transformer.state_dict()[name])


def test_quantization_config_is_passed_on(whole: Path) -> None:
    torchao = pytest.importorskip("torchao.quantization")
    from diffusers import TorchAoConfig

    config = PipelineQuantizationConfig(
        quant_mapping={"transformer": TorchAoConfig(torchao.Int8WeightOnlyConfig())}
    )
    pipe = ContentVPipeline.from_pretrained(whole, quantization_config=config)
    assert type(pipe.transformer) is ContentVTransformer3DModel
    weight = pipe.transformer.transformer_blocks[0].attn.to_q.weight
    assert type(weight).__module__.startswith("torchao")


# --- broken folders -------------------------------------------------------------------------------


def refused(folder: Path) -> str:
    with pytest.raises(ModelFilesError) as caught:
        ContentVPipeline.from_pretrained(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("component", ["transformer", "vae", "text_encoder_3"])
def test_missing_weights(folder: Path, component: str) -> None:
    for path in (folder / component).glob("*.safetensors"):
        path.unlink()
    assert f"{component}: no .safetensors file" in refused(folder)


def test_missing_component(folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    assert "vae/config.json: is missing" in refused(folder)


def test_truncated_weights(folder: Path) -> None:
    path = folder / "transformer" / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1000])
    assert "not a whole safetensors file" in refused(folder)


def test_weights_that_are_no_safetensors(folder: Path) -> None:
    (folder / "vae" / WEIGHTS).write_bytes(b"<html>404 not found</html>")
    assert "not a whole safetensors file" in refused(folder)


@pytest.mark.parametrize("component", ["transformer", "vae"])
def test_weights_of_another_network(folder: Path, component: str) -> None:
    other = "vae" if component == "transformer" else "transformer"
    shutil.copy(folder / other / WEIGHTS, folder / component / WEIGHTS)
    assert "not the weights of a" in refused(folder)


def test_text_encoder_weights_of_another_network(folder: Path) -> None:
    shutil.copy(folder / "text_encoder_3/model.safetensors", folder / "text_encoder")
    assert "not the weights of a CLIPTextModelWithProjection" in refused(folder)


def test_one_missing_tensor(folder: Path) -> None:
    path = folder / "transformer" / WEIGHTS
    weights = load_file(path)
    del weights["proj_out.bias"]
    save_file(weights, path)
    assert "lacks proj_out.bias" in refused(folder)


def test_weights_of_another_size(folder: Path) -> None:
    path = folder / "transformer" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "joint_attention_dim": 256}))
    assert "context_embedder.weight is (64, 128), must be (64, 256)" in refused(folder)


def test_settings_that_cannot_be(folder: Path) -> None:
    path = folder / "model_index.json"
    index = json.loads(path.read_text())
    index["generation_defaults"]["height"] = "tall"
    path.write_text(json.dumps(index))
    assert "generation_defaults: height" in refused(folder)


def test_unknown_model() -> None:
    with pytest.raises(UserError, match="no such model"):
        ContentVPipeline.from_pretrained("nowhere-to-be-found")
