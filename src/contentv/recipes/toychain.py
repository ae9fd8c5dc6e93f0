"""The chain of the tiny recipe: which stage comes after which, and what it must not forget."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from contentv.base.config import Config, load_yaml, save_yaml
from contentv.base.errors import UserError
from contentv.base.progress import progress
from contentv.data.toyset import CLIP_FRAMES
from contentv.distributed import checkpoint
from contentv.encoding.toyworld import (
    GROUP_CLIPS,
    SHARD_CLIPS,
    ToyEncoder,
    encode_toyworld,
    shard_name,
)
from contentv.recipes.chain import Link, run_chain
from contentv.recipes.tiny import LatentStage, TinyRecipe
from contentv.recipes.toystages import (
    BEFORE,
    VIDEO_STAGES,
    Compute,
    ToyRun,
    features_folder,
    num_scenes,
    toy_autoencoder,
    train_pixels,
    train_t2i,
    train_text_encoders,
    train_video,
    write_final_model,
)

_RUN = "run.yaml"
_HALVES = 2  # in which clips are encoded, so that two processes may share the work


def dry_run(recipe: TinyRecipe, folder: Path, compute: Compute) -> None:
    """Build every stage of a run in `folder` and say what it would do; nothing is written there."""
    _refuse_changes(recipe, folder)
    few = recipe.model_copy(update={"clips": GROUP_CLIPS, "pictures": GROUP_CLIPS})
    with TemporaryDirectory() as scratch:
        run_chain(_links(ToyRun(few, folder, Path(scratch), compute)))


def links(recipe: TinyRecipe, folder: Path, compute: Compute) -> list[Link]:
    """The stages of a run in `folder`; UserError when one has begun with other data."""
    _refuse_changes(recipe, folder)
    save_yaml(recipe, folder / _RUN)
    return _links(ToyRun(recipe, folder, folder, compute))


def _links(run: ToyRun) -> list[Link]:
    """In the order in which a free processor should take them."""
    clips = tuple(f"clips-{half + 1}" for half in range(_HALVES))
    encode_clips = [
        _encoding(run, name, frames=CLIP_FRAMES, worker=half, workers=_HALVES)
        for half, name in enumerate(clips)
    ]
    return [
        _training(run, "autoencoder2d", (), train_pixels),
        _training(run, "text_encoders", (), train_text_encoders),
        _training(run, "autoencoder3d", (BEFORE["autoencoder3d"],), train_pixels),
        _encoding(run, "pictures", frames=1, worker=0, workers=1),
        _training(run, "t2i", ("pictures", "text_encoders"), train_t2i, model=True),
        *encode_clips,
        *(
            _training(run, name, (BEFORE[name], *clips), train_video, model=True)
            for name in VIDEO_STAGES
        ),
        _training(run, "decoder", (BEFORE["decoder"],), train_pixels),
        Link(
            "model",
            ("stage3", "decoder"),
            partial(write_final_model, run),
            (run.products / "model").is_dir,
        ),
    ]


def _training(
    run: ToyRun,
    name: str,
    after: tuple[str, ...],
    train_stage: Callable[[ToyRun, str], None],
    *,
    model: bool = False,
) -> Link:
    def is_done() -> bool:
        found = checkpoint.latest(run.folder / name)
        steps = run.recipe.stages[name].stage.steps
        finished = found is not None and checkpoint.inspect(found).step >= steps
        return finished and (not model or (run.products / name / "model").is_dir())

    return Link(name, after, partial(train_stage, run, name), is_done)


def _encoding(run: ToyRun, name: str, *, frames: int, worker: int, workers: int) -> Link:
    """Pictures go through the picture autoencoder, clips through that of clips."""
    vae = "autoencoder2d" if frames == 1 else "autoencoder3d"
    clips, folder = num_scenes(run, frames), features_folder(run, frames)
    shards = range(worker * SHARD_CLIPS, clips, workers * SHARD_CLIPS)

    def encode() -> None:
        network = toy_autoencoder(run, vae).to(run.compute.device)
        encoder = ToyEncoder(network, compiled=run.compute.compiled)
        made = encode_toyworld(
            encoder, folder, clips=clips, frames=frames, seed=run.recipe.seed,
            worker=worker, workers=workers,
        )  # fmt: skip
        with progress(len(shards), f"{name}, {SHARD_CLIPS} clips each") as bar:
            for _ in made:
                bar.advance()

    def is_done() -> bool:
        return all((folder / shard_name(first)).exists() for first in shards)

    return Link(name, (vae,), encode, is_done)


def _refuse_changes(recipe: TinyRecipe, folder: Path) -> None:
    """UserError when a stage that has begun would go on with other data."""
    if not (folder / _RUN).is_file():
        return
    before = load_yaml(TinyRecipe, folder / _RUN)
    for name, stage in recipe.stages.items():
        if checkpoint.latest(folder / name) is None:
            continue
        changed = _changed(before.stages[name], stage, {"stage"})
        if isinstance(stage, LatentStage):
            changed += _changed(before, recipe, {*recipe.stages, "defaults"})
        if changed:
            raise UserError(
                f"{folder}: stage {name} began with other {', '.join(changed)}; "
                "restore them or choose another --out"
            )


def _changed(before: Config, now: Config, but: set[str]) -> list[str]:
    names = type(now).model_fields.keys() - but
    return sorted(name for name in names if getattr(before, name) != getattr(now, name))
