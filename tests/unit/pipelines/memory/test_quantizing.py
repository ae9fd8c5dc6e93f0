"""Quantized pipelines: as near as promised, the same by every way, refused where it cannot be."""

import json
import operator
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import PipelineQuantizationConfig
from peft import LoraConfig, get_peft_model_state_dict
from safetensors import safe_open
from torch import Tensor

from builders import build_random_pipeline, random_pipeline
from contentv.base.errors import UserError
from contentv.lowbit.libraries import predicted_bytes
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.pipelines.memory.quantized_folder import check_saved
from contentv.pipelines.memory.quantizing import TRANSFORMER_LAYERS
from contentv.pipelines.pipeline import ContentVPipeline

pytest.importorskip("torchao")

INT8_KINDS = ("int8", "int8-dynamic")
SMALL = {"height": 32, "width": 32, "num_frames": 5, "num_inference_steps": 2}
PROMPT = "a red circle moves left"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_pipeline(tmp_path_factory.mktemp("model") / "float")


def load(folder: Path, **options: object) -> ContentVPipeline:
    pipe = ContentVPipeline.from_pretrained(folder, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def latents(pipe: ContentVPipeline) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    return pipe(PROMPT, generator=rng, output_type="latent", **SMALL).frames


def contents(folder: Path) -> dict[str, Any]:
    """Configs, tensors and notes of the networks; notes stand in no order in a file's header."""
    found: dict[str, Any] = {}
    for part in ("transformer", "text_encoder", "text_encoder_2", "text_encoder_3"):
        found[part] = json.loads((folder / part / "config.json").read_text())
        (file,) = (folder / part).glob("*.safetensors")
        with safe_open(file, "pt") as opened:
            found |= {f"{part}.{name}": opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            found[f"{part} notes"] = opened.metadata()
    return found


# --- what it does ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", INT8_KINDS)
def test_saved_and_loaded_it_gives_the_same_bits(
    folder: Path, tmp_path: Path, kind: str, dtype: torch.dtype
) -> None:
    pipe = load(folder, dtype=dtype)
    exact = latents(pipe)
    pipe.enable_model_quantization(kind)
    rounded = latents(pipe)
    assert not torch.equal(rounded, exact)
    pipe.save_pretrained(tmp_path / "low")
    again = load(tmp_path / "low", dtype=dtype)
    assert type(again.transformer) is ContentVTransformer3DModel
    assert torch.equal(latents(again), rounded)


@pytest.mark.parametrize("kind", INT8_KINDS)
def test_at_load_and_after_load_make_the_same_files(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    after = load(folder)
    after.enable_model_quantization(kind)
    after.save_pretrained(tmp_path / "after")
    at = load(folder, quantization=kind)
    at.save_pretrained(tmp_path / "at")
    one, other = contents(tmp_path / "after"), contents(tmp_path / "at")
    assert one.keys() == other.keys()
    for name, value in one.items():
        equal = torch.equal if isinstance(value, Tensor) else operator.eq
        assert equal(value, other[name]), name
    assert torch.equal(latents(at), latents(after))


@pytest.mark.parametrize("kind", INT8_KINDS)
def test_a_video_stays_near(folder: Path, kind: str) -> None:
    pipe = load(folder)
    exact = latents(pipe)
    pipe.enable_model_quantization(kind)
    assert ((latents(pipe) - exact).norm() / exact.norm()).item() < 0.01


def test_size_on_disk_is_as_predicted(folder: Path, tmp_path: Path) -> None:
    pipe = load(folder, dtype=torch.bfloat16)
    layers = [layer.weight for _, layer in TRANSFORMER_LAYERS.chosen(pipe.transformer)]
    everything = sum(p.nbytes for p in pipe.transformer.parameters())
    predicted = everything - sum(weight.nbytes for weight in layers)
    predicted += sum(predicted_bytes("int8", *weight.shape) for weight in layers)
    report = pipe.enable_model_quantization("int8")
    pipe.save_pretrained(tmp_path / "low")
    (file,) = (tmp_path / "low" / "transformer").glob("*.safetensors")
    header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    assert file.stat().st_size - header == predicted == report.parts[0].bytes_after


def test_the_report_says_what_became_of_each_part(folder: Path) -> None:
    pipe = load(folder, dtype=torch.bfloat16)
    report = pipe.enable_model_quantization("int8-dynamic")
    transformer, text = report.parts
    assert (transformer.name, transformer.kind) == ("transformer", "int8-dynamic")
    assert (text.name, text.kind) == ("text_encoder_3", "int8")
    for part in report.parts:
        assert part.num_quantized <= part.num_parameters
        assert part.bytes_before / 2 < part.bytes_after < part.bytes_before
    lines = str(report).splitlines()
    assert lines[0].startswith("transformer: 25 layers to int8-dynamic, 80.3% of 300,")
    assert len(lines) == 2


def test_twice_is_once(folder: Path) -> None:
    pipe = load(folder)
    pipe.enable_model_quantization("int8-dynamic")
    first = latents(pipe)
    report = pipe.enable_model_quantization("int8-dynamic")
    assert "transformer: is int8-dynamic already" in str(report)
    assert "text_encoder_3: is int8 already" in str(report)
    assert torch.equal(latents(pipe), first)


def test_any_text_encoder_on_request(folder: Path) -> None:
    pipe = load(folder)
    encoders = ("text_encoder", "text_encoder_2")
    report = pipe.enable_model_quantization("int8", components=encoders)
    assert tuple(part.name for part in report.parts) == encoders
    assert all(part.num_layers > 0 for part in report.parts)
    assert pipe.transformer.state_dict().keys() == random_pipeline().transformer.state_dict().keys()
    assert latents(pipe).isfinite().all()


def test_prompts_are_embedded_again(folder: Path) -> None:
    """Embeddings of the float encoder must not be served from the cache."""
    pipe = load(folder)
    before = pipe.encode_prompt(PROMPT)[0]
    pipe.enable_model_quantization("int8", components=("text_encoder_3",))
    assert not torch.equal(pipe.encode_prompt(PROMPT)[0], before)


def test_without_t5_the_transformer_alone_is_rounded_at_load(folder: Path) -> None:
    pipe = load(folder, quantization="int8", text_encoder_3=None, tokenizer_3=None)
    report = pipe.enable_model_quantization("int8")
    assert str(report).startswith("transformer: is int8 already")
    assert len(report.parts) == 1


def test_the_shipped_model(tmp_path: Path) -> None:
    pipe = load(Path("tiny"), dtype=torch.bfloat16)
    exact = latents(pipe)
    report = pipe.enable_model_quantization("int8")
    rounded = latents(pipe)
    assert ((rounded - exact).float().norm() / exact.float().norm()).item() < 0.05
    pipe.save_pretrained(tmp_path / "low")
    size = sum(path.stat().st_size for path in (tmp_path / "low/transformer").iterdir())
    assert size < 0.56 * report.parts[0].bytes_before
    assert torch.equal(latents(load(tmp_path / "low", dtype=torch.bfloat16)), rounded)


# --- LoRA -----------------------------------------------------------------------------------------


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    pipe = random_pipeline()
    torch.manual_seed(3)
    targets = ["to_q", "ff.net.2", "norm1.linear"]
    pipe.transformer.add_adapter(LoraConfig(target_modules=targets, init_lora_weights=False))
    state = get_peft_model_state_dict(pipe.transformer)
    ContentVPipeline.save_lora_weights(tmp_path / "lora", transformer_lora_layers=state)
    return tmp_path / "lora"


def test_lora_on_float_weights_is_refused_with_two_ways_out(folder: Path, lora: Path) -> None:
    pipe = load(folder)
    pipe.load_lora_weights(lora)
    with pytest.raises(UserError, match="transformer carries a LoRA; load it after quantizing"):
        pipe.enable_model_quantization("int8")
    pipe.fuse_lora()
    pipe.unload_lora_weights()
    pipe.enable_model_quantization("int8")
    assert latents(pipe).isfinite().all()


@pytest.mark.parametrize("kind", INT8_KINDS)
def test_lora_on_quantized_weights(folder: Path, lora: Path, kind: str) -> None:
    """What a LoRA adds to a float model it adds to the quantized one, and it goes without trace."""
    pipe = load(folder)
    plain = latents(pipe)
    pipe.load_lora_weights(lora)
    wanted = latents(pipe)
    pipe.unload_lora_weights()
    pipe.enable_model_quantization(kind)
    rounded = latents(pipe)
    pipe.load_lora_weights(lora)
    found = latents(pipe)
    change = (wanted - plain).norm()
    assert change > 20 * (rounded - plain).norm()
    assert (found - wanted).norm() < 0.1 * change
    pipe.unload_lora_weights()
    assert torch.equal(latents(pipe), rounded)


def test_a_lora_is_not_fused_into_quantized_weights(folder: Path, lora: Path) -> None:
    """peft would take the weights apart and then fail to round them."""
    pipe = load(folder, quantization="int8")
    pipe.load_lora_weights(lora)
    before = latents(pipe)
    with pytest.raises(UserError, match="fuse_lora: transformer is int8, and its weights"):
        pipe.fuse_lora()
    assert torch.equal(latents(pipe), before)


@pytest.mark.slow
@pytest.mark.parametrize("kind", INT8_KINDS)
def test_compiled_after_quantizing(folder: Path, kind: str) -> None:
    pipe = load(folder, quantization=kind)
    eager = latents(pipe)
    pipe.transformer.compile_repeated_blocks(fullgraph=True)
    assert ((latents(pipe) - eager).norm() / eager.norm()).item() < 1e-3


# --- what is refused ------------------------------------------------------------------------------


def spoil_training(pipe: ContentVPipeline) -> None:
    pipe.transformer.train()


def spoil_compiled_block(pipe: ContentVPipeline) -> None:
    pipe.transformer.compile_repeated_blocks()


def spoil_compiled(pipe: ContentVPipeline) -> None:
    pipe.transformer = torch.compile(pipe.transformer)


def spoil_offload(pipe: ContentVPipeline) -> None:
    pipe.transformer.enable_group_offload(torch.device("cpu"), offload_type="leaf_level")


def spoil_casting(pipe: ContentVPipeline) -> None:
    pipe.transformer.enable_layerwise_casting(compute_dtype=torch.float32)


def spoil_half(pipe: ContentVPipeline) -> None:
    pipe.transformer.half()


def spoil_missing(pipe: ContentVPipeline) -> None:
    pipe.text_encoder_3 = None


def test_quantized_weights_are_not_cast() -> None:
    pipe = random_pipeline()
    pipe.enable_model_quantization("int8")
    with pytest.raises(UserError, match="quantized to int8 already"):
        pipe.transformer.enable_layerwise_casting()


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_training, "transformer is in training mode; call eval"),
        (spoil_compiled_block, "transformer is compiled already; quantize first, then compile"),
        (spoil_compiled, "transformer is compiled already; quantize first, then compile"),
        (spoil_offload, "transformer is offloaded already; quantize first, then offload"),
        (spoil_casting, "transformer has its weights cast layer by layer"),
        (spoil_half, r"transformer computes in float16.*; load it with dtype=torch.bfloat16"),
        (spoil_missing, "this pipeline has no text_encoder_3; leave it out of components"),
    ],
)
def test_refused_before_anything_changes(
    spoil: Callable[[ContentVPipeline], None], reason: str
) -> None:
    pipe = random_pipeline()
    spoil(pipe)
    names = list(pipe.transformer.state_dict())
    with pytest.raises(UserError, match=reason) as caught:
        pipe.enable_model_quantization("int8", components=("text_encoder_3", "transformer"))
    assert "\n" not in str(caught.value)
    assert list(pipe.transformer.state_dict()) == names
    if pipe.text_encoder_3 is not None:
        assert "is int8 already" not in str(
            pipe.enable_model_quantization("int8", ["text_encoder_3"])
        )


