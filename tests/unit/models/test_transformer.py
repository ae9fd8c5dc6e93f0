from pathlib import Path

import pytest
import torch
from diffusers import (
    FirstBlockCacheConfig,
    PyramidAttentionBroadcastConfig,
    TaylorSeerCacheConfig,
)
from diffusers.hooks import apply_group_offloading
from torch import Tensor, nn

from builders import random_transformer
from contentv.base.errors import UserError
from contentv.models.attention import JointAttention
from contentv.models.transformer import ContentVTransformer3DModel


def inputs(batch: int = 1, text_tokens: int = 7, **latents: int) -> dict[str, Tensor]:
    torch.manual_seed(1)
    size = {"frames": 3, "height": 8, "width": 6, **latents}
    return {
        "hidden_states": torch.randn(batch, 16, size["frames"], size["height"], size["width"]),
        "encoder_hidden_states": torch.randn(batch, text_tokens, 128),
        "pooled_projections": torch.randn(batch, 96),
        "timestep": torch.full((batch,), 500.0),
    }


@torch.no_grad()
def velocity(model: ContentVTransformer3DModel, **changes: object) -> Tensor:
    return model(**{**inputs(), **changes}).sample


def test_result_has_the_shape_of_the_latents() -> None:
    model = random_transformer()
    assert velocity(model).shape == (1, 16, 3, 8, 6)
    (plain,) = model(**inputs(batch=2, frames=1), return_dict=False)
    assert plain.shape == (2, 16, 1, 8, 6)


def test_samples_of_a_batch_do_not_mix() -> None:
    model = random_transformer()
    both = inputs(batch=2)
    both["timestep"] = torch.tensor([900.0, 10.0])
    joint = velocity(model, **both)
    for row in range(2):
        alone = velocity(model, **{name: t[row : row + 1] for name, t in both.items()})
        torch.testing.assert_close(joint[row : row + 1], alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", ["ape", "rope"])
def test_positions_make_a_difference(positions: str) -> None:
    """Without positions, attention would give a turned clip the turned velocity."""
    model = random_transformer(pos_embed_type=positions)
    latents = inputs()["hidden_states"]
    flipped = velocity(model, hidden_states=latents.flip(2))
    assert not torch.allclose(flipped.flip(2), velocity(model), atol=1e-3)


def test_rope_has_the_same_parameters_as_ape() -> None:
    shapes = [
        {name: t.shape for name, t in random_transformer(pos_embed_type=kind).state_dict().items()}
        for kind in ("ape", "rope")
    ]
    assert shapes[0] == shapes[1]


def test_without_head_norms() -> None:
    model = random_transformer(qk_norm=None)
    assert not any("norm_q" in name for name in model.state_dict())
    assert velocity(model).isfinite().all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"caption_projection_dim": 65}, "caption_projection_dim=65.* = 64"),
        ({"dual_attention_layers": (0,)}, "SD3.5-Large"),
        ({"qk_norm": "layer_norm"}, "qk_norm='layer_norm'"),
        ({"pos_embed_type": "learned"}, "pos_embed_type='learned'"),
        ({"attention_head_dim": 20, "caption_projection_dim": 40}, "dim=40"),
    ],
)
def test_configs_of_other_models_are_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        random_transformer(**config)


def test_published_config_loads_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    published = {
        "_class_name": "SD3Transformer3DModel",
        "_diffusers_version": "0.33.0.dev0",
        "attention_head_dim": 64,
        "caption_projection_dim": 128,
        "dual_attention_layers": [],
        "in_channels": 16,
        "joint_attention_dim": 4096,
        "num_attention_heads": 2,
        "num_layers": 1,
        "out_channels": 16,
        "patch_size": 2,
        "pooled_projection_dim": 2048,
        "pos_embed_max_size": 192,
        "qk_norm": "rms_norm",
        "sample_size": 128,
    }
    with torch.device("meta"):
        ContentVTransformer3DModel.from_config(published)
    assert capfd.readouterr().err == ""


def test_last_block_gives_the_text_back_unchanged() -> None:
    last = random_transformer().transformer_blocks[-1]
    text = torch.randn(1, 5, 64)
    returned, _ = last(torch.randn(1, 9, 64), text, torch.randn(1, 64))
    assert returned is text


@pytest.mark.parametrize("backend", ["native", "_native_math", "flex"])
def test_attention_backends_agree(backend: str) -> None:
    model = random_transformer()
    expected = velocity(model)
    model.set_attention_backend(backend)
    processors = {type(module.processor) for module in attentions(model)}
    assert len(processors) == 1
    assert all(module.processor._attention_backend == backend for module in attentions(model))
    torch.testing.assert_close(velocity(model), expected, atol=1e-5, rtol=1e-5)


def attentions(model: nn.Module) -> list[JointAttention]:
    return [module for module in model.modules() if isinstance(module, JointAttention)]


def test_unknown_attention_backend_is_refused() -> None:
    with pytest.raises(ValueError, match="must be one of"):
        random_transformer().set_attention_backend("fastest")


