"""The pipeline: a prompt becomes a video, by diffusers' conventions."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
)
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.loaders import SD3LoraLoaderMixin
from diffusers.utils import BaseOutput
from pydantic import ValidationError
from torch import Tensor
from transformers import (
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5EncoderModel,
    T5TokenizerFast,
)

from contentv.base.config import describe_validation_error
from contentv.base.errors import ModelFilesError
from contentv.base.log import get_logger
from contentv.base.types import Frame
from contentv.flow.timesteps import sampling_sigmas
from contentv.models.convert import from_sd3
from contentv.models.text import TextTowers
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.pipelines.checks import (
    OUTPUT_TYPES,
    Prompt,
    check_choice,
    check_count,
)
from contentv.pipelines.decoding import Videos, decode_videos, stream_frames
from contentv.pipelines.denoising import Denoising
from contentv.pipelines.folder import GenerationDefaults
from contentv.pipelines.loading import FolderPipeline
from contentv.pipelines.memory.placement import Placement
from contentv.pipelines.preparation import (
    fill_in,
    initial_latents,
    latent_shape,
    shifted_scheduler,
)
from contentv.pipelines.prompts import PromptCache, PromptRequest, encode
from contentv.pipelines.speed.solvers import with_solver

logger = get_logger(__name__)


@dataclass
class ContentVPipelineOutput(BaseOutput):
    """Videos: "np" [b t h w 3] in 0..1, "pt" [b t 3 h w], "pil" lists, "latent" [b c t h w]."""

    frames: Videos

    @property
    def images(self) -> Videos:
        """The videos, under the name that image pipelines use."""
        return self.frames


class ContentVPipeline(Denoising, Placement, FolderPipeline, SD3LoraLoaderMixin):
    """Text to video with SD3's text towers, ContentV's transformer and Wan's autoencoder.

    Text encoders and their tokenizers may be None: then prompts are passed as embeddings (without
    T5 alone, its tokens are zeros, as in SD3). `generation_defaults` are the settings a folder is
    made for (`GenerationDefaults`); without any, the published 8B model's.

    Example:
        pipe = ContentVPipeline.from_pretrained("ByteDance/ContentV-8B", dtype=torch.bfloat16)
        pipe.enable_model_cpu_offload()
        latents = pipe("A panda surfs", output_type="latent").frames
        write_video("panda.mp4", pipe.stream(latents), fps=24)
    """

    model_cpu_offload_seq = "text_encoder->text_encoder_2->text_encoder_3->transformer->vae"
    _optional_components: ClassVar[list[str]] = [
        *("text_encoder", "text_encoder_2", "text_encoder_3"),
        *("tokenizer", "tokenizer_2", "tokenizer_3"),
    ]
    # In the order of `encode_prompt`'s results, after the latents.
    _callback_tensor_inputs: ClassVar[list[str]] = [
        "latents",
        *("prompt_embeds", "negative_prompt_embeds"),
        *("pooled_prompt_embeds", "negative_pooled_prompt_embeds"),
    ]

    def __init__(  # noqa: PLR0917 - diffusers' conventions
        self,
        transformer: ContentVTransformer3DModel | SD3Transformer2DModel,
        scheduler: FlowMatchEulerDiscreteScheduler,
        vae: AutoencoderKLWan,
        text_encoder: CLIPTextModelWithProjection | None,
        tokenizer: CLIPTokenizer | None,
        text_encoder_2: CLIPTextModelWithProjection | None,
        tokenizer_2: CLIPTokenizer | None,
        text_encoder_3: T5EncoderModel | None,
        tokenizer_3: T5TokenizerFast | None,
        generation_defaults: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if isinstance(transformer, SD3Transformer2DModel):
            transformer = from_sd3(transformer)  # diffusers' loader follows the folder's index
        if vae.dtype != torch.float32:
            logger.warning(
                "the autoencoder is in %s and its videos will suffer; load it in float32: "
                'dtype={"default": torch.bfloat16, "vae": torch.float32}',
                vae.dtype,
            )
        self.register_modules(
            transformer=transformer,
            scheduler=scheduler,
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            text_encoder_2=text_encoder_2,
            tokenizer_2=tokenizer_2,
            text_encoder_3=text_encoder_3,
            tokenizer_3=tokenizer_3,
        )
        self.register_to_config(generation_defaults=generation_defaults)
        try:
            self.defaults = GenerationDefaults.model_validate(generation_defaults or {})
        except ValidationError as error:
            raise ModelFilesError(
                f"generation_defaults: {describe_validation_error(error)}"
            ) from error
        self._prompt_cache = PromptCache()
        self._begin_call(guidance_scale=self.defaults.guidance_scale, joint_attention_kwargs=None)

    @torch.no_grad()
    def __call__(  # noqa: PLR0913, PLR0917 - diffusers' conventions
        self,
        prompt: Prompt | None = None,
        prompt_2: Prompt | None = None,
        prompt_3: Prompt | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: Prompt | None = None,
        negative_prompt_2: Prompt | None = None,
        negative_prompt_3: Prompt | None = None,
        num_videos_per_prompt: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        output_type: str = "np",
        return_dict: bool = True,
        joint_attention_kwargs: dict[str, Any] | None = None,
        clip_skip: int | None = None,
        flow_shift: float | None = None,
        callback_on_step_end: Callable[..., Any] | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
        max_sequence_length: int | None = None,
    ) -> ContentVPipelineOutput | tuple[Any]:
        """Makes videos.

        None means the folder's own setting. `num_frames` is rounded down to 4k+1. Guidance of 1 and
        less runs the transformer once a step. `flow_shift` moves steps towards noise. The noise is
        drawn on the generator's device, or given as `latents` [b c t h w].
        """
        settings = fill_in(
            self.defaults,
            height=height,
            width=width,
            num_frames=num_frames,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            flow_shift=flow_shift,
        )
        shape = latent_shape(settings, self.vae, self.transformer)
        num_blocks = self.transformer.config.num_layers
        shifted = shifted_scheduler(self.scheduler, settings.flow_shift, num_blocks=num_blocks)
        scheduler = with_solver(shifted, self._speed.solver)
        seen = self._seen_by(callback_on_step_end, callback_on_step_end_tensor_inputs)
        check_choice("output_type", output_type, OUTPUT_TYPES)
        check_count("num_videos_per_prompt", num_videos_per_prompt)
        self._begin_call(settings.guidance_scale, joint_attention_kwargs)

        device, dtype = self._execution_device, self.transformer.dtype
        with self._act("text"):
            embeds = self.encode_prompt(
                prompt,
                prompt_2,
                prompt_3,
                device=device,
                num_videos_per_prompt=num_videos_per_prompt,
                do_classifier_free_guidance=self.do_classifier_free_guidance,
                negative_prompt=negative_prompt,
                negative_prompt_2=negative_prompt_2,
                negative_prompt_3=negative_prompt_3,
                prompt_embeds=prompt_embeds,
                negative_prompt_embeds=negative_prompt_embeds,
                pooled_prompt_embeds=pooled_prompt_embeds,
                negative_pooled_prompt_embeds=negative_pooled_prompt_embeds,
                clip_skip=clip_skip,
                max_sequence_length=max_sequence_length,
                lora_scale=(joint_attention_kwargs or {}).get("scale"),
            )
        channels = self.transformer.config.in_channels
        noise = initial_latents(latents, shape, channels, generator, like=embeds[0])
        tensors = zip(self._callback_tensor_inputs, (noise, *embeds), strict=True)
        state = {name: t if t is None else t.to(device, dtype) for name, t in tensors}
        sigmas = sampling_sigmas(self._speed.num_steps(settings.num_inference_steps))
        scheduler.set_timesteps(sigmas=sigmas, device=device)
        with self._act("denoise"), self._modulation_ahead(state, scheduler.timesteps):
            final = self._denoise(state, scheduler, callback_on_step_end, seen)
        videos: Videos = final
        if output_type != "latent":
            with self._act("decode"):
                videos = decode_videos(self.vae, final, output_type)
        self.maybe_free_model_hooks()
        return ContentVPipelineOutput(frames=videos) if return_dict else (videos,)

    @torch.no_grad()
    def stream(self, latents: Tensor) -> Iterator[Frame]:
        """Decodes latents [1 c t h w] (`output_type="latent"`) frame by frame, bytes [h w 3].

        Raises:
            NumericsError: a frame has NaN values, or the video is black throughout.
        """
        with self._act("decode"):
            yield from stream_frames(self.vae, latents.to(self._execution_device))
        self.maybe_free_model_hooks()

    def encode_prompt(  # noqa: PLR0913 - diffusers' conventions
        self,
        prompt: Prompt | None,
        prompt_2: Prompt | None = None,
        prompt_3: Prompt | None = None,
        *,
        device: torch.device | None = None,
        num_videos_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: Prompt | None = None,
        negative_prompt_2: Prompt | None = None,
        negative_prompt_3: Prompt | None = None,
        prompt_embeds: Tensor | None = None,
        negative_prompt_embeds: Tensor | None = None,
        pooled_prompt_embeds: Tensor | None = None,
        negative_pooled_prompt_embeds: Tensor | None = None,
        clip_skip: int | None = None,
        max_sequence_length: int | None = None,
        lora_scale: float | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """Embeddings and pooled embeddings of prompts and of negative prompts, in SD3's order.

        Each prompt's embeddings stand `num_videos_per_prompt` times in a row. Embeddings given are
        passed on. T5 reads `max_sequence_length` tokens, by default the folder's own choice.

        Returns:
            `(prompt_embeds [b n d], negative_prompt_embeds, pooled_prompt_embeds [b p],
            negative_pooled_prompt_embeds)`; the negative ones None without guidance.
        """
        request = PromptRequest(
            prompt=prompt,
            prompt_2=prompt_2,
            prompt_3=prompt_3,
            negative_prompt=negative_prompt,
            negative_prompt_2=negative_prompt_2,
            negative_prompt_3=negative_prompt_3,
            prompt_embeds=prompt_embeds,
            negative_prompt_embeds=negative_prompt_embeds,
            pooled_prompt_embeds=pooled_prompt_embeds,
            negative_pooled_prompt_embeds=negative_pooled_prompt_embeds,
            guided=do_classifier_free_guidance,
            clip_skip=clip_skip,
            max_sequence_length=max_sequence_length,
            lora_scale=lora_scale,
        )
        return self._encode(request, num_videos_per_prompt, device)

    def release_text_encoders(self) -> None:
        """Frees the text encoders. Prompts used before still work, others need embeddings."""
        self.text_encoder = self.text_encoder_2 = self.text_encoder_3 = None

    def text_towers(self) -> TextTowers:
        """Tokenizers and text encoders that are there, together."""
        return TextTowers(
            tokenizer=self.tokenizer,
            tokenizer_2=self.tokenizer_2,
            tokenizer_3=self.tokenizer_3,
            text_encoder=self.text_encoder,
            text_encoder_2=self.text_encoder_2,
            text_encoder_3=self.text_encoder_3,
            sequence_width=self.transformer.config.joint_attention_dim,
        )

    def _seen_by(self, callback: Callable[..., Any] | None, asked: list[str] | None) -> list[str]:
        """Names of the tensors that a callback gets; UserError when there is none of a name."""
        if isinstance(callback, PipelineCallback | MultiPipelineCallbacks):
            asked = callback.tensor_inputs
        for name in asked or ():
            check_choice("callback_on_step_end_tensor_inputs", name, self._callback_tensor_inputs)
        return asked or ["latents"]

    def _encode(
        self, request: PromptRequest, repeats: int, device: torch.device | None
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        embeds, negative = encode(
            request,
            self.text_towers(),
            self._prompt_cache,
            text_lengths=self.defaults.text_lengths,
            device=self._execution_device if device is None else device,
        )
        sequence, pooled = (tensor.repeat_interleave(repeats, dim=0) for tensor in embeds)
        if negative is None:
            return sequence, None, pooled, None
        negative_sequence, negative_pooled = (
            tensor.repeat_interleave(repeats, dim=0) for tensor in negative
        )
        return sequence, negative_sequence, pooled, negative_pooled
