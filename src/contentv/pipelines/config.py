"""What `contentv generate` and `contentv doctor` can be told."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from contentv.base.config import Argument, Config
from contentv.base.options import Device

Format = Literal["mp4", "gif", "png"]
Speed = Literal["exact", "balanced", "fast"]
Offload = Literal["none", "model", "group", "sequential"]
Quantization = Literal["int8", "int8-dynamic", "int4", "nf4", "fp8"]
Decoding = Literal["float32", "bfloat16", "tiles"]
"""Exact; rounded to bfloat16; or overlapping tiles, whose seams are blended."""
_FOLDERS_OWN = Argument(default="the model's own")
_LONGEST_PROMPT = 4000
_FRAME_STEP = 4  # the autoencoder squeezes 4 frames into one, after the first
_SIDE_STEP = 16  # 8 pixels a latent, 2 latents a patch


class SamplingConfig(Config):
    """What decides the pixels besides prompt and model, by diffusers' names; None: unsaid."""

    negative_prompt: Annotated[str | None, Argument(default="none")] = Field(
        None, max_length=_LONGEST_PROMPT, description="what the video should not show"
    )
    seed: Annotated[int | None, Argument(default="0")] = Field(
        None, ge=0, lt=2**63, description="number that fixes the noise"
    )
    num_videos_per_prompt: Annotated[int | None, Argument(default="1")] = Field(
        None, ge=1, le=10_000, description="videos of each prompt, with seeds SEED, SEED+1, ..."
    )
    num_frames: Annotated[int | None, _FOLDERS_OWN] = Field(
        None, ge=1, le=4001, description="length, 4k+1 frames"
    )
    height: Annotated[int | None, _FOLDERS_OWN] = Field(
        None, ge=_SIDE_STEP, le=4096, description="height, a multiple of 16"
    )
    width: Annotated[int | None, _FOLDERS_OWN] = Field(
        None, ge=_SIDE_STEP, le=4096, description="width, a multiple of 16"
    )
    fps: Annotated[int | None, _FOLDERS_OWN] = Field(
        None, ge=1, le=120, description="frames a second of the file"
    )
    num_inference_steps: Annotated[int | None, _FOLDERS_OWN] = Field(
        None, ge=1, le=1000, description="denoising steps; more are slower and finer"
    )
    guidance_scale: Annotated[float | None, _FOLDERS_OWN] = Field(
        None, ge=0, le=100, description="how strictly to follow the prompt; 1 and less: unguided"
    )
    flow_shift: Annotated[float | None, _FOLDERS_OWN] = Field(
        None, gt=0, le=1000, description="shift of the steps towards high noise"
    )
    max_sequence_length: Annotated[int | None, _FOLDERS_OWN] = Field(
        None, ge=1, le=512, description="words of the prompt that T5 reads, in tokens"
    )
    speed: Annotated[Speed | None, Argument(default="exact")] = Field(
        None, description="leave out work at some cost: fewer steps of the number asked for"
    )

    @field_validator("num_frames")
    @classmethod
    def _whole_latents(cls, frames: int | None) -> int | None:
        if frames is not None and (frames - 1) % _FRAME_STEP:
            lower = (frames - 1) // _FRAME_STEP * _FRAME_STEP + 1
            raise ValueError(
                f"num_frames={frames}: must be 4k+1; use {lower} or {lower + _FRAME_STEP}"
            )
        return frames

    @field_validator("height", "width")
    @classmethod
    def _whole_patches(cls, side: int | None) -> int | None:
        if side is not None and side % _SIDE_STEP:
            lower = side // _SIDE_STEP * _SIDE_STEP
            raise ValueError(f"must be a multiple of 16; use {lower} or {lower + _SIDE_STEP}")
        return side


class PromptConfig(SamplingConfig):
    """One line of a prompt file: a prompt and what differs for it."""

    prompt: str = Field(max_length=_LONGEST_PROMPT)

    @field_validator("prompt")
    @classmethod
    def _says_something(cls, prompt: str) -> str:
        if not prompt.strip():
            raise ValueError("the prompt is empty; say what the video shows")
        return prompt


