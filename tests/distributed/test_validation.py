"""Videos of networks that are spread over processes."""

from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from builders import DEFAULTS, random_pipeline
from contentv.base.types import Frames
from contentv.data.batch import FeatureBatch
from contentv.distributed.clip import clip_grad_norm
from contentv.distributed.config import ParallelConfig
from contentv.distributed.mesh import build_mesh
from contentv.distributed.parallelize import parallelize
from contentv.models.parallel import declare
from contentv.pipelines.folder import GenerationDefaults
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.recipes.config import ValidationConfig
from contentv.recipes.validation import Validation, plan_videos
from contentv.training.config import OptimizerConfig, StageConfig
from contentv.training.objectives.frozen_text import FrozenTextObjective
from contentv.training.peers import Peers
from contentv.training.state import TrainState, load_untied
from contentv.training.trainer import Trainer
from contentv.training.watch import Watch
from contentv.training.work import Work
from contentv.video.io import read_video
from lines import equal, whole
from ranks import folder, run_ranks

ASKED = ValidationConfig(every=1, prompts=("a red circle",), num_frames=5, num_inference_steps=2)
JOBS = plan_videos(ASKED, GenerationDefaults.model_validate(DEFAULTS))
STEPS = 3
NAME = f"step-{STEPS:08d}/00-a-red-circle.mp4"


def batch(step: int) -> Work[FeatureBatch]:
    draw = torch.Generator().manual_seed(step)
    latents, noise, sequence, pooled = (
        torch.randn(2, *shape, generator=draw)
        for shape in ((16, 2, 8, 8), (16, 2, 8, 8), (32, 128), (96,))
    )
    sigma = torch.rand(2, generator=draw)
    return Work((FeatureBatch(latents, noise, sigma, sequence, pooled, ("a", "b")),), 2)


def train(pipe: ContentVPipeline, peers: Peers, out: Path, *, every: int) -> TrainState:
    objective = FrozenTextObjective(
        pipe.transformer, networks=nn.ModuleDict({"transformer": pipe.transformer})
    )
    config = StageConfig(
        name="stage",
        steps=STEPS,
        bf16=False,
        optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=0),
        validate_every=every,
    )
    validate = Validation(pipe, JOBS, out / "videos", bf16=False, peers=peers)
    return Trainer(
        objective, batch, config, out, watch=Watch(validate=validate), peers=peers,
        clip=clip_grad_norm,
    ).run()  # fmt: skip


def train_sharded(config: ParallelConfig, out: Path, *, every: int) -> dict[str, Tensor]:
    """Weights, averages and moments after a stage in which all processes see the same samples."""
    mesh, pipe = build_mesh(config, torch.device("cpu")), random_pipeline(1)
    parallelize(pipe.transformer, mesh, declare(pipe.transformer))
    return whole(train(pipe, Peers.of_world(), out, every=every))


def video_of(weights: dict[str, Tensor], out: Path) -> Frames:
    """The video that one process makes of these weights."""
    pipe = random_pipeline(1)
    networks = nn.ModuleDict({"transformer": pipe.transformer})
    load_untied(networks, weights)
    state = TrainState.start(networks, [])
    state.step = STEPS
    Validation(pipe, JOBS, out, bf16=False)(state)
    return read_video(out / NAME).frames


def assert_unnoticed(config: ParallelConfig, out: Path) -> None:
    """The same bits as without videos; and these are of the averaged weights."""
    without = train_sharded(config, out / "without", every=0)
    assert equal(train_sharded(config, out / "with", every=1), without)
    if dist.get_rank() > 0:
        return
    assert len(list((out / "with/videos").rglob("*.mp4"))) == STEPS
    made = read_video(out / "with/videos" / NAME).frames
    weights, averages = (
        {name.removeprefix(kind): x for name, x in without.items() if name.startswith(kind)}
        for kind in ("model.", "ema.")
    )
    assert difference(made, video_of(averages, out / "averages")) < 0.5
    assert difference(made, video_of(weights, out / "weights")) > 1


def difference(one: Frames, other: Frames) -> float:
    """Mean over all pixels, of 0..255."""
    return float(np.abs(one.astype(int) - other).mean())


def two_processes() -> None:
    assert_unnoticed(ParallelConfig(shard=2), folder() / "shard")
    assert_unnoticed(ParallelConfig(sp=2), folder() / "sp")


def test_sharded_networks_make_videos_and_train_on_as_if_they_had_not(tmp_path: Path) -> None:
    (tmp_path / "ranks").mkdir()
    run_ranks(two_processes, 2, tmp_path / "ranks")
