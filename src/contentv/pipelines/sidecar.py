"""The JSON file beside a video: what made it, enough to make it again bit for bit."""

import importlib
import importlib.metadata
import platform
from pathlib import Path

from pydantic import ConfigDict, ValidationError

from contentv.base.config import Config, describe_validation_error
from contentv.base.errors import UserError
from contentv.base.files import read_json, write_json
from contentv.pipelines.config import Decoding, Format, Quantization
from contentv.pipelines.jobs import Job

_DECISIVE = ("torch", "diffusers", "transformers", "numpy", "av")


class Machine(Config):
    """Where and how a video was computed; another machine may round differently in the last bit.

    `quantization` of the weights and `decoding` change more than that.
    """

    device: str
    dtype: str
    threads: int
    platform: str
    versions: dict[str, str]
    quantization: Quantization | None = None
    decoding: Decoding = "float32"


class ModelIdentity(Config):
    """Which model: how it was called and the hash of its files."""

    name: str
    sha256: str
    of: str


class Sidecar(Config):
    """All that decides a video's file.

    `batch` are the jobs sampled together with this one, itself among them at `batch_index`:
    a matrix product over two rows may round differently from one over the first row alone.
    `scale` is how many times each pixel is repeated along both sides of the file. `frames_sha256`
    is the hash of the frames before that and before compression. `prompt_embeds` is the hash of the
    file of embeddings that stood for the prompts, None where the model's own encoders read them.
    """

    model_config = ConfigDict(extra="ignore")  # a newer version may say more

    job: Job
    batch: tuple[Job, ...]
    batch_index: int
    model: ModelIdentity
    format: Format
    scale: int
    machine: Machine
    frames_sha256: str
    prompt_embeds: str | None = None

    def is_of(self, job: Job, model: ModelIdentity, scale: int) -> bool:
        """Say whether this is the video of `job`, wherever and beside whatever it was made."""
        return (self.job, self.model.sha256, self.scale) == (job, model.sha256, scale)


def describe_machine(device: str, dtype: str, threads: int) -> Machine:
    """Note device, number format, threads, operating system and the versions that matter."""
    versions = {name: importlib.metadata.version(name) for name in _DECISIVE}
    versions["contentv"] = importlib.import_module("contentv").__version__
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return Machine(device=device, dtype=dtype, threads=threads, platform=system, versions=versions)


def sidecar_path(video: Path) -> Path:
    """Give the place of the JSON file of a video file or folder of pictures."""
    return video.with_name(f"{video.stem if video.suffix else video.name}.json")


def write_sidecar(path: Path, sidecar: Sidecar) -> None:
    """Write it atomically."""
    write_json(path, sidecar.model_dump(mode="json"))


def read_sidecar(path: Path) -> Sidecar:
    """Read it; UserError when the file is not one."""
    try:
        return Sidecar.model_validate(read_json(path))
    except ValidationError as error:
        raise UserError(
            f"{path}: not the JSON file of a video ({describe_validation_error(error)})"
        ) from error
