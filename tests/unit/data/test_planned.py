import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from contentv.base.errors import UserError
from contentv.data.batch import FeatureBatch
from contentv.data.buckets import Bucket, BucketConfig, Buckets, Fit
from contentv.data.manifest import Clip
from contentv.data.plan import MixPhase, Plan
from contentv.data.planned import PlannedBatches, SamplingConfig
from contentv.data.shelves import shelve
from contentv.data.standins import StandIn, StandInFile, UnreadableClipError
from contentv.flow.timesteps import SigmaDensity

BUCKETS = Buckets(BucketConfig(areas=(64 * 64,), frames=(1, 5), fps=8))


def clip(number: int, *, frames: int = 5) -> Clip:
    name = f"{number}.mp4"
    kind = "picture" if frames == 1 else "video"
    size = {"frames": frames, "fps": 0.0 if frames == 1 else 8.0, "height": 64, "width": 64}
    return Clip(name, name, kind, f"short {number}", f"long {number}", **size)  # type: ignore[arg-type]


CLIPS = [*(clip(n) for n in range(7)), *(clip(n, frames=1) for n in range(7, 12))]


class Latents:
    """Latents that tell their clip and their start; some clips cannot be read."""

    def __init__(self, broken: Sequence[str] = ()) -> None:
        self.broken, self.asked = broken, list[str]()

    def __call__(self, clip: Clip, fit: Fit, start: float, generator: torch.Generator) -> Tensor:
        self.asked.append(clip.id)
        if clip.id in self.broken:
            raise UnreadableClipError(f"{clip.id}: is damaged")
        base = float(clip.id.split(".")[0]) + 100 * start
        shape = (2, (fit.bucket.frames - 1) // 4 + 1, 2, 2)
        return base + 1e-3 * torch.randn(shape, generator=generator)


class Texts:
    """Embeddings that are the numbers of their captions."""

    def __init__(self) -> None:
        self.known: list[str] = []

    def __call__(self, *captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        rows = [[self._number(text) for text in texts] for texts in zip(*captions, strict=True)]
        return torch.tensor(rows)[..., None], torch.tensor(rows)

    def read(self, batch: FeatureBatch, sample: int) -> tuple[str, ...]:
        return tuple(self.known[int(number)] for number in batch.pooled[sample])

    def _number(self, text: str) -> int:
        if text not in self.known:
            self.known.append(text)
        return self.known.index(text)


TEXTS = Texts()


def plan(clips: Sequence[Clip] = CLIPS, *, seed: int = 0, batches_per_step: int = 4) -> Plan:
    sizes = {bucket: 3 if bucket.frames == 1 else 2 for bucket in BUCKETS.shapes}
    shelves = shelve(clips, BUCKETS, sizes, lambda bucket: float(bucket.frames))
    phases = (MixPhase(steps=1000, pictures=5, videos=7),)
    return Plan(seed, "stage", shelves, phases, batches_per_step, "content")


def batches(
    latents: Latents | None = None,
    *,
    seed: int = 0,
    group: int = 0,
    groups: int = 1,
    record: list[StandIn] | None = None,
    **sampling: object,
) -> PlannedBatches:
    return PlannedBatches(
        plan(seed=seed),
        CLIPS,
        BUCKETS,
        latents or Latents(),
        TEXTS,
        SamplingConfig(**sampling),  # type: ignore[arg-type]
        (record if record is not None else []).append,
        group,
        groups,
    )


def samples(drawn: Sequence[FeatureBatch]) -> list[tuple[object, ...]]:
    """All that is known of each sample, in an order of its own."""
    found = [
        (
            b.keys[i], *TEXTS.read(b, i), float(b.sigma[i]),
            tuple(b.latents[i].flatten().tolist()), tuple(b.noise[i].flatten().tolist()),
        )
        for b in drawn
        for i in range(len(b.keys))
    ]  # fmt: skip
    return sorted(found)


def test_a_step_is_a_function_of_its_number_alone() -> None:
    forwards, backwards = batches(), batches()
    first = [samples(forwards(step).batches) for step in range(6)]
    assert [samples(backwards(step).batches) for step in reversed(range(6))] == first[::-1]
    assert samples(batches(seed=1)(0).batches) != first[0]


@pytest.mark.parametrize("groups", [2, 4])
def test_the_number_of_groups_changes_neither_samples_nor_noise(groups: int) -> None:
    whole = batches()(3)
    shares = [batches(group=group, groups=groups)(3) for group in range(groups)]
    assert samples([b for share in shares for b in share.batches]) == samples(whole.batches)
    assert {share.num_samples for share in shares} == {whole.num_samples}
    assert whole.num_samples == sum(len(batch.keys) for batch in whole.batches)


def test_no_two_samples_of_a_step_share_noise_sigma_or_their_posteriors_noise() -> None:
    drawn = samples(batches()(0).batches) + samples(batches()(1).batches)
    for column in (4, 6):
        assert len({sample[column] for sample in drawn}) == len(drawn)
    latents = {sample[5] for sample in drawn}  # a clip seen twice is drawn twice
    assert len(latents) == len(drawn)


def test_the_noise_levels_are_those_of_the_density() -> None:
    def levels(shift: float) -> list[float]:
        density = SigmaDensity(name="uniform", shift=shift)
        drawn = batches(density=density)
        return [float(s) for step in range(60) for b in drawn(step).batches for s in b.sigma]

    assert np.mean(levels(1.0)) == pytest.approx(0.5, abs=0.04)
    assert np.mean(levels(4.0)) > 0.65


def test_each_encoder_drops_its_captions_by_itself() -> None:
    drawn = batches(caption_drop=0.5, long_captions=0.0)
    texts = [s[:4] for step in range(100) for s in samples(drawn(step).batches)]
    kept = np.array([[caption != "" for caption in captions] for _, *captions in texts])
    assert np.allclose(kept.mean(0), 0.5, atol=0.06)
    assert abs(np.corrcoef(kept.T)[np.triu_indices(3, 1)]).max() < 0.12
    wanted = {f"short {key.split('.')[0]}" for key, *_ in texts}  # type: ignore[attr-defined]
    assert {caption for _, *captions in texts for caption in captions} == wanted | {""}


@pytest.mark.parametrize("share", [0.0, 1.0, 0.3])
def test_long_captions_come_at_their_share(share: float) -> None:
    drawn = batches(caption_drop=0.0, long_captions=share)
    texts = [s[1] for step in range(100) for s in samples(drawn(step).batches)]
    long = [str(text).startswith("long") for text in texts]
    assert np.mean(long) == pytest.approx(share, abs=0.06 if 0 < share < 1 else 0)


def test_a_clip_with_one_caption_is_read_by_that() -> None:
    one = Clip("0.mp4", "0.mp4", "video", "", "only", frames=5, fps=8.0, height=64, width=64)
    only_videos = Plan(
        0, "stage", plan([one, CLIPS[8]]).shelves, (MixPhase(steps=5),), 2, "content"
    )
    sampling = SamplingConfig(long_captions=0.0, caption_drop=0.0)
    drawn = PlannedBatches(only_videos, [one], BUCKETS, Latents(), TEXTS, sampling, [].append)
    assert TEXTS.read(drawn(0).batches[0], 0) == ("only",) * 3


def test_windows_lie_evenly_in_a_clip_and_one_is_its_middle() -> None:
    def starts(windows: int) -> set[float]:
        drawn = batches(windows=windows)
        found = [s for step in range(40) for s in samples(drawn(step).batches)]
        latents = [(float(str(s[0]).split(".")[0]), s[5][0]) for s in found]  # type: ignore[index]
        return {round((value - base) / 100, 2) for base, value in latents}

    assert starts(1) == {0.5}
    assert starts(5) == {0.1, 0.3, 0.5, 0.7, 0.9}


def test_another_clip_of_the_bucket_stands_in_for_one_that_cannot_be_read() -> None:
    record: list[StandIn] = []
    latents = Latents(broken=("2.mp4",))
    whole, torn = batches(), batches(latents, record=record)
    before = [whole(step) for step in range(12)]
    after = [torn(step) for step in range(12)]
    assert {(line.clip, line.reason) for line in record} == {("2.mp4", "2.mp4: is damaged")}
    (instead,) = {line.instead for line in record}
    assert instead in {clip.id for clip in CLIPS[:7]}
    for ours, theirs in zip(before, after, strict=True):
        for one, other in zip(ours.batches, theirs.batches, strict=True):
            expected = tuple(instead if key == "2.mp4" else key for key in one.keys)
            assert other.keys == expected
            assert torch.equal(one.noise, other.noise)
            assert torch.equal(one.sigma, other.sigma)
    assert latents.asked.count("2.mp4") == 1


def test_a_stand_in_that_cannot_be_read_has_one_too() -> None:
    readable = "4.mp4"
    record: list[StandIn] = []
    latents = Latents(broken=[clip.id for clip in CLIPS[:7] if clip.id != readable])
    drawn = batches(latents, record=record)
    for step in range(8):
        for batch in drawn(step).batches:
            assert batch.latents.shape[2] == 1 or set(batch.keys) == {readable}
    assert len({line.clip for line in record}) == 6


def test_a_bucket_of_which_nothing_can_be_read_is_a_users_error() -> None:
    drawn = batches(Latents(broken=[clip.id for clip in CLIPS]))
    with pytest.raises(UserError, match=r"none of its \d clips can be read"):
        drawn(0)


def test_a_stand_in_is_written_once_whatever_happens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = StandIn("a", "a: torn", "b"), StandIn("\udcff", "c: torn", "d")
    file = StandInFile(tmp_path / "run" / "stand_ins.jsonl")
    for stand_in in (one, other, one):
        file(stand_in)
    again = StandInFile(tmp_path / "run" / "stand_ins.jsonl")
    again(one)
    lines = (tmp_path / "run" / "stand_ins.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"clip": "a", "reason": "a: torn", "instead": "b"},
        {"clip": "\udcff", "reason": "c: torn", "instead": "d"},
    ]
    assert caplog.text.count("b stands in") == 1


def test_the_shapes_are_those_of_the_buckets() -> None:
    for batch in batches()(0).batches:
        frames = {1 if int(key.split(".")[0]) >= 7 else 2 for key in batch.keys}
        assert frames == {batch.latents.shape[2]}
        assert batch.noise.shape == batch.latents.shape
        assert Bucket(5, 64, 64) in BUCKETS.shapes
