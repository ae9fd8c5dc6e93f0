"""What `contentv evaluate` can be told."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from contentv.base.config import Argument, Config
from contentv.base.options import Device
from contentv.pipelines.config import Speed

Suite = Literal["toybench", "autoencoder"]
_FOLDERS_OWN = Argument(default="the model's own")
_ONLY_TOYBENCH = (
    *("captions", "num_inference_steps", "guidance_scale", "flow_shift"),
    *("speed", "dtype"),
)


class EvaluateConfig(Config):
    """Count how often a model's videos show what the prompts say, or measure its autoencoder.

    `toybench` makes videos of fresh prompts of the toy world and reads from the pixels whether each
    stated fact is true. `autoencoder` encodes and decodes unseen clips: their PSNR, and how often
    all facts survive, which is the ceiling of toybench. Finished clips are kept under --out: a
    stopped command goes on where it was, and more prompts add to those there are.
    """

    suite: Annotated[Suite, Argument(positional=True)] = Field(description="what to measure")
    model: str = Field("tiny", description="name, folder, or Hugging Face id")
    compare: Annotated[str | None, Argument(metavar="MODEL", default="none")] = Field(
        None, description="a second model, compared on the same prompts and noise"
    )
    num_prompts: int = Field(1000, ge=1, le=1_000_000, description="prompts; autoencoder: clips")
    split: Literal["seen", "held_out", "both"] = Field(
        "both",
        description="pairs of colour and shape that training captions name, do not, or half each",
    )
    captions: Literal["short", "long", "mixed"] = Field(
        "mixed", description="length of the prompts; mixed: half each"
    )
    seed: int = Field(1_000_000, ge=0, lt=2**63, description="which prompts and which noise")
    num_inference_steps: Annotated[int | None, _FOLDERS_OWN] = Field(
        None, ge=1, le=1000, description="denoising steps"
    )
    guidance_scale: Annotated[float | None, _FOLDERS_OWN] = Field(
        None, ge=0, le=100, description="how strictly to follow the prompt; 1 and less: unguided"
    )
    flow_shift: Annotated[float | None, _FOLDERS_OWN] = Field(
        None, gt=0, le=1000, description="shift of the steps towards high noise"
    )
    speed: Speed = Field("exact", description="as of `contentv generate`")
    batch_size: int = Field(16, ge=1, le=4096, description="videos sampled at once")
    out: Annotated[Path | None, Argument(default="SUITE_MODEL")] = Field(
        None, description="folder for the report and the clips' rows"
    )
    offline: bool = Field(default=False, description="use only what is already on this machine")
    device: Device = None
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None, Argument(default="by device")
    ] = Field(None, description="number format of the transformer and the text encoders")

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> "EvaluateConfig":
        if self.suite == "autoencoder":
            for name in _ONLY_TOYBENCH:
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} has no effect on autoencoder; leave it out")
        return self
