import numpy as np
import pytest
import torch

from contentv.data.batch import VideoBatch
from contentv.data.toyset import CLIP_FRAMES, ClipPhase, ToyVideoBatches
from contentv.toyworld.oracle import read
from contentv.toyworld.scene import HELD_OUT

PHASES = (
    ClipPhase(steps=3, shapes=((1, 3),)),
    ClipPhase(steps=4, shapes=((5, 2), (1, 3))),
    ClipPhase(steps=1, shapes=((17, 2),)),
)
BATCHES = ToyVideoBatches(0, "autoencoder3d", PHASES, size=16)


def test_a_batch_is_a_function_of_the_step_alone() -> None:
    first = [BATCHES(step) for step in range(5)]
    torch.manual_seed(1)
    np.random.seed(1)
    for step in reversed(range(5)):
        again = ToyVideoBatches(0, "autoencoder3d", PHASES, size=16)(step)
        assert torch.equal(again.video, first[step].video)
        assert torch.equal(again.noise, first[step].noise)
        assert again.keys == first[step].keys


@pytest.mark.parametrize("other", [(1, "autoencoder3d"), (0, "decoder")])
def test_seed_and_stage_change_everything(other: tuple[int, str]) -> None:
    one, two = BATCHES(0), ToyVideoBatches(*other, PHASES, size=16)(0)
    assert not torch.equal(one.video, two.video)
    assert not torch.equal(one.noise, two.noise)


def test_phases_cycle_through_their_shapes() -> None:
    shapes = [tuple(BATCHES(step).video.shape) for step in range(BATCHES.steps)]
    picture, short, clip = (3, 3, 1, 16, 16), (2, 3, 5, 16, 16), (2, 3, 17, 16, 16)
    assert shapes == [picture] * 3 + [short, picture] * 2 + [clip]
    assert BATCHES(3).noise.shape == (2, 16, 2, 2, 2)
    assert BATCHES(7).noise.shape == (2, 16, 5, 2, 2)
    with pytest.raises(IndexError, match="past the last phase"):
        BATCHES(8)


def test_samples_differ_and_have_names() -> None:
    videos = [BATCHES(step).video for step in range(3)]
    assert len(torch.cat(videos).flatten(1).unique(dim=0)) == 9
    keys = [key for step in range(8) for key in BATCHES(step).keys]
    assert len(set(keys)) == len(keys)
    assert BATCHES(3).keys == ("autoencoder3d/3/0", "autoencoder3d/3/1")


def test_pixels_fill_the_range_of_the_autoencoder() -> None:
    video = BATCHES(7).video
    assert video.dtype == torch.float32
    assert video.min() >= -1
    assert video.max() <= 1
    assert video.max() - video.min() > 0.5


def test_shorter_clips_are_windows_anywhere_in_the_whole_clip() -> None:
    """First frames alone would hide what growth, spin and travel look like at their ends."""

    def clips(frames: int) -> torch.Tensor:
        phase = ClipPhase(steps=1, shapes=((frames, 60),))
        return ToyVideoBatches(0, "s", (phase,), size=16)(0).video

    wholes, parts = clips(CLIP_FRAMES), clips(5)
    starts = set()
    for whole, part in zip(wholes, parts, strict=True):
        fits = [i for i in range(13) if torch.equal(whole[:, i : i + 5], part)]
        assert fits
        starts |= {fits[0]} if len(fits) == 1 else set()
    assert {0, 12} <= starts
    assert len(starts) >= 10


def test_every_nth_clip_has_a_held_out_pair_and_the_others_stay_as_they_were() -> None:
    def batch(every: int) -> VideoBatch:
        phase = ClipPhase(steps=3, shapes=((1, 12),), held_out_every=every)
        return ToyVideoBatches(0, "s", (phase,), size=64)(1)

    plain, mixed = batch(0), batch(4)
    changed = (plain.video != mixed.video).flatten(1).any(1)
    assert changed.nonzero().flatten().tolist() == [3, 7, 11]
    assert torch.equal(plain.noise, mixed.noise)
    for clip in mixed.video[changed]:
        frames = ((clip.permute(1, 2, 3, 0) + 1) * 127.5).round().byte().numpy()
        pairs = {(body.colour, body.shape) for body in read(frames).bodies}
        assert pairs & HELD_OUT
