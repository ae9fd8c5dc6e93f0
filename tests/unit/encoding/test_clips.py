from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan

from contentv.base.errors import WorldError
from contentv.data.batch import video_tensor
from contentv.data.buckets import BucketConfig, Buckets, Fit
from contentv.data.manifest import Clip
from contentv.data.standins import UnreadableClipError
from contentv.encoding.clips import ClipEncoder
from contentv.encoding.encoder import FeatureEncoder
from contentv.models.vae import encode, normalize
from contentv.models.zoo import tiny_autoencoder
from contentv.toyworld.dataset import sample
from contentv.video.io import read_video, write_video

BUCKETS = Buckets(BucketConfig(areas=(64 * 64,), frames=(5,), fps=8))


@pytest.fixture(scope="module")
def vae() -> AutoencoderKLWan:
    torch.manual_seed(0)
    made = tiny_autoencoder().eval().requires_grad_(False)
    made.register_to_config(latents_mean=[0.5] * 16, latents_std=[2.0] * 16)
    return made


@pytest.fixture
def clip(tmp_path: Path) -> Clip:
    write_video(tmp_path / "a.mp4", sample(0, 0).frames(17), fps=8)
    return Clip("a", "a.mp4", "video", "x", frames=17, fps=8.0, height=64, width=64, stamp="1")


def fit(clip: Clip) -> Fit:
    found = BUCKETS.fit(clip.size)
    assert isinstance(found, Fit), found
    return found


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def latents(vae: AutoencoderKLWan, root: Path, cache: str = "cache") -> ClipEncoder:
    return ClipEncoder(FeatureEncoder(vae), root, root / cache)


def files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache").rglob("*.safetensors"))


def test_latents_are_the_pipelines_encoding_of_the_clips_frames(
    tmp_path: Path, clip: Clip, vae: AutoencoderKLWan
) -> None:
    found = latents(vae, tmp_path)(clip, fit(clip), 0.5, rng())
    frames = read_video(tmp_path / "a.mp4").frames[6:11]
    with torch.no_grad():
        posterior = encode(vae, video_tensor(np.stack(list(frames))[None]))
    expected = normalize(vae, posterior.sample(rng()))[0]
    assert found.shape == (16, 2, 8, 8)
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 0.05 * expected.std()  # bfloat16 on disk


def test_a_clip_is_decoded_once_and_the_file_gives_the_same_bits(
    tmp_path: Path, clip: Clip, vae: AutoencoderKLWan
) -> None:
    first = latents(vae, tmp_path)(clip, fit(clip), 0.5, rng())
    (tmp_path / "a.mp4").unlink()
    again = latents(vae, tmp_path)(clip, fit(clip), 0.5, rng())
    assert torch.equal(first, again)
    assert len(files(tmp_path)) == 1
    with pytest.raises(UnreadableClipError):
        latents(vae, tmp_path)(clip, fit(clip), 0.0, rng())


def test_another_encoder_and_another_part_are_other_files(
    tmp_path: Path, clip: Clip, vae: AutoencoderKLWan
) -> None:
    torch.manual_seed(1)
    another = tiny_autoencoder().eval()
    for network, start in ((vae, 0.0), (vae, 1.0), (another, 0.0), (vae, 1.0)):
        latents(network, tmp_path)(clip, fit(clip), start, rng())
    assert len(files(tmp_path)) == 3


def test_a_damaged_file_of_latents_is_made_again(
    tmp_path: Path, clip: Clip, vae: AutoencoderKLWan, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = latents(vae, tmp_path)
    first = encoder(clip, fit(clip), 0.0, rng())
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes()[:-7])
    assert torch.equal(encoder(clip, fit(clip), 0.0, rng()), first)
    assert "encoding the clip again" in caplog.text


def test_a_clip_that_cannot_be_read_is_not_a_disk_that_cannot_be_written(
    tmp_path: Path, clip: Clip, vae: AutoencoderKLWan
) -> None:
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(WorldError, match="cannot write") as caught:
        latents(vae, tmp_path)(clip, fit(clip), 0.0, rng())
    assert not isinstance(caught.value, UnreadableClipError)
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(UnreadableClipError, match=r"^a: "):
        latents(vae, tmp_path, "elsewhere")(clip, fit(clip), 0.0, rng())