class GenerateConfig(SamplingConfig):
    """Make videos from prompts.

    Each video gets a JSON file beside it, from which `--from` makes it again, bit for bit on the
    same machine. Finished videos are not made twice: a stopped command goes on where it was.
    """

    prompts: Annotated[tuple[str, ...], Argument(positional=True, metavar="PROMPT")] = Field(
        (), description="what the videos show; each argument is one prompt"
    )
    prompt: str | None = Field(None, description="one more prompt, for those who like flags")
    prompts_file: Annotated[Path | None, Argument(flag="prompts", metavar="FILE")] = Field(
        None, description='prompts, one a line, or JSONL: {"prompt": ..., "seed": ...}'
    )
    prompt_embeds: Annotated[Path | None, Argument(metavar="FILE")] = Field(
        None,
        description="what `contentv encode --prompts` made: the text encoders are not loaded; "
        "without a prompt, all prompts of the file",
    )
    sidecar: Annotated[Path | None, Argument(flag="from", metavar="JSON")] = Field(
        None, description="make the video of this JSON file again; flags given here win"
    )
    model: Annotated[str | None, Argument(default="tiny")] = Field(
        None, description="name, folder, or Hugging Face id such as ByteDance/ContentV-8B"
    )
    out: Annotated[Path | None, Argument(default="here")] = Field(
        None, description="file (.mp4, .gif, .png) or folder to write to"
    )
    format: Annotated[Format | None, Argument(default="by --out, else mp4")] = Field(
        None, description="kind of file; png is a folder of pictures"
    )
    scale: Annotated[int | None, Argument(default="what makes the short side 256")] = Field(
        None, ge=1, le=64, description="write each pixel as SCALE x SCALE pixels"
    )
    batch_size: int = Field(1, ge=1, le=256, description="videos sampled at once")
    overwrite: bool = Field(default=False, description="make everything again, over what is there")
    offline: bool = Field(default=False, description="use only what is already on this machine")
    device: Device = None
    offload: Offload = Field(
        "none", description="keep the parts that rest in main memory: slower, on smaller cards"
    )
    vram: Annotated[float | None, Argument(metavar="GB")] = Field(
        None, gt=0, le=10_000, description="fit into a card of so much memory, losing least speed"
    )
    host: Annotated[float | None, Argument(metavar="GB", default="what there is")] = Field(
        None, gt=0, le=100_000, description="main memory that may be used"
    )
    quantization: Annotated[Quantization | None, Argument(default="exact weights")] = Field(
        None,
        description="round the weights; with --vram or --host only where exact ones do not fit",
    )
    explain_memory: bool = Field(
        default=False, description="only show what memory each mode needs; loads nothing"
    )
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None, Argument(default="by device")
    ] = Field(None, description="number format of the transformer and the text encoders")

    @model_validator(mode="after")
    def _knows_what_to_show(self) -> "GenerateConfig":
        asked = (
            *(self.prompts, self.prompts_file, self.prompt_embeds, self.sidecar),
            self.explain_memory,
        )
        if not any(asked) and self.prompt is None:
            raise ValueError('no prompt; write what the video shows: contentv generate "..."')
        if self.sidecar and self.prompts_file:
            raise ValueError("--from and --prompts exclude each other")
        return self

    @model_validator(mode="after")
    def _asks_for_one_placement(self) -> "GenerateConfig":
        if self.offload != "none" and (self.vram or self.host):
            raise ValueError(
                f"offload={self.offload}: --vram and --host choose what is offloaded; leave out one"
            )
        if self.vram is not None and self.device == "cpu":
            raise ValueError(f"vram={self.vram:g}: device=cpu has main memory only; use --host")
        return self


class DoctorConfig(Config):
    """Say what works on this machine, and what to do about the rest."""

    model: Annotated[str | None, Argument(default="every model that comes with the package")] = (
        Field(None, description="also check this model folder or Hugging Face id")
    )
