"""From a configuration to batches of videos and files: all decisions before any computing."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from contentv.base.errors import WorldError
from contentv.pipelines.config import (
    Decoding,
    Format,
    GenerateConfig,
    Offload,
    PromptConfig,
    Quantization,
)
from contentv.pipelines.embeds import EmbeddedPrompts, read_embeds
from contentv.pipelines.folder import check_folder, fingerprint, read_defaults
from contentv.pipelines.jobs import Job, plan_jobs, read_prompts
from contentv.pipelines.locate import locate_model
from contentv.pipelines.sidecar import ModelIdentity, Sidecar, read_sidecar
from contentv.pipelines.targets import choose_format, choose_paths, is_finished
from contentv.video.transforms import display_scale


@dataclass(frozen=True)
class Batch:
    """Jobs sampled together, and their files; None: sampled for the neighbours' sake only."""

    jobs: tuple[Job, ...]
    paths: tuple[Path | None, ...]

    def wanted(self) -> Iterator[tuple[int, Path]]:
        """Give row and file of each video that is written."""
        for row, path in enumerate(self.paths):
            if path is not None:
                yield row, path


@dataclass(frozen=True)
class MemoryRequest:
    """GB that may be used, `quantization` of weights; with a limit, it is only allowed.

    Another `decoding` is never asked for, but a video that was made so can be made again.
    """

    vram: float | None = None
    host: float | None = None
    quantization: Quantization | None = None
    decoding: Decoding = "float32"

    @property
    def limited(self) -> bool:
        """Whether a mode has to be chosen."""
        return self.vram is not None or self.host is not None


@dataclass(frozen=True)
class Plan:
    """What to make with which model. None: nobody asked, or for `frames_sha256`, nobody knows."""

    folder: Path
    model: ModelIdentity
    kind: Format
    scale: int | None
    batches: tuple[Batch, ...]
    frames_sha256: str | None
    device: str | None
    dtype: str | None
    threads: int | None
    offload: Offload
    memory: MemoryRequest
    embeds: EmbeddedPrompts | None

    def scale_of(self, job: Job) -> int:
        """How many times each pixel is repeated in the file."""
        return self.scale or display_scale(job.height, job.width)


def make_plan(config: GenerateConfig) -> Plan:
    """Decide everything that can be decided without the model's weights; raise what is wrong."""
    old = None if config.sidecar is None else read_sidecar(config.sidecar)
    embeds = None if config.prompt_embeds is None else read_embeds(config.prompt_embeds)
    prompts = read_prompts(config)
    if not prompts and old is not None:
        prompts = [PromptConfig(prompt=old.job.prompt)]
    if not prompts and embeds is not None:
        prompts = list(embeds.prompts)
    name = config.model or (old.model.name if old else "tiny")
    kind = choose_format(config.out, config.format, old.format if old else "mp4")
    folder = locate_model(name, offline=config.offline)
    check_folder(folder)
    place = str(folder.resolve()) if folder == Path(name) else name
    model = ModelIdentity(name=place, **fingerprint(folder))
    same_model = old is not None and model.sha256 == old.model.sha256
    if old is None:
        jobs = plan_jobs(prompts, config, read_defaults(folder).model_dump())
        batches = into_batches(jobs, choose_paths(config.out, kind, jobs), config.batch_size)
    else:
        if config.model is None and not same_model:
            raise WorldError(
                f"model {name}: not the one of {config.sidecar}; use --model to insist"
            )
        batches = _again(config, old, prompts, kind)
    if embeds is not None:
        embeds.check(folder, [job for batch in batches for job in batch.jobs])
    return Plan(
        folder=folder,
        model=model,
        kind=kind,
        scale=config.scale or (old.scale if old else None),
        batches=tuple(batches),
        frames_sha256=old.frames_sha256
        if old and same_model and batches[0].jobs == old.batch
        else None,
        device=config.device or (old.machine.device if old else None),
        dtype=config.dtype or (old.machine.dtype if old else None),
        threads=old.machine.threads if old else None,
        offload=config.offload,
        memory=_memory_request(config, old),
        embeds=embeds,
    )


def _memory_request(config: GenerateConfig, old: Sidecar | None) -> MemoryRequest:
    """What was asked for; a video made again is made in the way that decided its pixels."""
    flags = (config.vram, config.host, config.quantization)
    if old is not None and not any(flags):
        return MemoryRequest(quantization=old.machine.quantization, decoding=old.machine.decoding)
    return MemoryRequest(*flags)


def unfinished(plan: Plan, *, overwrite: bool) -> set[Path]:
    """Give the files that are not there yet; UserError when another video is in the way."""
    return {
        path
        for batch in plan.batches
        for row, path in batch.wanted()
        if not is_finished(
            path,
            batch.jobs[row],
            plan.model,
            plan.scale_of(batch.jobs[row]),
            overwrite=overwrite,
        )
    }


def _again(
    config: GenerateConfig, old: Sidecar, prompts: list[PromptConfig], kind: Format
) -> list[Batch]:
    jobs = plan_jobs(prompts, config, old.job.model_dump())
    paths = choose_paths(config.out, kind, jobs)
    if jobs != [old.job]:
        return into_batches(jobs, paths, config.batch_size)
    # The same video: sample it among the same neighbours, write only it.
    places = [paths[0] if row == old.batch_index else None for row in range(len(old.batch))]
    return [Batch(old.batch, tuple(places))]


def into_batches(jobs: Iterable[Job], paths: Iterable[Path | None], size: int) -> list[Batch]:
    """Put jobs that fit together into batches of `size` at most, in order."""
    # Finished videos stay in their batches: a resumed run gives the same videos as a whole one.
    groups: list[list[tuple[Job, Path | None]]] = []
    for job, path in zip(jobs, paths, strict=True):
        if not groups or len(groups[-1]) == size or not groups[-1][0][0].fits_with(job):
            groups.append([])
        groups[-1].append((job, path))
    return [Batch(*(tuple(column) for column in zip(*group, strict=True))) for group in groups]
