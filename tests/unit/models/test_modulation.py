"""Modulations evaluated beforehand: the same velocities, and the real ones are out of the way."""

import copy
from pathlib import Path

import pytest
import torch
from diffusers import FirstBlockCacheConfig
from diffusers.hooks import apply_group_offloading
from peft import LoraConfig
from torch import Tensor, nn

from builders import random_transformer
from contentv.base.errors import UserError
from contentv.models.modulation import modulation_parts, stored_modulation, without_modulation
from contentv.models.transformer import ContentVTransformer3DModel

CPU = torch.device("cpu")
CHECKPOINT = Path(__file__).parents[2] / "conformance" / "checkpoint" / "transformer"
TIMESTEPS = torch.tensor([1000.0, 731.25, 88.5])


def texts(model: ContentVTransformer3DModel, count: int = 2) -> Tensor:
    torch.manual_seed(2)
    return torch.randn(count, model.config.pooled_projection_dim, dtype=model.dtype)


@torch.no_grad()
def velocity(
    model: ContentVTransformer3DModel, timestep: Tensor, pooled: Tensor, **options: object
) -> Tensor:
    torch.manual_seed(1)
    width = model.config.joint_attention_dim
    return model(
        hidden_states=torch.randn(len(pooled), 16, 2, 4, 6, dtype=model.dtype),
        encoder_hidden_states=torch.randn(len(pooled), 7, width, dtype=model.dtype),
        pooled_projections=pooled,
        timestep=timestep.expand(len(pooled)),
        **options,
    ).sample


def relative_error(model: ContentVTransformer3DModel, **options: float) -> float:
    """Largest difference over all steps, two texts alone and together, over the largest value."""
    pooled = texts(model)
    kwargs = {"joint_attention_kwargs": dict(options)} if options else {}
    calls = [(t, rows) for t in TIMESTEPS for rows in (pooled[:1], pooled[1:], pooled.flip(0))]
    plain = [velocity(model, t, rows, **kwargs) for t, rows in calls]
    scale = options.get("scale")
    with stored_modulation(model, TIMESTEPS, pooled, CPU, lora_scale=scale):
        stored = [velocity(model, t, rows, **kwargs) for t, rows in calls]
    worst = max(float((a - b).abs().max()) for a, b in zip(plain, stored, strict=True))
    return worst / max(float(a.abs().max()) for a in plain)


@pytest.mark.parametrize("options", [{}, {"blocks": 1}, {"pos_embed_type": "rope"}])
def test_velocities_are_the_same(options: dict[str, object]) -> None:
    assert relative_error(random_transformer(**options)) <= 1e-5


def test_velocities_are_the_same_on_published_weights_in_small() -> None:
    model = ContentVTransformer3DModel.from_pretrained(CHECKPOINT, torch_dtype=torch.float32)
    assert relative_error(model.eval()) <= 1e-5


def test_velocities_are_the_same_in_float64_to_the_last_digits() -> None:
    """What remains in lower precisions is the order of sums, not a mistake."""
    assert relative_error(random_transformer().double()) <= 1e-14


def test_bfloat16_stays_bfloat16() -> None:
    assert relative_error(random_transformer().bfloat16()) <= 2**-7


@pytest.mark.parametrize("strength", [1.0, 0.3, 0.0])
def test_loras_on_modulations_count_at_their_strength(strength: float) -> None:
    model = random_transformer()
    pooled = texts(model, 1)
    plain = velocity(model, TIMESTEPS[0], pooled)
    targets = ["norm1.linear", "norm1_context.linear", "to_q"]
    torch.manual_seed(3)
    model.add_adapter(LoraConfig(target_modules=targets, r=2, init_lora_weights=False))
    assert relative_error(model, scale=strength) <= 1e-5
    adapted = velocity(model, TIMESTEPS[0], pooled, joint_attention_kwargs={"scale": strength})
    assert torch.allclose(adapted, plain, atol=1e-6) == (strength == 0.0)
    # The strength is set back: without one, LoRAs count in full.
    assert relative_error(model) <= 1e-5


def test_weights_kept_in_eight_bits() -> None:
    model = random_transformer()
    model.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)
    assert relative_error(model) <= 1e-5
    assert model.norm_out.linear.weight.dtype == torch.float32
    assert model.transformer_blocks[0].norm1.linear.weight.dtype == torch.float8_e4m3fn