@pytest.mark.parametrize("kind", ["int4", "nf4", "fp8"])
def test_kinds_without_kernels_on_a_cpu(folder: Path, kind: str) -> None:
    if torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    with pytest.raises(UserError, match=f"quantization={kind}: .* on cpu use int8 or int8-dynamic"):
        random_pipeline().enable_model_quantization(kind)
    with pytest.raises(UserError, match=f"quantization={kind}: .* on cpu use int8 or int8-dynamic"):
        load(folder, quantization=kind)


def test_a_folder_of_a_kind_without_kernels_is_refused(folder: Path, tmp_path: Path) -> None:
    if torch.accelerator.is_available():
        pytest.skip("this machine has an accelerator")
    copied = Path(shutil.copytree(folder, tmp_path / "nf4"))
    config_file = copied / "transformer" / "config.json"
    config = json.loads(config_file.read_text())
    settings = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "quant_method": "bitsandbytes"}
    config_file.write_text(json.dumps({**config, "quantization_config": settings}))
    with pytest.raises(UserError, match=r"quantization=nf4: .* on cpu use int8"):
        load(copied)
    check_saved(copied, {"text_encoder_3"})


def test_device_map_is_refused(folder: Path) -> None:
    pipe = load(folder, device_map="cpu")
    with pytest.raises(UserError, match="transformer was placed by device_map; load it without"):
        pipe.enable_model_quantization("int8")
    with pytest.raises(UserError, match="device_map places float weights; leave it out"):
        load(folder, device_map="cpu", quantization="int8")


