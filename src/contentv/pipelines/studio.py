"""A loaded model with the device it runs on: batches of jobs in, frames out."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from contentv.base.device import default_dtype, pick_device
from contentv.base.errors import ContentVError, ModelFilesError, UserError, WorldError
from contentv.base.types import Frame
from contentv.pipelines.batches import Plan
from contentv.pipelines.config import Offload
from contentv.pipelines.embeds import EmbeddedPrompts
from contentv.pipelines.folder import TEXT_PARTS
from contentv.pipelines.jobs import Job
from contentv.pipelines.loading import Dtype, FolderPipeline
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.pipelines.sidecar import Machine, describe_machine

Loaded = TypeVar("Loaded", bound=FolderPipeline)

_SMALLER = "ask for fewer frames, a smaller size or --batch-size, or --offload model"


@dataclass(frozen=True)
class Studio:
    """A pipeline and what its numbers depend on; with `embeds` it has no text encoders."""

    pipe: ContentVPipeline
    machine: Machine
    embeds: EmbeddedPrompts | None

    def sample(self, jobs: tuple[Job, ...], on_step: Callable[[], None]) -> torch.Tensor:
        """Give the latents ``[b c t h w]`` of jobs that fit together; `on_step` after each step."""

        def count(pipe: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401, ARG001
            on_step()
            return tensors

        first = jobs[0]
        with explained_memory():
            (latents,) = self.pipe(
                **self._text(jobs),
                num_frames=first.num_frames,
                height=first.height,
                width=first.width,
                num_inference_steps=first.num_inference_steps,
                guidance_scale=first.guidance_scale,
                flow_shift=first.flow_shift,
                max_sequence_length=first.max_sequence_length,
                generator=[torch.Generator().manual_seed(job.seed) for job in jobs],
                output_type="latent",
                return_dict=False,
                callback_on_step_end=count,
            )
        assert isinstance(latents, torch.Tensor)
        return latents

    def _text(self, jobs: tuple[Job, ...]) -> dict[str, Any]:
        """The pipeline's arguments that say what the videos show."""
        if self.embeds is not None:
            arguments = self.embeds.arguments(jobs)
            # The noise is drawn in the format of the embeddings, so it must be the transformer's.
            device, dtype = self.pipe._execution_device, self.pipe.transformer.dtype  # noqa: SLF001
            return {name: tensor.to(device, dtype) for name, tensor in arguments.items()}
        negative = [job.negative_prompt for job in jobs if job.negative_prompt is not None]
        return {"prompt": [job.prompt for job in jobs], "negative_prompt": negative or None}

    def frames(self, latents: torch.Tensor) -> Iterator[Frame]:
        """Decode the latents ``[1 c t h w]`` of one video, frame by frame."""
        with explained_memory():
            yield from self.pipe.stream(latents)


def open_studio(plan: Plan) -> Studio:
    """Load the model of `plan`; ModelFilesError when the folder holds something else."""
    device = pick_device(plan.device)
    dtype = default_dtype(device) if plan.dtype is None else getattr(torch, plan.dtype)
    if plan.threads is not None and device.type == "cpu":
        torch.set_num_threads(plan.threads)  # sums over threads round by their number
    if plan.offload != "none" and device.type == "cpu":
        raise UserError(
            f"offload={plan.offload}: there is nothing to unload from a CPU; leave it out"
        )
    with explained_memory():
        pipe = load_pipeline(plan.folder, dtype, text=plan.embeds is None)
        _place(pipe, device, plan.offload)
    pipe.set_progress_bar_config(disable=True)
    name = str(dtype).removeprefix("torch.")
    machine = describe_machine(str(device), name, torch.get_num_threads())
    return Studio(pipe, machine, plan.embeds)


def _place(pipe: ContentVPipeline, device: torch.device, offload: Offload) -> None:
    if offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        pipe.to(device)


@contextmanager
def explained_memory() -> Iterator[None]:
    """Turn the many ways of running out of memory into one WorldError that names a way out."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise WorldError(f"not enough memory; {_SMALLER}") from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "not enough memory" in str(error):
            raise WorldError(f"not enough memory; {_SMALLER}") from error
        raise


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    for library in (diffusers_logging, transformers_logging):
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in (diffusers_logging, transformers_logging):
            library.enable_progress_bar()


def load_pipeline(folder: Path, dtype: Dtype, *, text: bool = True) -> ContentVPipeline:
    """Load a folder silently; ModelFilesError when it holds something else.

    Without `text` it comes without text encoders and tokenizers, and reads embeddings only.
    """
    return load_folder(ContentVPipeline, folder, dtype, leave_out=() if text else TEXT_PARTS)


def load_folder(
    kind: type[Loaded], folder: Path, dtype: Dtype, *, leave_out: Collection[str] = ()
) -> Loaded:
    """Load the parts of a folder that a kind of pipeline has, as `load_pipeline` does."""
    absent = dict.fromkeys(leave_out)
    try:
        with _no_progress_bars():
            return kind.from_pretrained(folder, dtype=dtype, local_files_only=True, **absent)
    except (ContentVError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the loaders of three libraries, each with its own errors
        reason = " ".join(str(error).split())[:200]
        raise ModelFilesError(f"{folder}: cannot be loaded ({reason})") from error