@pytest.mark.parametrize(("chunk_size", "dim"), [(1, 1), (4, 1), (1000, 1), (1, 0)])
def test_chunked_feed_forward_changes_nothing(chunk_size: int, dim: int) -> None:
    """7 text tokens and 36 video tokens: no chunk needs to fit both."""
    model = random_transformer()
    expected = velocity(model)
    model.enable_forward_chunking(chunk_size, dim)
    torch.testing.assert_close(velocity(model), expected, atol=1e-5, rtol=1e-5)
    model.disable_forward_chunking()
    assert torch.equal(velocity(model), expected)


def test_impossible_chunks_are_refused() -> None:
    with pytest.raises(UserError, match="chunk_size=0"):
        random_transformer().enable_forward_chunking(0)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = random_transformer()
        if checkpointing:
            model.enable_gradient_checkpointing()
        model.train()
        model(**inputs()).sample.square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient is not None, name
        torch.testing.assert_close(gradients[1][name], gradient)


def test_trains_under_autocast() -> None:
    model = random_transformer().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(**inputs()).sample.float().square().mean()
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())


def test_blocks_compile_as_one_graph_each() -> None:
    model = random_transformer()
    expected = velocity(model)
    torch.compiler.reset()
    model.compile_repeated_blocks(fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(velocity(model), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", ["ape", "rope"])
def test_the_whole_model_compiles_as_one_graph(positions: str) -> None:
    model = random_transformer(pos_embed_type=positions)
    expected = velocity(model)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(**inputs()).sample, expected, atol=1e-5, rtol=1e-5)


def test_layerwise_casting_reaches_the_modulations() -> None:
    """They hold a third of the 8B model's weights; only the two ends stay as they are."""
    model = random_transformer()
    expected = velocity(model)
    model.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    block = model.transformer_blocks[0]
    assert block.norm1.linear.weight.dtype == torch.float8_e4m3fn
    assert block.norm1_context.linear.weight.dtype == torch.float8_e4m3fn
    assert block.attn.to_q.weight.dtype == torch.float8_e4m3fn
    assert model.norm_out.linear.weight.dtype == torch.float32
    assert model.pos_embed.proj.weight.dtype == torch.float32
    error = (velocity(model) - expected).norm() / expected.norm()
    assert error < 0.1


@pytest.mark.parametrize("offload_type", ["block_level", "leaf_level"])
def test_group_offloading(offload_type: str) -> None:
    model = random_transformer()
    expected = velocity(model)
    apply_group_offloading(
        model,
        onload_device=torch.device("cpu"),
        offload_device=torch.device("cpu"),
        offload_type=offload_type,
        num_blocks_per_group=1,
    )
    assert torch.equal(velocity(model), expected)


def denoise(model: ContentVTransformer3DModel, steps: int = 6) -> Tensor:
    """Euler steps with two contexts, as the pipeline takes them."""
    latents = inputs()["hidden_states"]
    for step in range(steps):
        timestep = torch.tensor([1000.0 * (1 - step / steps)])
        for context in ("cond", "uncond"):
            with model.cache_context(context):
                change = velocity(model, hidden_states=latents, timestep=timestep)
        latents = latents - change / steps
    return latents


def count_calls(module: nn.Module) -> list[int]:
    calls: list[int] = []
    forward = module.forward

    def counted(*args: object, **kwargs: object) -> object:
        calls.append(1)
        return forward(*args, **kwargs)

    module.forward = counted
    return calls


def test_first_block_cache_skips_blocks() -> None:
    model = random_transformer(blocks=3)
    expected = denoise(model)
    calls = count_calls(model.transformer_blocks[1])
    model.enable_cache(FirstBlockCacheConfig(threshold=0.0))
    torch.testing.assert_close(denoise(model), expected, atol=1e-5, rtol=1e-5)
    assert len(calls) == 12
    model.disable_cache()
    calls.clear()
    model.enable_cache(FirstBlockCacheConfig(threshold=0.5))
    assert (denoise(model) - expected).norm() < 0.5 * expected.norm()
    assert len(calls) < 12


def test_taylorseer_cache() -> None:
    model = random_transformer(blocks=3)
    expected = denoise(model)
    calls = count_calls(model.transformer_blocks[1].attn)
    model.enable_cache(
        TaylorSeerCacheConfig(
            cache_interval=2, disable_cache_before_step=2, max_order=1, use_lite_mode=False
        )
    )
    assert (denoise(model) - expected).norm() < 0.5 * expected.norm()
    assert len(calls) < 12


def test_pyramid_attention_broadcast() -> None:
    model = random_transformer(blocks=3)
    expected = denoise(model)
    calls = count_calls(model.transformer_blocks[1].attn)
    model.enable_cache(
        PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(0, 1001),
            current_timestep_callback=lambda: 500,
        )
    )
    assert denoise(model).isfinite().all()
    assert len(calls) < 12
    model.disable_cache()
    assert torch.equal(denoise(model), expected)


def test_only_the_strength_of_loras_may_be_passed_on() -> None:
    model = random_transformer()
    velocity(model, joint_attention_kwargs={"scale": 1.0})
    with pytest.raises(UserError, match="attention_mask"):
        velocity(model, joint_attention_kwargs={"attention_mask": None})


def test_save_and_load(tmp_path: Path) -> None:
    model = random_transformer(pos_embed_type="rope")
    model.save_pretrained(tmp_path)
    loaded = ContentVTransformer3DModel.from_pretrained(tmp_path)
    assert loaded.config.pos_embed_type == "rope"
    assert torch.equal(velocity(loaded), velocity(model))
