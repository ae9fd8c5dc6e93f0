"""The pipeline: the published code's 13 faults, its quirks that weights depend on, bad input."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.hooks import attach_align_device_hook
from diffusers import FirstBlockCacheConfig, SD3Transformer2DModel
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from PIL.Image import Image
from torch import Tensor, nn

from builders import DEFAULTS, random_pipeline, random_transformer
from contentv.base.errors import NumericsError, UserError
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.pipelines.pipeline import ContentVPipeline

PROMPT = "a red circle moves left"
ALL_TENSORS = [
    "latents",
    "prompt_embeds",
    "negative_prompt_embeds",
    "pooled_prompt_embeds",
    "negative_pooled_prompt_embeds",
]


@pytest.fixture(scope="module")
def shared() -> ContentVPipeline:
    return random_pipeline()


@pytest.fixture
def pipe(shared: ContentVPipeline) -> Iterator[ContentVPipeline]:
    """Tests that change the networks build their own."""
    yield shared
    shared._prompt_cache.clear()


def make(pipe: ContentVPipeline, **settings: Any) -> Any:  # noqa: ANN401 - by `output_type`
    """A short clip of 32 x 32 as latents, from seed 0."""
    defaults = {
        "prompt": None if "prompt_embeds" in settings else PROMPT,
        "height": 32,
        "width": 32,
        "num_frames": 5,
        "generator": torch.Generator().manual_seed(0),
        "output_type": "latent",
    }
    return pipe(**{**defaults, **settings}).frames


Tensors = dict[str, Tensor]


class CountCalls:
    """Counts the calls of a module's forward."""

    def __init__(self, module: nn.Module) -> None:
        self.number = 0
        module.register_forward_pre_hook(self._count)

    def _count(self, _module: nn.Module, _inputs: object) -> None:
        self.number += 1


