import json
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from builders import random_transformer
from contentv.base.errors import UserError
from contentv.models.cost import (
    Recompute,
    Spread,
    TransformerSize,
    activations,
    attention_flops,
    executed_flops,
    forward_flops,
    linear_flops,
    lora_parameters,
    model_flops,
    num_parameters,
)
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.video.shapes import LatentShape, ScaleFactors, VideoShape

PUBLISHED = Path(__file__).parents[2] / "conformance" / "state_dict_8b.json"
SIZE = TransformerSize()
MODES: list[Recompute] = ["none", "selective", "full"]


def latent_of(frames: int, height: int, width: int) -> LatentShape:
    return ScaleFactors().latent(VideoShape(frames, height, width))


STAGE3 = latent_of(125, 432, 768)


def test_parameters_are_those_of_the_published_model() -> None:
    assert num_parameters(SIZE) == json.loads(PUBLISHED.read_text())["number_of_parameters"]


@pytest.mark.parametrize("blocks", [1, 3])
def test_parameters_are_those_of_any_model(blocks: int) -> None:
    model = random_transformer(blocks, in_channels=8, out_channels=4)
    assert num_parameters(TransformerSize.of(model.config)) == model.num_parameters()


def test_lora_parameters_are_those_of_its_adapters() -> None:
    from peft import LoraConfig

    model = random_transformer(2)
    targets = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj"]
    model.add_adapter(LoraConfig(r=3, target_modules=[*targets, "to_add_out"]))
    trained = sum(p.numel() for name, p in model.named_parameters() if "lora_" in name)
    assert lora_parameters(TransformerSize.of(model.config), 3) == trained


def test_operations_are_those_torch_counts_at_full_width() -> None:
    size = TransformerSize(num_layers=2)
    with torch.device("meta"):
        model = ContentVTransformer3DModel(num_layers=2)
        inputs = (
            torch.empty(1, 16, 4, 16, 24),
            torch.empty(1, 96, 4096),
            torch.empty(1, 2048),
            torch.empty(1),
        )
    with FlopCounterMode(display=False) as forward:
        loss = model(*inputs, return_dict=False)[0].sum()
    with FlopCounterMode(display=False) as backward:
        loss.backward()
    latent = LatentShape(4, 16, 24)
    counted = forward.get_total_flops()
    assert forward_flops(size, latent, 96) == counted
    assert model_flops(size, latent, 96) == pytest.approx(
        counted + backward.get_total_flops(), rel=0.01
    )


@pytest.mark.parametrize(
    ("video", "tokens", "teraflops"),
    [
        ((1, 432, 768), 1_296, 9.7),
        ((29, 288, 288), 2_592, 18.9),
        ((125, 288, 288), 10_368, 100.0),
        ((125, 432, 768), 41_472, 871.6),
        ((125, 720, 1280), 115_200, 5557.5),
    ],
)
def test_known_shapes(video: tuple[int, int, int], tokens: int, teraflops: float) -> None:
    assert SIZE.video_tokens(latent_of(*video)) == tokens
    assert forward_flops(SIZE, latent_of(*video), 333) / 1e12 == pytest.approx(teraflops, abs=0.05)


def test_recomputation_costs_what_it_computes_again() -> None:
    forward = forward_flops(SIZE, STAGE3, 333)
    linear, attention = linear_flops(SIZE, STAGE3, 333), attention_flops(SIZE, STAGE3, 333)

    def executed(mode: Recompute, every: int = 1, *, frozen: bool = False) -> float:
        return executed_flops(SIZE, STAGE3, 333, recompute=mode, every=every, frozen=frozen)

    assert executed("none") == pytest.approx(3 * forward)
    assert executed("full") == pytest.approx(4 * forward)
    assert executed("full", every=2) == pytest.approx(3.5 * forward)
    assert executed("selective") == pytest.approx(3 * forward + linear)
    assert executed("none", frozen=True) == pytest.approx(3 * attention + 2 * linear)


def test_recomputation_keeps_less_and_works_with_more() -> None:
    held = [activations(SIZE, STAGE3, 333, samples=1, recompute=mode) for mode in MODES]
    kept = [one.blocks for one in held]
    assert kept == sorted(kept, reverse=True)
    working = [one.working for one in held]
    assert working == sorted(working)
    # Whole blocks: their inputs and nothing else.
    assert kept[2] == 38 * (41_472 + 333) * 2432 * 2


@pytest.mark.parametrize("mode", MODES)
def test_memory_of_activations_grows_with_samples_and_falls_with_splits(mode: Recompute) -> None:
    def total(samples: int, sp: int = 1, tp: int = 1) -> float:
        held = activations(
            SIZE, STAGE3, 333, samples=samples, recompute=mode, spread=Spread(sp, tp)
        )
        return held.blocks + held.ends + held.working

    assert total(1) < total(2) < total(3)
    assert total(1, sp=2) > total(1, sp=4) > total(1, sp=8)
    assert total(1) > total(1, sp=8)
    assert total(1) > total(1, tp=2)


def test_selective_recomputation_also_keeps_what_was_exchanged() -> None:
    def kept(sp: int) -> float:
        held = activations(SIZE, STAGE3, 333, samples=1, recompute="selective", spread=Spread(sp))
        return held.blocks * sp

    # Input and result, against these and query, key, value and the result once more.
    assert kept(2) / kept(1) == pytest.approx(3, rel=0.02)


def test_a_config_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(UserError, match="num_layers=0: must be a positive whole number"):
        TransformerSize.of({"num_layers": 0})
