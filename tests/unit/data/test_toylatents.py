from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch

from contentv.data.batch import LatentBatch
from contentv.data.features import Features
from contentv.data.toylatents import LatentBatches, LatentPhase, ToyCaptions
from contentv.flow.timesteps import SigmaDensity
from contentv.models.vae import normalize
from contentv.models.zoo import tiny_autoencoder
from contentv.toyworld.captions import parse
from contentv.toyworld.dataset import sample

CLIPS = 12
PICTURES = LatentPhase(steps=6, clips=4, frames=1)
VIDEOS = LatentPhase(steps=60, clips=3, frames=2, long_every=3, long_clips=2)


@cache
def clips(count: int = CLIPS) -> Features:
    """Clip i has mean i everywhere and no spread, so that latents tell which clip they are of."""
    mean = torch.arange(count).float().view(-1, 1, 1, 1, 1).expand(-1, 16, 3, 2, 2)
    return Features(mean, torch.full_like(mean, -100.0))


def named(index: int, long: bool, rng: np.random.Generator) -> str:
    """A caption that tells its length, its clip and its generator."""
    return f"{'long' if long else 'short'} {index} {rng.integers(1 << 30)}"


def batches(
    *phases: LatentPhase, seed: int = 0, stage: str = "flow", drop: float = 0.1
) -> LatentBatches:
    mean, std = torch.zeros(16), torch.ones(16)
    phases = phases or (PICTURES, VIDEOS)
    return LatentBatches(clips(), named, mean, std, seed, stage, phases, caption_drop=drop)


def same(one: LatentBatch, other: LatentBatch) -> bool:
    tensors = zip(
        (one.latents, one.noise, one.sigma),
        (other.latents, other.noise, other.sigma),
        strict=True,
    )
    return (one.captions, one.keys) == (other.captions, other.keys) and all(
        torch.equal(a, b) for a, b in tensors
    )


def test_a_batch_is_a_function_of_the_step_alone() -> None:
    forwards = batches()
    first = [forwards(step) for step in range(10)]
    torch.manual_seed(1)
    backwards = batches()
    for step in reversed(range(10)):
        assert same(backwards(step), first[step])


@pytest.mark.parametrize("change", [{"seed": 1}, {"stage": "sft"}])
def test_seed_and_stage_change_everything(change: dict[str, object]) -> None:
    one, other = batches()(0), batches(**change)(0)  # type: ignore[arg-type]
    assert one.keys != other.keys
    assert not torch.equal(one.noise, other.noise)
    assert not torch.equal(one.sigma, other.sigma)


def test_noise_differs_between_steps_and_slots_and_from_the_posteriors() -> None:
    draw = batches(PICTURES)
    noises = torch.cat([draw(step).noise for step in range(6)]).flatten(1)
    assert len(noises.unique(dim=0)) == 24
    loose = LatentBatches(
        Features(torch.zeros(4, 2, 1, 8, 8), torch.zeros(4, 2, 1, 8, 8)), named, torch.zeros(2),
        torch.ones(2), 0, "flow", (LatentPhase(steps=1, clips=4, frames=1),),
    )(0)  # fmt: skip
    correlation = torch.corrcoef(torch.stack([loose.latents.flatten(), loose.noise.flatten()]))
    assert correlation[0, 1].abs() < 0.2


def test_a_slots_draws_do_not_depend_on_how_many_there_are() -> None:
    """Law 4: keyed by (seed, step, slot), so that a step's samples can be dealt to any groups."""
    few = batches(LatentPhase(steps=2, clips=2, frames=1))(0)
    many = batches(LatentPhase(steps=2, clips=5, frames=1))(0)
    assert torch.equal(few.noise, many.noise[:2])
    assert torch.equal(few.sigma, many.sigma[:2])
    assert few.keys == many.keys[:2]


def test_phases_follow_each_other_with_their_own_shapes() -> None:
    draw = batches()
    assert draw(0).latents.shape == (4, 16, 1, 2, 2)
    assert draw(5).latents.shape == (4, 16, 1, 2, 2)
    assert draw(6).latents.shape == (3, 16, 2, 2, 2)
    assert draw(8).latents.shape == (2, 16, 2, 2, 2)
    assert draw(65).noise.shape == draw(65).latents.shape
    with pytest.raises(IndexError, match="66"):
        draw(66)


