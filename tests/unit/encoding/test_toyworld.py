from pathlib import Path

import numpy as np
import pytest
import torch

from contentv.data.features import load_shards
from contentv.encoding import toyworld as module
from contentv.encoding.toyworld import ToyEncoder, encode_toyworld, latent_statistics
from contentv.models.vae import encode
from contentv.models.zoo import tiny_autoencoder
from contentv.toyworld.dataset import sample


@pytest.fixture(scope="module")
def encoder() -> ToyEncoder:
    torch.manual_seed(0)
    return ToyEncoder(tiny_autoencoder().eval().requires_grad_(False))


@pytest.fixture(scope="module")
def clips() -> np.ndarray:
    return np.stack([sample(0, index).frames() for index in range(10)])


def test_features_are_the_posterior_that_the_pipelines_autoencoder_gives(
    encoder: ToyEncoder, clips: np.ndarray
) -> None:
    ours = encoder.encode(clips[:2])
    video = torch.from_numpy(clips[:2]).permute(0, 4, 1, 2, 3) / 127.5 - 1
    theirs = encode(encoder.vae, video)
    assert ours.mean.dtype == torch.float32
    assert ours.mean.shape == theirs.mean.shape == (2, 16, 5, 8, 8)
    # bfloat16 arithmetic against float32
    assert (ours.mean - theirs.mean).abs().max() < 0.1 * theirs.mean.std()
    assert torch.allclose(ours.logvar, theirs.logvar)


def test_a_clips_features_do_not_depend_on_its_neighbours(
    encoder: ToyEncoder, clips: np.ndarray
) -> None:
    together = encoder.encode(clips).mean
    assert len(together) == 10
    assert torch.equal(encoder.encode(clips[9:]).mean[0], together[9])
    assert torch.equal(encoder.encode(clips[3:5]).mean, together[3:5])
    # By construction, not by luck: the network always sees as many clips at once.
    assert [len(group) for group in module._groups(clips)] == [8, 8]


def test_workers_make_all_shards_once_and_finished_ones_stay(
    encoder: ToyEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARD_CLIPS", 4)

    def made(worker: int) -> list[Path]:
        shards = encode_toyworld(
            encoder, tmp_path, clips=10, frames=17, seed=0, worker=worker, workers=2
        )
        return list(shards)

    first, second = made(0), made(1)
    assert [len(first), len(second)] == [2, 1]
    assert sorted(tmp_path.iterdir()) == sorted(first + second)
    times = {path: path.stat().st_mtime_ns for path in first}
    assert made(0) == first
    assert times == {path: path.stat().st_mtime_ns for path in first}

    loaded = load_shards(tmp_path, encoder=encoder.identity)
    assert len(loaded) == 10
    alone = encoder.encode(sample(0, 9).frames()[None]).mean[0]
    assert torch.equal(loaded.mean[9], alone.bfloat16())


def test_pictures_are_how_clips_begin(encoder: ToyEncoder, tmp_path: Path) -> None:
    list(encode_toyworld(encoder, tmp_path, clips=2, frames=1, seed=0))
    pictures = load_shards(tmp_path, encoder=encoder.identity)
    assert pictures.mean.shape[2] == 1
    begin = encoder.encode(sample(0, 1).frames()[None, :1]).mean[0]
    assert torch.equal(pictures.mean[1], begin.bfloat16())


def test_statistics_normalise_every_channel(encoder: ToyEncoder, clips: np.ndarray) -> None:
    from contentv.data.features import Features

    posterior = encoder.encode(clips)
    mean, std = latent_statistics(Features(posterior.mean, posterior.logvar))
    view = (1, -1, 1, 1, 1)
    latents = (posterior.mean - mean.view(view)) / std.view(view)
    assert mean.shape == std.shape == (16,)
    assert latents.mean((0, 2, 3, 4)).abs().max() < 1e-4
    assert (latents.std((0, 2, 3, 4)) - 1).abs().max() < 1e-3
