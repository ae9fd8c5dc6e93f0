"""The loop from noise to a video, and what a running call lets others see and change."""

from collections.abc import Callable
from typing import Any

from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from torch import Tensor

from contentv.models.transformer import ContentVTransformer3DModel
from contentv.pipelines.checks import check_finite


class Denoising(DiffusionPipeline):
    """Part of the pipeline: the steps of a call, by diffusers' names."""

    transformer: ContentVTransformer3DModel

    def _begin_call(
        self, guidance_scale: float, joint_attention_kwargs: dict[str, Any] | None
    ) -> None:
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
        scheduler: FlowMatchEulerDiscreteScheduler,
        callback: Callable[..., Any] | None,
        callback_names: list[str],
    ) -> Tensor:
        """Latents of a video from the noise in `state["latents"]`, a step at a time."""
        self._num_timesteps = len(scheduler.timesteps)
        for step, timestep in enumerate(self.progress_bar(scheduler.timesteps)):
            if self.interrupt:
                break
            self._current_timestep = timestep
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
        """Guided velocity, in two passes: caches tell them apart, memory stays half."""
        cond = self._predict(state, timestep, context="cond")
        if not self.do_classifier_free_guidance:
            return cond
        uncond = self._predict(state, timestep, context="uncond", prefix="negative_")
        return uncond + self._guidance_scale * (cond - uncond)

    def _predict(
        self, state: dict[str, Any], timestep: Tensor, *, context: str, prefix: str = ""
    ) -> Tensor:
        latents = state["latents"]
        with self.transformer.cache_context(context):
            velocity: Tensor = self.transformer(
                hidden_states=latents,
                encoder_hidden_states=state[f"{prefix}prompt_embeds"],
                pooled_projections=state[f"{prefix}pooled_prompt_embeds"],
                timestep=timestep.expand(len(latents)),
                joint_attention_kwargs=self._joint_attention_kwargs,
                return_dict=False,
            )[0]
        return velocity
