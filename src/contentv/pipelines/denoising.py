"""The loop from noise to a video, and what a running call lets others see and change."""

from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, DiffusionPipeline
from torch import Tensor
from transformers import CLIPTokenizer

from contentv.base.errors import UserError
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.pipelines.checks import check_choice, check_count, check_finite
from contentv.pipelines.folder import GenerationDefaults
from contentv.pipelines.preparation import fill_in, latent_shape
from contentv.pipelines.speed.caching import StepCache, needs_both_halves
from contentv.pipelines.speed.guidance import PASSES, Inputs, Passes
from contentv.pipelines.speed.settings import EXACT, SpeedConfig, check_guided, choose_speed
from contentv.pipelines.speed.solvers import Scheduler
from contentv.pipelines.speed.tuned import TuningReport
from contentv.pipelines.speed.tuning import tune


class Denoising(DiffusionPipeline):
    """Part of the pipeline: the steps of a call, by diffusers' names."""

    transformer: ContentVTransformer3DModel
    vae: AutoencoderKLWan
    tokenizer: CLIPTokenizer | None
    defaults: GenerationDefaults
    _passes: Passes = PASSES["sequential"]
    _speed: SpeedConfig = EXACT
    _step_cache: StepCache | None = None

    def set_speed(self, speed: str | SpeedConfig) -> None:
        """Leaves out a part of the work of sampling: "exact" nothing, "balanced" some, "fast" more.

        A `SpeedConfig` says in detail what. Calls take a share of the steps asked for.

        Raises:
            UserError: no such preset; a step cache, where the transformer is compiled or has one of
                somebody else's.
        """
        chosen = choose_speed(speed)
        self._use_step_cache(chosen)
        self._speed = chosen

    @property
    def speed(self) -> SpeedConfig:
        """What calls leave out."""
        return self._speed

    def _use_step_cache(self, speed: SpeedConfig) -> None:
        if self._step_cache is None:
            self._step_cache = StepCache()
        if self.transformer is not None:  # else it comes when the steps begin
            self._step_cache.put_on(self.transformer, speed.cache, self._timestep)

    def _timestep(self) -> float:
        assert self._current_timestep is not None
        return float(self._current_timestep)

    def set_guidance_passes(self, passes: str) -> None:
        """Computes the two velocities of a guided step in one forward or in two.

        "sequential" (the default) needs less memory; "batched" computes less beside the matrix
        products, which counts for small videos. Results differ by rounding only.

        Raises:
            UserError: neither of the two; batched while a step cache is on.
        """
        check_choice("guidance passes", passes, PASSES)
        self._check_passes(PASSES[passes])
        self._passes = PASSES[passes]

    @property
    def guidance_passes(self) -> Passes:
        """How the two velocities of a guided step are computed."""
        return PASSES["batched"] if self._speed.is_joint else self._passes

    @torch.no_grad()
    def tune(
        self,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        *,
        text_tokens: int | None = None,
        may_compile: bool = False,
        repeats: int = 3,
        file: Path | None = None,
    ) -> TuningReport:
        """Finds and applies the fastest exact way to denoise videos of this size on this machine.

        Tries attention back-ends that only round, the two passes one by one and together, on a CPU
        a second copy of the blocks' weights in the order it reads them. Memory modes and
        quantization come before, step caches after. A process on a CPU keeps the memory it frees
        from then on.

        Args:
            height: of the video; None means the folder's own, as in a call; so with the next two.
            width: of it.
            num_frames: of it.
            text_tokens: of a prompt; None means the longest that the folder reads.
            may_compile: also tries compiled blocks, which takes a minute and more in each process.
            repeats: timed steps of each way, of which the fastest counts.
            file: where the report is kept. If it holds one of the same device, model, size and
                versions, that is applied and nothing is tried.

        Raises:
            UserError: a size that does not fit; the transformer is compiled or has a step cache.
        """
        check_count("repeats", repeats)
        settings = fill_in(self.defaults, height=height, width=width, num_frames=num_frames)
        shape = latent_shape(settings, self.vae, self.transformer)
        clip_tokens = 77 if self.tokenizer is None else self.tokenizer.model_max_length
        self._begin_call(settings.guidance_scale, joint_attention_kwargs=None)
        with self._act("denoise"):
            report = tune(
                self.transformer,
                self._predict,
                device=self._execution_device,
                latents=(self.transformer.config.in_channels, *astuple(shape)),
                text_tokens=text_tokens or clip_tokens + max(self.defaults.text_lengths),
                repeats=repeats,
                may_compile=may_compile,
                file=file,
            )
        self.maybe_free_model_hooks()
        self.set_guidance_passes(report.chosen.passes)
        return report

    def _check_passes(self, passes: Passes) -> None:
        config = getattr(self.transformer, "_cache_config", None)
        if config is None or passes.separate != needs_both_halves(config):
            return
        if passes.separate:
            raise UserError(
                f"guidance passes {passes.name!r}: the step cache would take one half for the "
                "other; use pipe.set_speed(SpeedConfig(cache=...))"
            )
        raise UserError(
            f"guidance passes {passes.name!r}: the step cache needs them one by one; use "
            "'sequential', or pipe.transformer.disable_cache()"
        )

    def _begin_call(
        self, guidance_scale: float, joint_attention_kwargs: dict[str, Any] | None
    ) -> None:
        self._check_passes(self.guidance_passes)
        check_guided(self._speed, is_guided=guidance_scale > 1)
        self._current_timestep: Tensor | None = None
        self._guidance_scale = guidance_scale
        self._joint_attention_kwargs = joint_attention_kwargs
        self._num_timesteps = 0
        self._interrupt = False

    @property
    def guidance_scale(self) -> float:
        """Guidance of the running call; callbacks may set `_guidance_scale`."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether the next step runs the transformer twice."""
        return self._guidance_scale > 1

    @property
    def joint_attention_kwargs(self) -> dict[str, Any] | None:
        """As given to the running call."""
        return self._joint_attention_kwargs

    @property
    def num_timesteps(self) -> int:
        """Steps of the running call."""
        return self._num_timesteps

    @property
    def current_timestep(self) -> Tensor | None:
        """Timestep of the running step, 0..1000; None between calls. Caches ask for it."""
        return self._current_timestep

    @property
    def interrupt(self) -> bool:
        """Set `_interrupt = True` in a callback to decode what there is and return."""
        return self._interrupt

    def _denoise(
        self,
        state: dict[str, Any],
        scheduler: Scheduler,
        callback: Callable[..., Any] | None,
        callback_names: list[str],
    ) -> Tensor:
        """Latents of a video from the noise in `state["latents"]`, a step at a time."""
        self._use_step_cache(self._speed)
        self._num_timesteps = len(scheduler.timesteps)
        for step, timestep in enumerate(self.progress_bar(scheduler.timesteps)):
            if self.interrupt:
                break
            self._current_timestep = timestep
            self.transformer.begin_step(step)
            velocity = self._velocity(state, timestep)
            latents = scheduler.step(velocity, timestep, state["latents"], return_dict=False)[0]
            check_finite(latents, f"in the latents after step {step + 1}")
            state["latents"] = latents
            if callback is not None:
                inputs = {name: state[name] for name in callback_names}
                outputs = callback(self, step, timestep, inputs) or {}
                state.update({name: outputs[name] for name in state.keys() & outputs.keys()})
        self._current_timestep = None
        final: Tensor = state["latents"]
        return final

    def _velocity(self, state: dict[str, Any], timestep: Tensor) -> Tensor:
        """Guided velocity [b c t h w]."""
        cond = _inputs(state, timestep)
        if not self._guides(state, timestep):
            return self._predict(cond, "cond")
        uncond = _inputs(state, timestep, prefix="negative_")
        velocity, negative = self.guidance_passes(self._predict, cond, uncond)
        return negative + self._guidance_scale * (velocity - negative)

    def _guides(self, state: dict[str, Any], timestep: Tensor) -> bool:
        if self._speed.is_joint:  # what the cache holds has as many rows as the first step
            return state["negative_prompt_embeds"] is not None
        return self.do_classifier_free_guidance and self._speed.guides(float(timestep) / 1000)

    def _predict(self, inputs: Inputs, context: str) -> Tensor:
        with self.transformer.cache_context(context):
            velocity: Tensor = self.transformer(
                hidden_states=inputs.latents,
                encoder_hidden_states=inputs.prompt_embeds,
                pooled_projections=inputs.pooled_prompt_embeds,
                timestep=inputs.timestep,
                joint_attention_kwargs=self._joint_attention_kwargs,
                return_dict=False,
            )[0]
        return velocity


def _inputs(state: dict[str, Any], timestep: Tensor, *, prefix: str = "") -> Inputs:
    latents: Tensor = state["latents"]
    return Inputs(
        latents,
        timestep.expand(len(latents)),
        state[f"{prefix}prompt_embeds"],
        state[f"{prefix}pooled_prompt_embeds"],
    )