class DoubleLatents(PipelineCallback):
    tensor_inputs = ("latents",)

    def callback_fn(
        self,
        pipeline: object,  # noqa: ARG002 - diffusers' signature
        step_index: int,  # noqa: ARG002
        timesteps: Tensor,  # noqa: ARG002
        callback_kwargs: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        return {"latents": callback_kwargs["latents"] * 2}


# --- the published code's faults ------------------------------------------------------------------
# Numbers as in the study of the published code. 1-3 and 11 are about folders: test_loading.py,
# test_registration.py and conformance/; 8 and 9 about the transformer: models/test_transformer.py.


def test_fault_3_a_plain_sd3_transformer_becomes_ours(pipe: ContentVPipeline) -> None:
    plain = SD3Transformer2DModel(
        num_layers=2,
        num_attention_heads=2,
        attention_head_dim=32,
        caption_projection_dim=64,
        joint_attention_dim=128,
        pooled_projection_dim=96,
        qk_norm="rms_norm",
    )
    weights = random_transformer().state_dict()
    plain.load_state_dict(weights, strict=False)
    components = {**pipe.components, "transformer": plain}
    other = ContentVPipeline(**components, generation_defaults=DEFAULTS)
    other.set_progress_bar_config(disable=True)
    assert type(other.transformer) is ContentVTransformer3DModel
    assert other.transformer.proj_out.weight is plain.proj_out.weight
    steps = {"num_inference_steps": 1, "guidance_scale": 1.0}
    torch.testing.assert_close(make(other, **steps), make(pipe, **steps))


def test_fault_4_sequential_offload_starts() -> None:
    pipe = random_pipeline()
    pipe.enable_sequential_cpu_offload(device="cpu")
    for network in (pipe.transformer, pipe.vae, pipe.text_encoder_3):
        assert {p.device.type for p in network.parameters()} == {"meta"}


def test_fault_4_sequential_offload_changes_nothing() -> None:
    """Every weight arrives with the call of its layer and leaves after it.

    The hooks are those of `enable_sequential_cpu_offload`, which itself cannot bring weights from
    the CPU to the CPU: accelerate looks shared weights up by an address that is then the same.
    """
    pipe = random_pipeline()
    expected = make(pipe, output_type="np")
    for network in (pipe.transformer, pipe.vae):
        weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        attach_align_device_hook(
            network, execution_device=torch.device("cpu"), offload=True, weights_map=weights
        )
        assert {p.device.type for p in network.parameters()} == {"meta"}
    np.testing.assert_allclose(make(pipe, output_type="np"), expected, atol=1e-5)


def test_fault_5_a_callback_may_see_all_five_tensors(pipe: ContentVPipeline) -> None:
    seen: dict[str, Tensor] = {}
    make(
        pipe,
        callback_on_step_end=lambda _pipe, _step, _time, tensors: seen.update(tensors),
        callback_on_step_end_tensor_inputs=ALL_TENSORS,
    )
    assert list(seen) == ALL_TENSORS
    assert all(isinstance(tensor, Tensor) for tensor in seen.values())


@pytest.mark.parametrize("name", ALL_TENSORS)
def test_fault_6_what_a_callback_returns_is_used(pipe: ContentVPipeline, name: str) -> None:
    def change(_pipe: object, step: int, _time: Tensor, tensors: Tensors) -> Tensors:
        return {name: tensors[name] + 1.0} if step == 0 else tensors

    options = {"callback_on_step_end_tensor_inputs": [name]}
    changed = make(pipe, callback_on_step_end=change, **options)
    assert not torch.allclose(changed, make(pipe), atol=1e-5)


def test_fault_7_callback_objects(pipe: ContentVPipeline) -> None:
    one = make(pipe, num_inference_steps=1, callback_on_step_end=DoubleLatents())
    torch.testing.assert_close(one, 2 * make(pipe, num_inference_steps=1))
    several = MultiPipelineCallbacks([DoubleLatents(), DoubleLatents()])
    two = make(pipe, num_inference_steps=1, callback_on_step_end=several)
    torch.testing.assert_close(two, 4 * make(pipe, num_inference_steps=1))


def test_fault_8_a_cache_tells_the_two_passes_apart() -> None:
    pipe = random_pipeline(blocks=3)
    expected = make(pipe, num_inference_steps=6)
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=1e-9))
    exact = make(pipe, num_inference_steps=6)
    torch.testing.assert_close(exact, expected, atol=1e-4, rtol=1e-4)
    pipe.transformer.disable_cache()
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=1e9))
    calls = CountCalls(pipe.transformer.transformer_blocks[1].attn)
    make(pipe, num_inference_steps=6)
    assert calls.number == 2  # the first step of each


def test_fault_12_each_video_gets_its_own_prompt(pipe: ContentVPipeline) -> None:
    prompts = [PROMPT, "a big blue square"]
    noise = torch.randn(4, 16, 2, 4, 4)
    together = make(pipe, prompt=prompts, num_videos_per_prompt=2, latents=noise)
    for row, prompt in enumerate([prompts[0], prompts[0], prompts[1], prompts[1]]):
        alone = make(pipe, prompt=prompt, latents=noise[row : row + 1])
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-4, rtol=1e-4)


# --- quirks ---------------------------------------------------------------------------------------


def test_guidance_leads_away_from_the_negative_prompt(pipe: ContentVPipeline) -> None:
    noise = torch.randn(1, 16, 2, 4, 4)
    both = {"latents": noise, "num_inference_steps": 1}
    cond = make(pipe, guidance_scale=1.0, **both)
    uncond = make(pipe, prompt="a big blue square", guidance_scale=1.0, **both)
    guided = make(pipe, guidance_scale=6.0, negative_prompt="a big blue square", **both)
    torch.testing.assert_close(guided, uncond + 6 * (cond - uncond), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("guidance_scale", "calls"), [(6.0, 6), (1.0, 3), (0.0, 3)])
