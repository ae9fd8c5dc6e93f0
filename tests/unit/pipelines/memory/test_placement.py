"""Offload of three kinds and precomputed modulation: the same videos, refusals before any work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.hooks import attach_align_device_hook
from diffusers.hooks import HookRegistry
from peft import LoraConfig
from torch import nn

from builders import make_clip, random_pipeline
from contentv.base.errors import UserError
from contentv.models.modulation import modulation_parts
from contentv.pipelines.memory.offloading import WholeOnUse, networks
from contentv.pipelines.pipeline import ContentVPipeline

CPU = torch.device("cpu")
Videos = np.ndarray


@pytest.fixture(scope="module")
def expected() -> Videos:
    return make_clip(random_pipeline())


ENABLE: dict[str, Callable[[ContentVPipeline], None]] = {
    "model": lambda pipe: pipe.enable_model_cpu_offload(device=CPU),
    "sequential": lambda pipe: pipe.enable_sequential_cpu_offload(device=CPU),
    "group": lambda pipe: pipe.enable_group_offload(CPU),
}


# --- the same videos ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["model", "group"])
def test_offload_changes_no_bit(kind: str, expected: Videos) -> None:
    pipe = random_pipeline()
    for _ in range(2):  # idempotent
        ENABLE[kind](pipe)
        assert pipe.offload_kind == kind
        assert pipe._execution_device.type == "cpu"
    for _ in range(2):  # hooks are as before after a call
        np.testing.assert_array_equal(make_clip(pipe), expected)
        assert pipe.offload_kind == kind


@pytest.mark.parametrize("options", [{"offload_type": "leaf_level"}, {"num_blocks_per_group": 2}])
def test_groups_of_other_sizes_change_no_bit(options: dict[str, Any], expected: Videos) -> None:
    pipe = random_pipeline(blocks=2)
    pipe.enable_group_offload(CPU)
    pipe.enable_group_offload(CPU, **options)
    np.testing.assert_array_equal(make_clip(pipe), expected)


def test_weights_on_disk_change_no_bit(tmp_path: Path, expected: Videos) -> None:
    """The two CLIP towers are of one class: each part has files of its own."""
    pipe = random_pipeline()
    pipe.enable_group_offload(CPU, offload_to_disk_path=tmp_path / "weights")
    np.testing.assert_array_equal(make_clip(pipe), expected)
    written = {folder.name for folder in (tmp_path / "weights").iterdir()}
    assert written == networks(pipe).keys() - {"vae"}
    with pytest.raises(UserError, match="load the pipeline again"):
        pipe.disable_offload()
    with pytest.raises(UserError, match="new or empty"):
        random_pipeline().enable_group_offload(CPU, offload_to_disk_path=tmp_path / "weights")


def test_every_block_is_a_group_of_its_own() -> None:
    """No part but the autoencoder comes whole: neither T5 nor the CLIP towers."""
    pipe = random_pipeline()
    pipe.enable_group_offload(CPU)
    blocks = [
        *pipe.transformer.transformer_blocks,
        *pipe.text_encoder.text_model.encoder.layers,
        *pipe.text_encoder_2.text_model.encoder.layers,
        *pipe.text_encoder_3.encoder.block,
    ]
    groups = []
    for block in blocks:
        hook = HookRegistry.check_if_exists_or_initialize(block).get_hook("group_offloading")
        assert hook is not None
        groups.append(hook.group)
        assert hook.group.modules == [block]
    assert len(groups) == len(blocks)
    assert isinstance(pipe.vae._hf_hook, WholeOnUse)


@pytest.mark.parametrize("kind", ["model", "sequential", "group"])
def test_offload_can_be_undone_and_exchanged(kind: str, expected: Videos) -> None:
    pipe = random_pipeline()
    ENABLE[kind](pipe)
    pipe.disable_offload()
    assert pipe.offload_kind == "none"
    for network in networks(pipe).values():
        assert {p.device.type for p in network.parameters()} == {"cpu"}
        assert not hasattr(network, "_hf_hook")
    np.testing.assert_array_equal(make_clip(pipe), expected)
    ENABLE["group" if kind == "model" else "model"](pipe)
    np.testing.assert_array_equal(make_clip(pipe), expected)


# --- the autoencoder ------------------------------------------------------------------------------


class Coming:
    """An autoencoder that is away until a hook asks for it."""

    def __init__(self, pipe: ContentVPipeline) -> None:
        self.pipe, self.times = pipe, 0
        self._weights = {name: p.data for name, p in pipe.vae.named_parameters()}
        WholeOnUse(CPU, self._bring).put_on(pipe.vae)
        self.go()

    def go(self) -> None:
        for parameter in self.pipe.vae.parameters():
            parameter.data = torch.full_like(parameter, torch.nan)

    def _bring(self) -> bool:
        self.times += 1
        for name, parameter in self.pipe.vae.named_parameters():
            parameter.data = self._weights[name]
        return False


@pytest.mark.parametrize("way", ["frames", "tiles", "cached", "stream", "diffusers", "encode"])
def test_every_way_through_the_autoencoder_asks_for_it(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = random_pipeline()
    torch.manual_seed(0)
    latents, video = torch.randn(1, 16, 2, 4, 4), torch.rand(1, 3, 5, 32, 32)
    if way == "tiles":
        pipe.vae.enable_tiling()
    if way == "cached":
        # What an accelerator takes; frames by frames as images is for CPUs.
        monkeypatch.setattr("contentv.models.vae.FrameDecoder.fits", lambda *_: False)

    def decode() -> Any:  # noqa: ANN401 - arrays and tensors
        with torch.no_grad():
            if way == "stream":
                return np.stack(list(pipe.stream(latents)))
            if way == "diffusers":
                return pipe.vae.decode(latents).sample
            if way == "encode":
                return pipe.vae.encode(video).latent_dist.parameters
            from contentv.models.vae import decode as decode_latents

            return decode_latents(pipe.vae, latents)

    plain = decode()
    coming = Coming(pipe)
    for times in (1, 2):
        np.testing.assert_array_equal(np.asarray(decode()), np.asarray(plain))
        assert coming.times == times
        coming.go()


def test_layer_by_layer_the_autoencoder_decodes_frames_and_tiles() -> None:
    pipe = random_pipeline()
    for tiled in (False, True):
        if tiled:
            pipe = random_pipeline()
            pipe.vae.enable_tiling()
        plain = make_clip(pipe)
        weights = {name: tensor.clone() for name, tensor in pipe.vae.state_dict().items()}
        attach_align_device_hook(pipe.vae, execution_device=CPU, offload=True, weights_map=weights)
        assert {p.device.type for p in pipe.vae.parameters()} == {"meta"}
        np.testing.assert_allclose(make_clip(pipe), plain, atol=1e-5)


def test_a_failed_call_leaves_parts_where_they_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = random_pipeline()
    pipe.enable_model_cpu_offload(device=CPU)
    freed: list[bool] = []
    free = pipe.maybe_free_model_hooks
    monkeypatch.setattr(pipe, "maybe_free_model_hooks", lambda: (freed.append(True), free()))

    def fail(*_: object) -> dict[str, Any]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make_clip(pipe, callback_on_step_end=fail)
    assert freed
    frames = pipe.stream(torch.randn(1, 16, 2, 4, 4))
    next(frames)
    freed.clear()
    frames.close()
    assert freed


# --- precomputed modulation -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("none", {}),
        ("model", {}),
        ("group", {}),
        ("none", {"guidance_scale": 1.0}),
        ("none", {"num_videos_per_prompt": 2}),
        ("none", {"prompt": ["a red circle", "a big green square"], "negative_prompt": "blue"}),
    ],
)
def test_precomputed_modulation_changes_rounding_only(kind: str, settings: dict[str, Any]) -> None:
    pipe = random_pipeline()
    options = {"num_inference_steps": 3, "output_type": "latent", **settings}
    generator = torch.Generator().manual_seed(0)
    plain = make_clip(pipe, **options, generator=generator)
    if kind != "none":
        ENABLE[kind](pipe)
    pipe.enable_precomputed_modulation()
    parts = modulation_parts(pipe.transformer)
    stored = make_clip(pipe, **options, generator=torch.Generator().manual_seed(0))
    assert (stored - plain).abs().max() <= 1e-5 * plain.abs().max()
    assert modulation_parts(pipe.transformer) == parts
    pipe.enable_precomputed_modulation(False)
    again = make_clip(pipe, **options, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again, plain)


def test_modulations_are_not_called_in_the_steps() -> None:
    pipe = random_pipeline()
    calls: list[nn.Module] = []
    for part in modulation_parts(pipe.transformer):
        part.register_forward_pre_hook(lambda module, _inputs: calls.append(module))
    pipe.enable_precomputed_modulation()
    make_clip(pipe, num_inference_steps=4)
    assert len(calls) == len(set(calls)) == len(modulation_parts(pipe.transformer))


def test_guidance_may_change_on_the_way() -> None:
    def less(pipe: ContentVPipeline, step: int, _time: object, _tensors: object) -> dict[str, Any]:
        pipe._guidance_scale = 1.0 if step == 0 else 4.0
        return {}

    pipe = random_pipeline()
    options = {"num_inference_steps": 3, "output_type": "latent", "callback_on_step_end": less}
    plain = make_clip(pipe, **options)
    pipe.enable_precomputed_modulation()
    torch.testing.assert_close(make_clip(pipe, **options), plain, atol=1e-5, rtol=1e-5)


def test_both_halves_in_one_forward() -> None:
    pipe = random_pipeline()
    plain = make_clip(pipe, output_type="latent")
    pipe.set_guidance_passes("batched")
    pipe.enable_precomputed_modulation()
    torch.testing.assert_close(make_clip(pipe, output_type="latent"), plain, atol=1e-5, rtol=1e-5)


def test_other_pooled_embeddings_are_refused_and_nothing_is_left_behind() -> None:
    def change(
        _pipe: object, _step: int, _time: object, tensors: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        return {"pooled_prompt_embeds": tensors["pooled_prompt_embeds"] * 2}

    pipe = random_pipeline()
    pipe.enable_precomputed_modulation()
    parts = modulation_parts(pipe.transformer)
    with pytest.raises(UserError, match="not with precomputed modulation"):
        make_clip(
            pipe,
            callback_on_step_end=change,
            callback_on_step_end_tensor_inputs=["pooled_prompt_embeds"],
        )
    assert modulation_parts(pipe.transformer) == parts


def test_moving_a_pipeline_leaves_its_modulation() -> None:
    """On the meta device, for want of another: all else goes there."""
    pipe = random_pipeline()
    pipe.enable_precomputed_modulation()
    pipe.to("meta")
    places = {
        p.device.type for part in modulation_parts(pipe.transformer) for p in part.parameters()
    }
    assert places == {"cpu"}
    assert pipe.transformer.proj_out.weight.is_meta
    pipe = random_pipeline()
    pipe.enable_precomputed_modulation()
    pipe.transformer.to(torch.float64)
    pipe.to(torch.float64)
    assert {p.dtype for p in pipe.transformer.parameters()} == {torch.float64}


def test_lora_on_modulation_counts_at_the_strength_of_the_call() -> None:
    pipe = random_pipeline()
    torch.manual_seed(3)
    pipe.transformer.add_adapter(
        LoraConfig(target_modules=["norm1.linear"], r=2, init_lora_weights=False)
    )
    options = {"output_type": "latent", "joint_attention_kwargs": {"scale": 0.4}}
    plain = make_clip(pipe, **options)
    pipe.enable_precomputed_modulation()
    torch.testing.assert_close(make_clip(pipe, **options), plain, atol=1e-5, rtol=1e-5)


# --- what does not go together --------------------------------------------------------------------


@pytest.mark.parametrize("first", ENABLE)
@pytest.mark.parametrize("second", ENABLE)
def test_two_kinds_of_offload_are_refused(first: str, second: str) -> None:
    if first == second:
        return
    pipe = random_pipeline()
    ENABLE[first](pipe)
    with pytest.raises(UserError, match=r"pipe\.disable_offload\(\) first"):
        ENABLE[second](pipe)
    assert pipe.offload_kind == first


@pytest.mark.skipif(torch.accelerator.is_available(), reason="for machines without one")
@pytest.mark.parametrize(
    "enable", ["enable_model_cpu_offload", "enable_sequential_cpu_offload", "enable_group_offload"]
)
def test_without_an_accelerator_offload_is_refused(enable: str) -> None:
    with pytest.raises(UserError, match="nothing to unload from a CPU; leave it out"):
        getattr(random_pipeline(), enable)()


@pytest.mark.parametrize("kind", ENABLE)
def test_offload_of_parts_placed_by_device_map_is_refused(kind: str) -> None:
    pipe = random_pipeline()
    pipe.hf_device_map = {"transformer": "cpu", "vae": "cpu"}
    with pytest.raises(UserError, match="reset_device_map"):
        ENABLE[kind](pipe)


@pytest.mark.parametrize("kind", ENABLE)
def test_offload_after_compile_is_refused(kind: str) -> None:
    pipe = random_pipeline()
    pipe.transformer.compile_repeated_blocks()
    with pytest.raises(UserError, match="transformer is compiled already; offload, then compile"):
        ENABLE[kind](pipe)
    assert pipe.offload_kind == "none"


def test_offload_then_compile_goes_on(expected: Videos) -> None:
    pipe = random_pipeline()
    pipe.enable_model_cpu_offload(device=CPU)
    pipe.transformer.compile_repeated_blocks(backend="eager")
    for _ in range(2):  # each call ends with the hooks put on again
        np.testing.assert_allclose(make_clip(pipe), expected, atol=1e-5)


def test_unknown_parts_are_refused() -> None:
    with pytest.raises(UserError, match="exclude_modules=unet: no such part; use transformer"):
        random_pipeline().enable_group_offload(CPU, exclude_modules="unet")


def test_excluded_parts_stay(expected: Videos) -> None:
    pipe = random_pipeline()
    pipe.enable_group_offload(CPU, exclude_modules=["text_encoder", "vae"])
    assert not hasattr(pipe.vae, "_hf_hook")
    np.testing.assert_array_equal(make_clip(pipe), expected)


@pytest.mark.parametrize("kind", ["model", "group"])
def test_a_lora_can_be_loaded_while_parts_are_offloaded(kind: str, tmp_path: Path) -> None:
    """diffusers' loader takes hooks off and puts them on again, not saying for which device."""
    source = random_pipeline()
    plain = make_clip(source)
    torch.manual_seed(3)
    source.transformer.add_adapter(LoraConfig(target_modules=["to_q"], init_lora_weights=False))
    ContentVPipeline.save_lora_weights(
        tmp_path, transformer_lora_layers=_lora_weights(source.transformer)
    )
    pipe = random_pipeline()
    ENABLE[kind](pipe)
    pipe.load_lora_weights(tmp_path)
    assert pipe.offload_kind == kind
    adapted = make_clip(pipe)
    np.testing.assert_allclose(adapted, make_clip(source), atol=1e-6)
    assert np.abs(adapted - plain).max() > 1e-4


def _lora_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(model)
