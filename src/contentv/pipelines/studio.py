"""A loaded model with the device it runs on: batches of jobs in, frames out."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import torch

from contentv.base.device import default_dtype, pick_device
from contentv.base.errors import ContentVError, ModelFilesError, UserError, WorldError
from contentv.base.log import get_logger
from contentv.base.types import Frame
from contentv.pipelines.batches import Plan
from contentv.pipelines.embeds import EmbeddedPrompts
from contentv.pipelines.folder import TEXT_PARTS
from contentv.pipelines.jobs import Job
from contentv.pipelines.loading import Dtype, FolderPipeline, no_progress_bars
from contentv.pipelines.memory.budget import fit_plan
from contentv.pipelines.memory.fitting import card_memory, host_memory, place
from contentv.pipelines.memory.modes import Mode
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.pipelines.sidecar import Machine, describe_machine

Loaded = TypeVar("Loaded", bound=FolderPipeline)

_LOG = get_logger(__name__)
_NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
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
        self.pipe.set_speed(first.speed)
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
    mode, chunk = _mode(plan, device, dtype)
    with explained_memory():
        options = {
            "quantization": mode.quantization,
            "lazy": mode.lazy,
            "release": mode.lazy,
        }
        pipe = load_pipeline(plan.folder, dtype, text=plan.embeds is None, options=options)
        place(pipe, mode, chunk=chunk, device=device)
    pipe.set_progress_bar_config(disable=True)
    name = str(dtype).removeprefix("torch.")
    machine = describe_machine(str(device), name, torch.get_num_threads())
    how = {"quantization": mode.quantization, "decoding": mode.decoding}
    return Studio(pipe, machine.model_copy(update=how), plan.embeds)


def _mode(plan: Plan, device: torch.device, dtype: torch.dtype) -> tuple[Mode, int | None]:
    """What saves memory: as asked for, or chosen for what may be used."""
    memory = plan.memory
    if not memory.limited:
        return Mode(plan.offload, quantization=memory.quantization, decoding=memory.decoding), None
    card, host = card_memory(device), host_memory()
    chosen = fit_plan(plan, card=card, host=host, itemsize=dtype.itemsize)
    for line in str(chosen).splitlines():
        _LOG.info("%s", line)
    return chosen.mode, chosen.chunk


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


def load_pipeline(
    folder: Path, dtype: Dtype, *, text: bool = True, options: Mapping[str, Any] = _NO_OPTIONS
) -> ContentVPipeline:
    """Load a folder silently; ModelFilesError when it holds something else.

    Without `text` it comes without text encoders and tokenizers, and reads embeddings only.
    `options` are more arguments of `from_pretrained`.
    """
    absent = dict.fromkeys(() if text else TEXT_PARTS)
    return load_folder(ContentVPipeline, folder, dtype, options={**options, **absent})


def load_folder(
    kind: type[Loaded], folder: Path, dtype: Dtype, *, options: Mapping[str, Any] = _NO_OPTIONS
) -> Loaded:
    """Load the parts of a folder that a kind of pipeline has, as `load_pipeline` does."""
    try:
        with no_progress_bars():
            return kind.from_pretrained(folder, dtype=dtype, local_files_only=True, **options)
    except (ContentVError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # the loaders of three libraries, each with its own errors
        reason = " ".join(str(error).split())[:200]
        raise ModelFilesError(f"{folder}: cannot be loaded ({reason})") from error
