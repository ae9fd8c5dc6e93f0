"""`contentv doctor`: what works on this machine, and what to do about the rest."""

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contentv.base.errors import ContentVError
from contentv.pipelines.config import DoctorConfig
from contentv.pipelines.folder import check_folder, fingerprint
from contentv.pipelines.locate import built_in_models, locate_model

State = Literal["ok", "note", "FAULT"]
_NEEDED = {
    "torch": "2.9",
    "diffusers": "0.42",
    "transformers": "5.2",
    "safetensors": "0.5",
    "av": "14",
    "pydantic": "2.10",
    "tyro": "1.0",
}
_ATTENTION = {
    "flash_attn": "FlashAttention 2",
    "sageattention": "SageAttention",
    "xformers": "xFormers",
}
_QUANTIZATION = {"torchao": "INT8, INT4, FP8", "bitsandbytes": "INT8, NF4"}
_LITTLE_MEMORY = 2 << 30
_LITTLE_DISK = 1 << 30
_INSTALL = "reinstall: pip install --force-reinstall contentv"


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what is so, and, if it is a fault, what to do."""

    state: State
    name: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{self.state:<6}{self.name:<14}{self.text}"
        return f"{line}\n{'':<20}-> {self.remedy}" if self.remedy else line


@dataclass(frozen=True)
class DoctorReport:
    """All findings."""

    findings: tuple[Finding, ...]

    def __str__(self) -> str:
        return "\n".join(str(finding) for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """1 when something that is needed does not work, else 0."""
        return int(any(finding.state == "FAULT" for finding in self.findings))


def run(config: DoctorConfig) -> DoctorReport:
    """Look at everything generation needs; nothing is downloaded or changed."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        _packages,
        _devices,
        _video,
        lambda: _optional("attention", _ATTENTION, "PyTorch's own attention is used"),
        lambda: _optional("quantization", _QUANTIZATION, "`contentv[quant]` brings it"),
        _memory,
        _disk,
        lambda: _models(config.model),
    ]
    return DoctorReport(tuple(finding for check in checks for finding in check()))


def _python() -> Iterator[Finding]:
    system = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding("ok", "python", f"{system}, {sys.executable}")


def _packages() -> Iterator[Finding]:
    for name, oldest in _NEEDED.items():
        try:
            version = importlib.metadata.version(name)
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - a broken package may raise anything
            reason = " ".join(str(error).split())
            yield Finding("FAULT", name, f"cannot be imported ({reason})", _INSTALL)
            continue
        if _numbers(version) < _numbers(oldest):
            remedy = f"pip install '{name}>={oldest}'"
            yield Finding("FAULT", name, f"{version} is older than {oldest}", remedy)
        else:
            yield Finding("ok", name, version)


def _devices() -> Iterator[Finding]:
    try:
        from contentv.base.device import default_dtype, describe_devices, pick_device

        device = pick_device()
        for line in describe_devices():
            yield Finding("ok", "device", line)
        dtype = str(default_dtype(device)).removeprefix("torch.")
        yield Finding("ok", "default", f"{device.type} in {dtype}")
    except (ContentVError, ImportError, RuntimeError) as error:
        yield Finding(
            "FAULT", "device", " ".join(str(error).split()), "`--device cpu` goes without"
        )


def _video() -> Iterator[Finding]:
    remedy = "pip install --force-reinstall av; or write .gif or png"
    try:
        from contentv.video.io import has_encoder
    except ImportError as error:
        yield Finding("FAULT", "video", f"PyAV does not work ({error})", remedy)
        return
    if has_encoder():
        yield Finding("ok", "video", "H.264 encoder")
    else:
        yield Finding("FAULT", "video", "this PyAV has no H.264 encoder", remedy)


def _optional(group: str, modules: dict[str, str], without: str) -> Iterator[Finding]:
    present = [name for name in modules if importlib.util.find_spec(name) is not None]
    for name in present:
        try:
            importlib.import_module(name)
        except Exception as error:  # noqa: BLE001 - a broken package may raise anything
            reason = " ".join(str(error).split())[:120]
            remedy = f"pip uninstall {name}, or install a build for this torch"
            yield Finding("note", group, f"{name} is installed but broken ({reason})", remedy)
        else:
            version = importlib.metadata.version(name)
            yield Finding("ok", group, f"{name} {version}: {modules[name]}")
    if not present:
        yield Finding("note", group, f"none of {', '.join(modules)} is installed; {without}")


def _memory() -> Iterator[Finding]:
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        yield Finding("note", "memory", "this system does not say how much is free")
        return
    little = free < _LITTLE_MEMORY
    yield Finding(
        "note" if little else "ok",
        "memory",
        f"{free / 2**30:.1f} GiB unused",
        "close other programs; below 2 GiB even the tiny model may not fit" if little else "",
    )


def _disk() -> Iterator[Finding]:
    from huggingface_hub.constants import HF_HUB_CACHE

    for name, place in (("here", Path.cwd()), ("hub cache", Path(HF_HUB_CACHE))):
        parent = next(folder for folder in (place, *place.parents) if folder.exists())
        free = shutil.disk_usage(parent).free
        text = f"{place}: {free / 2**30:.1f} GiB free"
        try:
            tempfile.TemporaryFile(dir=parent).close()
        except OSError as error:
            remedy = "HF_HOME names another folder" if name == "hub cache" else "work elsewhere"
            yield Finding("note", name, f"{place}: cannot be written ({error.strerror})", remedy)
            continue
        little = free < _LITTLE_DISK
        yield Finding("note" if little else "ok", name, text, "free some space" if little else "")


def _models(asked: str | None) -> Iterator[Finding]:
    folders = dict(built_in_models())
    if not folders:
        yield Finding("FAULT", "model", "no model came with the package", _INSTALL)
    try:
        if asked is not None:
            folders[asked] = locate_model(asked, offline=True)
    except ContentVError as error:
        yield Finding("FAULT", "model", str(error))
    for name, folder in folders.items():
        try:
            check_folder(folder)
        except ContentVError as error:
            yield Finding("FAULT", "model", str(error), _INSTALL)
        else:
            yield Finding(
                "ok", "model", f"{name}: whole, sha256 {fingerprint(folder)['sha256'][:12]}"
            )


def _numbers(version: str) -> tuple[int, ...]:
    parts = version.split("+", maxsplit=1)[0].split(".")
    return tuple(int(part) for part in parts if part.isdigit())
