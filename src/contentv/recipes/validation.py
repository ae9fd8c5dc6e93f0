"""Videos of the same prompts and noise again and again while a model learns."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from contentv.base.errors import NumericsError
from contentv.base.log import get_logger
from contentv.base.types import Frames
from contentv.pipelines.config import GenerateConfig
from contentv.pipelines.folder import GenerationDefaults
from contentv.pipelines.jobs import Job, plan_jobs, read_prompts, slug
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.pipelines.sidecar import describe_machine
from contentv.pipelines.studio import Studio
from contentv.recipes.config import ValidationConfig
from contentv.recipes.dataset import PlannedData
from contentv.recipes.together import by_first
from contentv.toyworld.captions import parse, vocabulary
from contentv.toyworld.fitting import SIDE
from contentv.toyworld.oracle import read
from contentv.toyworld.reading import check
from contentv.training.peers import Peers
from contentv.training.state import TrainState
from contentv.video.io import write_video
from contentv.video.transforms import display_scale

_log = get_logger(__name__)

# One of each kind of happening, for models of the toy world.
TOY_PROMPTS = (
    "a red circle moves right quickly",
    "a slow small blue square rises",
    "a pink triangle grows on a black background",
    "a large cyan cross shrinks",
    "a yellow square that spins on white",
    "a green circle that stays still",
    "a red square sits above a blue triangle",
    "the camera pans left over a yellow cross",
)

_ALONE = Peers()


def plan_videos(config: ValidationConfig, defaults: GenerationDefaults) -> tuple[Job, ...]:
    """Fill in what `config` leaves to the model; UserError when its file cannot be used."""
    asked = GenerateConfig(prompts=config.prompts, prompts_file=config.prompts_file)
    return tuple(plan_jobs(read_prompts(asked), config, defaults.model_dump()))


def first_captions(data: PlannedData, most: int = 4) -> tuple[str, ...]:
    """Different captions of the first clips that are trained on, short ones where there are."""
    rows = sorted(row for shelf in data.plan.shelves for row in shelf.rows)
    clips = (data.listing.clips[row] for row in rows)
    captions = dict.fromkeys(clip.short or clip.long for clip in clips)
    return tuple(captions)[:most]


class Validation:
    """What `Watch.validate` asks for: videos of the averaged weights, and what they show.

    They go to `folder`, a folder per step. `pipe` holds the networks that learn, on their device;
    sampling computes in bfloat16 if training does (`bf16`). All processes sample the same, because
    networks may be spread over them; only the first decodes, so its autoencoder must be whole.
    """

    def __init__(
        self,
        pipe: ContentVPipeline,
        jobs: Sequence[Job],
        folder: Path,
        *,
        bf16: bool,
        peers: Peers = _ALONE,
    ) -> None:
        pipe.set_progress_bar_config(disable=True)
        self._device, dtype = pipe.transformer.device, pipe.transformer.dtype
        name = "bfloat16" if bf16 else str(dtype).removeprefix("torch.")
        machine = describe_machine(str(self._device), name, torch.get_num_threads())
        self._studio = Studio(pipe, machine, embeds=None)
        self._jobs, self._folder, self._bf16, self._peers = jobs, folder, bf16, peers

    def __call__(self, state: TrainState) -> dict[str, float]:
        """Shares of true facts and of prompts with all facts true, where the oracle can read.

        A video that cannot be made is logged and has no fact right. Every process must call this.

        Raises:
            WorldError: files cannot be written, or memory does not suffice.
        """
        folder = self._folder / f"step-{state.step:08d}"
        with state.averaged(), _resting(self._studio.pipe):
            verdicts = [
                self._make(job, folder / f"{number:02d}-{slug(job.prompt)}.mp4")
                for number, job in enumerate(self._jobs)
            ]
        return _shares([verdict for verdict in verdicts if verdict])

    def _make(self, job: Job, path: Path) -> dict[str, bool]:
        """Sample with all processes, then let the first write, judge and tell."""
        try:
            with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
                latents = self._studio.sample((job,), lambda: None)
        except NumericsError as error:  # in all processes alike: they computed the same
            return self._failed(job, path, error)
        verdict: dict[str, bool] = by_first(self._peers, lambda: self._show(latents, job, path))
        return verdict

    def _show(self, latents: Tensor, job: Job, path: Path) -> dict[str, bool]:
        try:
            frames = np.stack(list(self._studio.frames(latents)))
        except NumericsError as error:
            return self._failed(job, path, error)
        write_video(path, frames, fps=job.fps, scale=display_scale(job.height, job.width))
        return judge(job, frames)

    def _failed(self, job: Job, path: Path, error: NumericsError) -> dict[str, bool]:
        if self._peers.is_first:
            _log.warning("%s: %s", path, error)
        return judge(job, None)


def judge(job: Job, frames: Frames | None) -> dict[str, bool]:
    """Which stated facts are seen in a video [t h w 3]; no video shows none of them.

    Nothing is judged, and the result empty, unless the prompt is in words of the toy world and the
    video of a size that the oracle reads.
    """
    words = re.findall("[a-z]+", job.prompt.lower())
    if job.height != job.width or job.height % SIDE or not vocabulary().issuperset(words):
        return {}
    facts = parse(job.prompt)
    return dict.fromkeys(facts, False) if frames is None else check(facts, read(frames))


def _shares(verdicts: Sequence[dict[str, bool]]) -> dict[str, float]:
    if not verdicts:
        return {}
    facts = [right for verdict in verdicts for right in verdict.values()]
    return {
        "validation/all_facts": sum(all(v.values()) for v in verdicts) / len(verdicts),
        "validation/facts": sum(facts) / len(facts),
    }


@contextmanager
def _resting(pipe: ContentVPipeline) -> Iterator[None]:
    """Networks as they are when they do not learn, then each layer as it was.

    Nothing is compiled meanwhile: shapes unlike training's would use up the versions allowed.
    """
    networks = [part for part in pipe.components.values() if isinstance(part, nn.Module)]
    learning = [x for network in networks for x in network.modules() if x.training]
    for network in networks:
        network.eval()
    try:
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for layer in learning:
            layer.training = True