def test_quantized_linears() -> None:
    torchao = pytest.importorskip("torchao.quantization")
    model = random_transformer()
    torchao.quantize_(model.transformer_blocks, torchao.Int8WeightOnlyConfig())
    assert relative_error(model) <= 1e-5


@pytest.mark.parametrize("level", ["block_level", "leaf_level"])
def test_offloaded_weights_come_for_it(level: str) -> None:
    model = random_transformer()
    blocks = {"num_blocks_per_group": 1} if level == "block_level" else {}
    apply_group_offloading(model, CPU, offload_type=level, **blocks)
    assert relative_error(model) <= 1e-5


def test_step_caches_work_on_top() -> None:
    model = random_transformer(blocks=3)
    pooled = texts(model, 1)
    model.enable_cache(FirstBlockCacheConfig(threshold=1e-9))

    def run() -> list[Tensor]:
        model._reset_stateful_cache()
        with model.cache_context("cond"):
            return [velocity(model, t, pooled) for t in TIMESTEPS]

    plain = run()
    with stored_modulation(model, TIMESTEPS, pooled, CPU):
        torch.testing.assert_close(run(), plain, atol=1e-5, rtol=1e-5)


def test_a_compiled_block_keeps_one_graph() -> None:
    """Blocks differ in their vectors' places only; 38 graphs would take minutes to compile."""
    model = random_transformer(blocks=4)
    pooled = texts(model, 1)
    plain = velocity(model, TIMESTEPS[0], pooled)
    torch.compiler.reset()
    graphs: list[object] = []

    def count(graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    model.compile_repeated_blocks(fullgraph=True, backend=count)
    for _ in range(2):  # the second call finds the graphs of the first
        with stored_modulation(model, TIMESTEPS, pooled, CPU):
            compiled = velocity(model, TIMESTEPS[0], pooled)
    torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-5)
    assert len(graphs) == 2  # the last block has no text output
    torch.compiler.reset()


@pytest.mark.parametrize("stored", [True, False])
def test_real_modulations_are_out_of_the_way_and_come_back(stored: bool) -> None:
    model = random_transformer()
    names = list(model.state_dict())
    modules = modulation_parts(model)
    assert len(modules) == 2 * 2 + 1 + 1

    def fail_inside() -> None:
        context = (
            stored_modulation(model, TIMESTEPS, texts(model), CPU)
            if stored
            else without_modulation(model)
        )
        with context:
            assert not set(modules) & set(model.modules())
            model.to(torch.float64)  # whatever moves the transformer
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert modulation_parts(model) == modules
    assert list(model.state_dict()) == names
    assert {p.dtype for module in modules for p in module.parameters()} == {torch.float32}


def test_a_third_of_the_published_weights_is_modulation() -> None:
    with torch.device("meta"):
        model = ContentVTransformer3DModel(num_layers=38)
    count = sum(p.numel() for module in modulation_parts(model) for p in module.parameters())
    assert count / sum(p.numel() for p in model.parameters()) == pytest.approx(1 / 3, abs=0.01)


@pytest.mark.parametrize("changed", ["timestep", "pooled"])
def test_what_was_not_known_beforehand_is_refused(changed: str) -> None:
    model = random_transformer()
    pooled = texts(model)
    with stored_modulation(model, TIMESTEPS, pooled, CPU):
        timestep = TIMESTEPS[0] + 1 if changed == "timestep" else TIMESTEPS[0]
        rows = torch.cat([pooled[:1], pooled[1:] * (1.5 if changed == "pooled" else 1)])
        with pytest.raises(UserError, match=r"enable_precomputed_modulation\(False\)"):
            velocity(model, timestep, rows)


def test_weights_stay_where_they_rest() -> None:
    """Only copies travel: the real parameters are the same objects with the same storage."""
    model = random_transformer()
    rests = {name: p.data_ptr() for name, p in model.named_parameters()}
    before = copy.deepcopy(model.state_dict())
    with stored_modulation(model, TIMESTEPS, texts(model), CPU):
        pass
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == rests
    torch.testing.assert_close(model.state_dict(), before, atol=0, rtol=0)


def test_equal_texts_are_stored_once() -> None:
    model = random_transformer()
    pooled = texts(model, 1).expand(5, -1)
    with stored_modulation(model, TIMESTEPS, pooled, CPU):
        stored = model.time_text_embed
        assert isinstance(stored, nn.Module)
        assert stored._table.shape == (len(TIMESTEPS), 6 + 6 + 6 + 2 + 2, 64)