def test_guidance_of_one_takes_one_pass_a_step(guidance_scale: float, calls: int) -> None:
    pipe = random_pipeline()
    counter = CountCalls(pipe.transformer.transformer_blocks[0])
    make(pipe, guidance_scale=guidance_scale, num_inference_steps=3)
    assert counter.number == calls


def test_guidance_can_end_early() -> None:
    pipe = random_pipeline()
    counter = CountCalls(pipe.transformer.transformer_blocks[0])

    def end_guidance(
        pipeline: ContentVPipeline, step: int, _time: Tensor, tensors: Tensors
    ) -> Tensors:
        if step == 1:
            pipeline._guidance_scale = 0.0
        return tensors

    make(pipe, num_inference_steps=4, callback_on_step_end=end_guidance)
    assert counter.number == 2 * 2 + 2


def test_no_negative_prompt_is_the_empty_text(pipe: ContentVPipeline) -> None:
    assert torch.equal(make(pipe), make(pipe, negative_prompt=""))


def test_noise_is_drawn_in_the_embeddings_dtype(pipe: ContentVPipeline) -> None:
    embeds = pipe.encode_prompt(PROMPT)
    half = {name: t.bfloat16() for name, t in zip(ALL_TENSORS[1:], embeds, strict=True)}
    noise = torch.randn(
        1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.bfloat16
    )
    got = make(pipe, **half)
    torch.testing.assert_close(got, make(pipe, **half, latents=noise.float()), atol=1e-4, rtol=1e-4)
    assert got.dtype == torch.float32  # that of the transformer


def test_sigmas_are_a_shifted_line(pipe: ContentVPipeline) -> None:
    seen: list[float] = []

    def keep(_pipe: object, _step: int, time: Tensor, _tensors: object) -> None:
        seen.append(float(time))

    make(pipe, num_inference_steps=4, flow_shift=17.0, callback_on_step_end=keep)
    line = [1.0, 0.75, 0.5, 0.25]
    assert seen == pytest.approx([1000 * 17 * s / (1 + 16 * s) for s in line], rel=1e-6)


def test_flow_shift_is_the_scheduler_s_unless_given(pipe: ContentVPipeline) -> None:
    assert torch.equal(make(pipe), make(pipe, flow_shift=5.0))
    assert not torch.allclose(make(pipe), make(pipe, flow_shift=1.0))
    assert pipe.scheduler.config.shift == 5.0


