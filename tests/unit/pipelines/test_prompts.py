"""Prompts inside the pipeline: which length, computed how often, given away when."""

from pathlib import Path

import pytest
import torch
from diffusers.loaders import StableDiffusionLoraLoaderMixin
from peft import LoraConfig

from builders import random_pipeline
from contentv.base.errors import UserError
from contentv.pipelines.pipeline import ContentVPipeline

PROMPT = "a red circle moves left"


@pytest.fixture
def pipe() -> ContentVPipeline:
    return random_pipeline()


def count_t5(pipe: ContentVPipeline) -> list[int]:
    """One entry, the number of tokens, for each time T5 runs."""
    calls: list[int] = []
    pipe.text_encoder_3.register_forward_pre_hook(
        lambda _module, inputs: calls.append(inputs[0].shape[1])
    )
    return calls


def test_results_stand_in_sd3_s_order(pipe: ContentVPipeline) -> None:
    sequence, negative, pooled, negative_pooled = pipe.encode_prompt(
        [PROMPT, "a big blue square"], negative_prompt="small", num_videos_per_prompt=3
    )
    num_tokens = 16 + pipe.defaults.text_lengths[0]
    assert sequence.shape == negative.shape == (6, num_tokens, 128)
    assert pooled.shape == negative_pooled.shape == (6, 96)
    assert torch.equal(sequence[0], sequence[2])
    assert not torch.equal(sequence[2], sequence[3])


def test_without_guidance_nothing_negative_is_computed(pipe: ContentVPipeline) -> None:
    calls = count_t5(pipe)
    _, negative, _, negative_pooled = pipe.encode_prompt(PROMPT, do_classifier_free_guidance=False)
    assert (negative, negative_pooled) == (None, None)
    assert len(calls) == 1


def test_a_prompt_is_encoded_once(pipe: ContentVPipeline) -> None:
    calls = count_t5(pipe)
    first = pipe.encode_prompt(PROMPT)
    second = pipe.encode_prompt([PROMPT, "big"], negative_prompt="")
    assert len(calls) == 3  # the prompt, the empty text, "big"
    assert torch.equal(first[0][0], second[0][0])


def test_embeddings_do_not_depend_on_the_batch(pipe: ContentVPipeline) -> None:
    together = pipe.encode_prompt([PROMPT, "a big blue square"])[0]
    pipe._prompt_cache.clear()
    assert torch.equal(pipe.encode_prompt("a big blue square")[0][0], together[1])


def test_settings_that_matter_are_told_apart(pipe: ContentVPipeline) -> None:
    base = pipe.encode_prompt(PROMPT, max_sequence_length=8)
    assert not torch.equal(
        pipe.encode_prompt(PROMPT, max_sequence_length=8, clip_skip=1)[0], base[0]
    )
    assert pipe.encode_prompt(PROMPT, max_sequence_length=9)[0].shape[1] == 25
    other = pipe.encode_prompt(PROMPT, "a", max_sequence_length=8)
    assert not torch.equal(other[2], base[2])


def test_clip_skip_is_for_the_prompt_only(pipe: ContentVPipeline) -> None:
    plain = pipe.encode_prompt(PROMPT, negative_prompt=PROMPT)
    skipped = pipe.encode_prompt(PROMPT, negative_prompt=PROMPT, clip_skip=1)
    assert torch.equal(skipped[1], plain[0])
    assert not torch.equal(skipped[0], plain[0])


@pytest.mark.parametrize("change", ["train", "cast", "exchange"])
def test_changed_encoders_are_noticed(pipe: ContentVPipeline, change: str) -> None:
    before = pipe.encode_prompt(PROMPT)[0]
    if change == "train":
        with torch.no_grad():
            pipe.text_encoder_3.shared.weight.mul_(2.0)
    elif change == "cast":
        pipe.text_encoder_3.to(torch.bfloat16)
    else:
        torch.manual_seed(1)
        pipe.text_encoder_3 = type(pipe.text_encoder_3)(pipe.text_encoder_3.config).eval()
    assert not torch.equal(pipe.encode_prompt(PROMPT)[0], before)


def test_adapted_encoders_are_not_trusted(pipe: ContentVPipeline) -> None:
    pipe.text_encoder.add_adapter(LoraConfig(target_modules=["q_proj"], init_lora_weights=False))
    strong = pipe.encode_prompt(PROMPT)[0]
    weak = pipe.encode_prompt(PROMPT, lora_scale=0.1)[0]
    assert not torch.equal(weak, strong)
    assert torch.equal(pipe.encode_prompt(PROMPT)[0], strong)


def test_the_folder_chooses_the_length(
    pipe: ContentVPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    lengths = pipe.defaults.text_lengths
    for words in (5, lengths[0] + 5, lengths[-1] + 5):
        tokens = pipe.encode_prompt("red " * words)[0].shape[1] - 16
        assert tokens == next((n for n in lengths if n > words), lengths[-1])
    assert "the rest is cut" in caplog.text


def test_one_length_for_prompt_and_negative_prompt(pipe: ContentVPipeline) -> None:
    long = "red " * (pipe.defaults.text_lengths[0] + 5)
    sequence, negative, *_ = pipe.encode_prompt("a", negative_prompt=long)
    assert sequence.shape == negative.shape


def test_released_encoders(pipe: ContentVPipeline) -> None:
    """Known prompts still work; the networks are gone."""
    before = pipe.encode_prompt(PROMPT)
    pipe.release_text_encoders()
    assert pipe.text_encoder_3 is None
    assert torch.equal(pipe.encode_prompt(PROMPT)[0], before[0])
    with pytest.raises(UserError, match="pass prompt_embeds"):
        pipe.encode_prompt("a big blue square")


def test_lora_of_transformer_and_encoder(pipe: ContentVPipeline, tmp_path: Path) -> None:
    settings = {
        "height": 32, "width": 32, "num_frames": 1, "num_inference_steps": 1,
        "output_type": "latent", "latents": torch.randn(1, 16, 1, 4, 4),
    }  # fmt: skip
    plain = pipe(PROMPT, **settings).frames
    config = LoraConfig(target_modules=["to_q", "to_k"], init_lora_weights=False)
    pipe.transformer.add_adapter(config)
    from peft.utils import get_peft_model_state_dict

    ContentVPipeline.save_lora_weights(
        tmp_path, transformer_lora_layers=get_peft_model_state_dict(pipe.transformer)
    )
    adapted = pipe(PROMPT, **settings).frames
    pipe.unload_lora_weights()
    assert torch.equal(pipe(PROMPT, **settings).frames, plain)
    pipe.load_lora_weights(tmp_path)
    torch.testing.assert_close(pipe(PROMPT, **settings).frames, adapted)
    weaker = pipe(PROMPT, joint_attention_kwargs={"scale": 0.0}, **settings).frames
    torch.testing.assert_close(weaker, plain)
    assert not isinstance(pipe, StableDiffusionLoraLoaderMixin)