def test_two_ways_of_saying_it_are_refused(folder: Path) -> None:
    from diffusers import TorchAoConfig
    from torchao.quantization import Int8WeightOnlyConfig

    config = PipelineQuantizationConfig(
        quant_mapping={"transformer": TorchAoConfig(Int8WeightOnlyConfig())}
    )
    with pytest.raises(UserError, match="quantization_config says the same in another way"):
        load(folder, quantization="int8", quantization_config=config)


def test_another_kind_is_refused(folder: Path, tmp_path: Path) -> None:
    pipe = load(folder)
    pipe.enable_model_quantization("int8")
    with pytest.raises(UserError, match="transformer is int8 already, and rounding twice adds up"):
        pipe.enable_model_quantization("int8-dynamic")
    pipe.save_pretrained(tmp_path / "low")
    with pytest.raises(UserError, match="transformer holds int8, which is not rounded again"):
        load(tmp_path / "low", quantization="int8-dynamic")
    assert torch.equal(latents(load(tmp_path / "low", quantization="int8")), latents(pipe))


def test_parts_that_are_never_rounded() -> None:
    with pytest.raises(UserError, match="components: vae is not quantized; use transformer, text"):
        random_pipeline().enable_model_quantization("int8", components=("vae",))


def test_float16_at_load(folder: Path) -> None:
    with pytest.raises(UserError, match="transformer computes in float16"):
        load(folder, quantization="int8", dtype=torch.float16)