def test_each_phase_has_its_own_density() -> None:
    low = LatentPhase(steps=40, clips=8, frames=1, density=SigmaDensity(mean=-4))
    high = LatentPhase(steps=40, clips=8, frames=1, density=SigmaDensity(mean=4))
    draw = batches(low, high)
    assert torch.cat([draw(step).sigma for step in range(40)]).mean() < 0.1
    assert torch.cat([draw(step).sigma for step in range(40, 80)]).mean() > 0.9


def test_every_nth_batch_of_a_phase_reads_long_captions() -> None:
    draw = batches(drop=0.0)
    kinds = [{text.split()[0] for text in draw(step).captions} for step in range(15)]
    assert kinds == [{"short"}] * 6 + [{"short"}, {"short"}, {"long"}] * 3


def test_every_nth_of_the_other_batches_is_of_pictures() -> None:
    phase = LatentPhase(
        steps=12, clips=3, frames=2, long_every=3, long_clips=1, pictures_every=2, pictures=5
    )
    draw = batches(phase, drop=0.0)
    drawn = [draw(step) for step in range(12)]
    kinds = [(batch.captions[0].split()[0], tuple(batch.noise.shape[::2][:2])) for batch in drawn]
    clip, long, picture = ("short", (3, 2)), ("long", (1, 2)), ("short", (5, 1))
    assert kinds == [clip, picture, long, picture, clip, long] * 2
    assert sum(len(batch.keys) for batch in drawn) == phase.samples(12)


def test_a_clip_is_described_anew_each_time_and_always_truly() -> None:
    captions = ToyCaptions(seed=0)
    for index in range(3):
        truth = sample(0, index).scene.facts.items()
        for long in (False, True):
            rngs = (np.random.default_rng(key) for key in range(20))
            texts = {captions(index, long, rng) for rng in rngs}
            assert len(texts) > 5
            assert all(parse(text).items() <= truth for text in texts)


def test_words_are_keyed_by_step_and_slot() -> None:
    draw = batches(LatentPhase(steps=2, clips=24, frames=1), drop=0.0)
    words = [text.split()[2] for step in range(2) for text in draw(step).captions]
    assert len(set(words)) == 48


def test_captions_and_latents_are_of_the_clip_they_are_said_to_be() -> None:
    draw = batches(drop=0.0)
    for step in range(12):
        batch = draw(step)
        assert [text.split()[1] for text in batch.captions] == list(batch.keys)
        numbers = torch.tensor([float(key) for key in batch.keys]).view(-1, 1, 1, 1, 1)
        assert torch.allclose(batch.latents, numbers.expand_as(batch.latents), atol=1e-4)


def test_every_clip_comes_once_per_pass_through_all_phases() -> None:
    draw = batches(PICTURES, VIDEOS, PICTURES)
    order = [key for step in range(72) for key in draw(step).keys]
    assert len(order) == 6 * 4 + (40 * 3 + 20 * 2) + 6 * 4
    passes = [order[i : i + CLIPS] for i in range(0, len(order) - CLIPS, CLIPS)]
    assert all(Counter(one) == Counter(map(str, range(CLIPS))) for one in passes)
    assert len({tuple(one) for one in passes}) == len(passes)


def test_captions_are_dropped_at_the_rate_asked_for() -> None:
    phase = LatentPhase(steps=500, clips=8, frames=1)
    draw = batches(phase, drop=0.25)
    texts = [text for step in range(500) for text in draw(step).captions]
    rate = sum(text == "" for text in texts) / len(texts)
    assert abs(rate - 0.25) < 4 * (0.25 * 0.75 / len(texts)) ** 0.5
    assert "" not in batches(phase, drop=0.0)(0).captions
    assert set(batches(phase, drop=1.0)(0).captions) == {""}


def test_latents_are_normalised_as_the_pipeline_undoes_it() -> None:
    mean, std = torch.linspace(-1, 1, 16), torch.linspace(0.5, 2, 16)
    vae = tiny_autoencoder()
    vae.register_to_config(latents_mean=mean.tolist(), latents_std=std.tolist())
    ours = LatentBatches(clips(), named, mean, std, 0, "flow", (PICTURES,))(0).latents
    raw = batches(PICTURES)(0).latents
    assert torch.allclose(ours, normalize(vae, raw), atol=1e-6)