def test_published_size_without_its_shift_is_warned_about(
    pipe: ContentVPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    deep = ContentVPipeline(**{**pipe.components, "transformer": random_transformer(38)})
    deep.set_progress_bar_config(disable=True)
    make(deep, num_inference_steps=1, guidance_scale=1.0)
    assert "pass flow_shift=17" in caplog.text
    caplog.clear()
    make(deep, num_inference_steps=1, guidance_scale=1.0, flow_shift=17.0)
    assert caplog.text == ""


def test_frames_are_rounded_down(pipe: ContentVPipeline, caplog: pytest.LogCaptureFixture) -> None:
    assert make(pipe, num_frames=12).shape == (1, 16, 3, 4, 4)
    assert "num_frames=12: rounded down to 9" in caplog.text


def test_an_autoencoder_in_bfloat16_is_complained_about(
    pipe: ContentVPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    half = random_pipeline().vae.bfloat16()
    ContentVPipeline(**{**pipe.components, "vae": half})
    assert "autoencoder is in torch.bfloat16" in caplog.text


# --- what comes out -------------------------------------------------------------------------------


def test_the_folder_s_own_settings(pipe: ContentVPipeline) -> None:
    output = pipe(PROMPT)
    assert output.frames.shape == (1, 17, 64, 64, 3)
    assert output.images is output.frames


def test_output_types_show_the_same_video(pipe: ContentVPipeline) -> None:
    array = make(pipe, output_type="np")
    assert array.shape == (1, 5, 32, 32, 3)
    assert array.dtype == np.float32
    assert 0 <= array.min() < array.max() <= 1
    tensor = make(pipe, output_type="pt")
    np.testing.assert_array_equal(tensor.permute(0, 1, 3, 4, 2).numpy(), array)
    pictures = make(pipe, output_type="pil")
    assert len(pictures[0]) == 5
    assert isinstance(pictures[0][0], Image)
    np.testing.assert_allclose(np.asarray(pictures[0][4]) / 255, array[0, 4], atol=1 / 255)
    streamed = list(pipe.stream(make(pipe)))
    np.testing.assert_allclose(np.stack(streamed) / 255, array[0], atol=0.51 / 255)
    assert streamed[0].dtype == np.uint8


def test_plain_tuple(pipe: ContentVPipeline) -> None:
    settings = {"height": 32, "width": 32, "num_frames": 5, "output_type": "latent"}
    result = pipe(PROMPT, return_dict=False, **settings)
    assert isinstance(result, tuple)
    assert result[0].shape == (1, 16, 2, 4, 4)


def test_streams_one_video_at_a_time(pipe: ContentVPipeline) -> None:
    with pytest.raises(UserError, match="one by one"):
        next(pipe.stream(torch.zeros(2, 16, 2, 4, 4)))


def test_same_seed_same_video(pipe: ContentVPipeline) -> None:
    assert torch.equal(make(pipe), make(pipe))
    other = make(pipe, generator=torch.Generator().manual_seed(1))
    assert not torch.equal(make(pipe), other)


def test_one_generator_for_each_video(pipe: ContentVPipeline) -> None:
    seeds = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    both = make(pipe, num_videos_per_prompt=2, generator=seeds)
    torch.testing.assert_close(both[:1], make(pipe), atol=1e-4, rtol=1e-4)
    with pytest.raises(UserError, match="2 generators for 1 videos"):
        make(pipe, generator=seeds)


def test_a_callback_can_stop(pipe: ContentVPipeline) -> None:
    steps: list[int] = []

    def stop(pipeline: ContentVPipeline, step: int, _time: Tensor, tensors: Tensors) -> Tensors:
        steps.append(step)
        pipeline._interrupt = step == 1
        return tensors

    make(pipe, num_inference_steps=6, callback_on_step_end=stop)
    assert steps == [0, 1]
    make(pipe)  # the next call is not stopped
    assert pipe.interrupt is False


def test_caches_can_ask_for_the_timestep(pipe: ContentVPipeline) -> None:
    seen: list[float] = []

    def keep(pipeline: ContentVPipeline, _step: int, time: Tensor, _tensors: object) -> None:
        assert pipeline.current_timestep is not None
        seen.append(float(pipeline.current_timestep - time))

    make(pipe, callback_on_step_end=keep)
    assert seen == [0.0, 0.0]
    assert pipe.current_timestep is None
    assert pipe.num_timesteps == 2


def test_from_pipe_shares_the_networks(pipe: ContentVPipeline) -> None:
    other = ContentVPipeline.from_pipe(pipe)
    other.set_progress_bar_config(disable=True)
    assert other.transformer is pipe.transformer
    assert other.defaults == pipe.defaults
    assert torch.equal(make(other), make(pipe))


def test_model_in_bfloat16(pipe: ContentVPipeline) -> None:
    half = random_pipeline()
    half.transformer.to(torch.bfloat16)
    got = make(half)
    assert got.dtype == torch.bfloat16
    expected = make(pipe)
    assert (got.float() - expected).norm() < 0.1 * expected.norm()


# --- numbers that are no video --------------------------------------------------------------------


def test_nan_names_its_step(pipe: ContentVPipeline) -> None:
    def poison(_pipe: object, step: int, _time: Tensor, tensors: Tensors) -> Tensors:
        return {"latents": tensors["latents"] * (math.nan if step == 1 else 1)}

    with pytest.raises(NumericsError, match="after step 3"):
        make(pipe, num_inference_steps=4, callback_on_step_end=poison)


def black_pipeline(value: float) -> ContentVPipeline:
    pipe = random_pipeline()
    nn.init.zeros_(pipe.vae.decoder.conv_out.weight)
    nn.init.constant_(pipe.vae.decoder.conv_out.bias, value)
    return pipe


@pytest.mark.parametrize("value", [-1.0, math.nan])
@pytest.mark.parametrize(
    "show",
    [
        lambda pipe, latents: make(pipe, latents=latents, output_type="np"),
        lambda pipe, latents: list(pipe.stream(latents)),
    ],
    ids=["whole", "streamed"],
)
def test_black_or_broken_videos_are_errors(value: float, show: Callable[..., object]) -> None:
    pipe = black_pipeline(value)
    message = "black" if value == -1.0 else "NaN"
    latents = make(pipe)
    with pytest.raises(NumericsError, match=message):
        show(pipe, latents)


# --- bad input: one line with the value, the rule, the way out -----------------------------------

EMBEDS = torch.zeros(1, 4, 128)
POOLED = torch.zeros(1, 96)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompt": ""}, "is empty"),
        ({"prompt": ["a", " \n"]}, "is empty"),
        ({"prompt": []}, "at least one"),
        ({"prompt": 7}, "must be a string"),
        ({"prompt": "a" * 10_000}, "10000 characters"),
        ({"negative_prompt": "a" * 10_000}, "negative_prompt has 10000"),
        ({"prompt": ["a", "b"], "prompt_2": ["a"]}, "give as many"),
        ({"prompt": ["a", "b"], "negative_prompt": ["a"] * 3}, "3 negative prompts for 2"),
        ({"prompt": None}, "either prompt, or prompt_embeds"),
        ({"prompt": "a", "prompt_embeds": EMBEDS}, "together with its pooled"),
        (
            {"prompt": "a", "prompt_embeds": EMBEDS, "pooled_prompt_embeds": POOLED},
            "either prompt, or",
        ),
        (
            {
                "negative_prompt": "a",
                "negative_prompt_embeds": EMBEDS,
                "negative_pooled_prompt_embeds": POOLED,
            },
            "only one of the two",
        ),
        (
            {
                "prompt_embeds": EMBEDS,
                "pooled_prompt_embeds": POOLED,
                "negative_prompt_embeds": EMBEDS[:, :2],
                "negative_pooled_prompt_embeds": POOLED,
            },
            "must have the shape of prompt_embeds",
        ),
        ({"height": 40}, "height=40: .* use 32 or 48"),
        ({"width": 8}, "width=8: .* use 16"),
        ({"num_frames": 0}, "num_frames=0"),
        ({"num_inference_steps": -1}, "num_inference_steps=-1"),
        ({"num_inference_steps": 2.5}, "num_inference_steps=2.5"),
        ({"num_videos_per_prompt": 0}, "num_videos_per_prompt=0"),
        ({"guidance_scale": math.nan}, "guidance_scale=nan"),
        ({"guidance_scale": math.inf}, "guidance_scale=inf"),
        ({"flow_shift": 0.0}, "flow_shift=0.0: .* above 0"),
        ({"flow_shift": math.nan}, "flow_shift=nan"),
        ({"max_sequence_length": 513}, "max_sequence_length=513: must be 1 to 512"),
        ({"latents": torch.zeros(2, 16, 2, 4, 4)}, "must be \\[1 16 t h w\\]"),
        ({"output_type": "mp4"}, "output_type='mp4': must be one of np, pil, pt, latent"),
        ({"callback_on_step_end_tensor_inputs": ["image"]}, "must be one of latents"),
    ],
)
def test_bad_input(pipe: ContentVPipeline, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make(pipe, **settings)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
