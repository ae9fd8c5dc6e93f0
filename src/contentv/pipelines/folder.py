"""A model folder on disk: is it whole, what are its defaults, which model is it."""

import hashlib
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from contentv.base.config import Config
from contentv.base.errors import ModelFilesError, UserError
from contentv.base.files import os_errors, read_json
from contentv.base.spared import QUANTIZERS

INDEX = "model_index.json"
TEXT_PARTS = (
    *("text_encoder", "text_encoder_2", "text_encoder_3"),
    *("tokenizer", "tokenizer_2", "tokenizer_3"),
)
_HASHED_WHOLE = 1 << 30
_HASHED_END = 1 << 20
_LONGEST_HEADER = 100 << 20  # the limit of the safetensors format


class GenerationDefaults(Config):
    """Settings that suit a model, from its model_index.json; else those of the published 8B."""

    model_config = ConfigDict(extra="ignore")  # a newer folder may say more

    height: int = 432
    width: int = 768
    num_frames: int = 125
    fps: int = 24
    num_inference_steps: int = 50
    guidance_scale: float = 6.0
    flow_shift: float | None = None
    text_lengths: tuple[int, ...] = (256,)


def read_defaults(folder: Path) -> GenerationDefaults:
    """Give the settings that `folder` was made for."""
    return GenerationDefaults.model_validate(_read_index(folder).get("generation_defaults") or {})


def read_parts(folder: Path) -> list[str]:
    """Give the names of the parts that the index of `folder` lists."""
    return _components(_read_index(folder))


def check_folder(folder: Path) -> None:
    """Raise ModelFilesError naming the first file that is missing, cut short or unreadable."""
    for name in read_parts(folder):
        if not (folder / name).is_dir():
            raise ModelFilesError(f"{folder / name}: is missing; {_again(folder)}")
        for file in sorted((folder / name).glob("*.json")):
            content = _read_model_json(file)
            if file.name.endswith(".safetensors.index.json"):
                _check_shards(file, content)
        for file in sorted((folder / name).glob("*.safetensors")):
            read_header(file)


def needed_libraries(folder: Path) -> set[str]:
    """Optional libraries that it takes to load a folder: what is in it may be quantized, say."""
    needed: set[str] = set()
    for file in folder.glob("*/*config.json"):
        content = _read_model_json(file)
        if content.get("quantization_config"):
            needed.update(QUANTIZERS)
        if content.get("use_beta_sigmas"):
            needed.add("scipy")
        if file.name == "adapter_config.json":
            needed.add("peft")
    return needed


def needed_by(quantization: str | None) -> set[str]:
    """Optional libraries that it takes to round weights as they are loaded."""
    return set() if quantization is None else set(QUANTIZERS)


def _check_shards(index: Path, content: dict[str, Any]) -> None:
    for shard in sorted(set(content.get("weight_map", {}).values())):
        if not index.with_name(shard).is_file():
            raise ModelFilesError(f"{index.with_name(shard)}: is missing; {_again(index.parent)}")


def read_header(file: Path) -> dict[str, Any]:
    """Give the JSON header of a safetensors file after comparing it with the file's length."""
    fault = f"{file}: not a whole safetensors file"
    with os_errors(file, "read"), file.open("rb") as handle:
        size = file.stat().st_size
        length = int.from_bytes(handle.read(8), "little")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            raise ModelFilesError(f"{fault} ({size} bytes); {_again(file.parent)}")
        text = handle.read(length)
    try:
        header: dict[str, Any] = json.loads(text)
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelFilesError(f"{fault} (no header); {_again(file.parent)}") from error
    if size != 8 + length + end:
        raise ModelFilesError(
            f"{fault} ({size} of {8 + length + end} bytes); {_again(file.parent)}"
        )
    return header


def fingerprint(folder: Path, parts: Collection[str] = ()) -> dict[str, str]:
    """Give a hash of all that decides the model's output, and how it was taken.

    With `parts`, of what lies in these folders of it. Below 1 GiB every byte counts. Above, reading
    all of it would take longer than a video does, so of each file the size and the first and last
    MiB count.
    """
    files = [
        file for file in _files(folder) if not parts or file.relative_to(folder).parts[0] in parts
    ]
    with os_errors(folder, "read"):
        whole = sum(file.stat().st_size for file in files) < _HASHED_WHOLE
        digest = hashlib.sha256()
        for file in files:
            digest.update(f"{file.relative_to(folder).as_posix()}\0".encode())
            digest.update(_file_digest(file, whole=whole))
    method = "all bytes" if whole else "sizes, first and last MiB of each file"
    return {"sha256": digest.hexdigest(), "of": method}


def _files(folder: Path) -> Iterator[Path]:
    suffixes = {".safetensors", ".json", ".txt", ".model"}
    for file in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
        if file.suffix in suffixes and file.is_file() and not hidden:
            yield file


def _file_digest(file: Path, *, whole: bool) -> bytes:
    with file.open("rb") as handle:
        if whole:
            return hashlib.file_digest(handle, "sha256").digest()
        size = file.stat().st_size
        digest = hashlib.sha256(f"{size}\0".encode())
        digest.update(handle.read(_HASHED_END))
        handle.seek(max(0, size - _HASHED_END))
        digest.update(handle.read())
        return digest.digest()


def _read_index(folder: Path) -> dict[str, Any]:
    if not (folder / INDEX).is_file():
        raise UserError(f"{folder}: has no {INDEX}, so it is not a model folder")
    return _read_model_json(folder / INDEX)


def _read_model_json(file: Path) -> dict[str, Any]:
    try:
        content = read_json(file)
    except UserError as error:
        raise ModelFilesError(f"{error}; {_again(file.parent)}") from error
    if not isinstance(content, dict):
        raise ModelFilesError(f"{file}: not a JSON object; {_again(file.parent)}")
    return content


def _components(index: dict[str, Any]) -> list[str]:
    # A part is an entry [library, class]; [null, null] says that the model does without it.
    return [
        name
        for name, entry in index.items()
        if isinstance(entry, list) and len(entry) == 2 and entry[1] is not None
    ]


def _again(folder: Path) -> str:
    return f"download or export the model again ({folder.name})"
