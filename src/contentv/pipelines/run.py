"""`contentv generate`: prompts in, video files out."""

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from contentv.base.errors import NumericsError
from contentv.base.files import remove
from contentv.base.log import get_logger
from contentv.base.progress import progress
from contentv.base.spared import need
from contentv.base.types import Frame
from contentv.pipelines.batches import Batch, Plan, make_plan, unfinished
from contentv.pipelines.config import GenerateConfig
from contentv.pipelines.folder import needed_by, needed_libraries
from contentv.pipelines.memory.budget import explain
from contentv.pipelines.memory.explaining import MemoryTable
from contentv.pipelines.sidecar import Machine, Sidecar, sidecar_path, write_sidecar
from contentv.pipelines.speed.settings import choose_speed
from contentv.pipelines.targets import check_writable
from contentv.video.io import atomic_video, encode_video

if TYPE_CHECKING:
    from contentv.pipelines.studio import Studio

_LOG = get_logger(__name__)
_ELSEWHERE = "another machine, device or library version (compare `machine` in the JSON files)"


@dataclass(frozen=True)
class GenerateResult:
    """The files of all videos asked for, earlier finished ones included, and those that failed.

    With `explain_memory` there is a table instead.
    """

    files: tuple[Path, ...]
    failed: tuple[Path, ...]
    memory: MemoryTable | None = None

    def __str__(self) -> str:
        if self.memory is not None:
            return str(self.memory)
        return "\n".join(str(path) for path in self.files)

    @property
    def exit_code(self) -> int:
        """0, or 1 when a video failed."""
        return 1 if self.failed else 0


def run(config: GenerateConfig) -> GenerateResult:
    """Make the videos that `config` asks for, except finished ones, and say where they are."""
    if config.explain_memory:
        return GenerateResult((), (), memory=explain(config))
    plan = make_plan(config)
    files = [path for batch in plan.batches for _, path in batch.wanted()]
    todo = unfinished(plan, overwrite=config.overwrite)
    if len(todo) < len(files):
        _LOG.info("%d of %d videos were finished before", len(files) - len(todo), len(files))
    failed = _make(plan, todo) if todo else set[Path]()
    if failed is None:
        return GenerateResult((), ())
    return GenerateResult(
        files=tuple(path for path in files if path not in failed),
        failed=tuple(path for path in files if path in failed),
    )


def _make(plan: Plan, todo: set[Path]) -> set[Path] | None:
    """Write the files in `todo`; give those that failed, or None where another process writes."""
    for path in todo:
        check_writable(path)
    need(needed_libraries(plan.folder) | needed_by(plan.memory.quantization))
    # Only here: what is wrong with the request is said before seconds of imports.
    from contentv.pipelines.speed.parallel import joined, spread
    from contentv.pipelines.studio import open_studio

    batches = [batch for batch in plan.batches if not todo.isdisjoint(batch.paths)]
    guided = any(batch.jobs[0].guidance_scale > 1 for batch in batches)
    with joined(plan.device, guided=guided) as crew:
        studio = open_studio(replace(plan, device=crew.device))
        if crew.size > 1:
            spread(studio.pipe, guidance=crew.guidance, tokens=crew.tokens)
        if crew.is_first:
            return _sample(plan, batches, todo, studio)
        _help(batches, studio)
        return None


def _help(batches: list[Batch], studio: "Studio") -> None:
    """Sample what the first process samples; it writes."""
    for batch in batches:
        with suppress(NumericsError):
            studio.sample(batch.jobs, lambda: None)


def _sample(plan: Plan, batches: list[Batch], todo: set[Path], studio: "Studio") -> set[Path]:
    left = set(todo)
    with progress(sum(_num_steps(batch) for batch in batches), "sampling") as bar:
        for batch in batches:
            with _logged_numerics():
                latents = studio.sample(batch.jobs, bar.advance)
                for row, path in batch.wanted():
                    if path in todo:
                        with _logged_numerics():
                            frames = studio.frames(latents[row : row + 1])
                            made_by = studio.machine
                            _write(path, frames, plan=plan, machine=made_by, batch=batch, row=row)
                            left.discard(path)
    return left


def _num_steps(batch: Batch) -> int:
    first = batch.jobs[0]
    return choose_speed(first.speed).num_steps(first.num_inference_steps)


@contextmanager
def _logged_numerics() -> Iterator[None]:
    # One bad video does not stop the others; the exit code tells.
    try:
        yield
    except NumericsError as error:
        _LOG.error("%s", error)


def _write(
    path: Path, frames: Iterable[Frame], *, plan: Plan, machine: Machine, batch: Batch, row: int
) -> None:
    """Write one video and, before it appears, its JSON file: so a finished video always has one."""
    job, scale = batch.jobs[row], plan.scale_of(batch.jobs[row])
    digest = hashlib.sha256()
    with atomic_video(path) as part:
        encode_video(part, _hashed(frames, digest), fps=job.fps, scale=scale)
        sidecar = Sidecar(
            job=job,
            batch=batch.jobs,
            batch_index=row,
            model=plan.model,
            format=plan.kind,
            scale=scale,
            machine=machine,
            frames_sha256=digest.hexdigest(),
            prompt_embeds=None if plan.embeds is None else plan.embeds.sha256,
        )
        if plan.frames_sha256 not in (None, sidecar.frames_sha256):
            _LOG.warning("%s: not bit for bit the video it was made from: %s", path, _ELSEWHERE)
        remove(path)
        write_sidecar(sidecar_path(path), sidecar)


def _hashed(frames: Iterable[Frame], digest: "hashlib._Hash") -> Iterator[Frame]:
    for frame in frames:
        digest.update(np.ascontiguousarray(frame).data)
        yield frame
