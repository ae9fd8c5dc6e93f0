import torch

from builders import random_pipeline
from contentv.models import vae as autoencoder
from contentv.pipelines.decoding import stream_frames


def test_a_pipeline_decodes_in_bfloat16_when_asked() -> None:
    pipe = random_pipeline()
    latents = torch.randn(1, 16, 2, 4, 4)
    exact = list(pipe.stream(latents))
    pipe.enable_bfloat16_decoding()
    assert pipe.vae.dtype == torch.bfloat16
    for frame, rounded in zip(exact, pipe.stream(latents), strict=True):
        assert abs(frame.astype(int) - rounded.astype(int)).max() <= 8


def test_tiled_frames_come_in_order_and_count() -> None:
    vae = random_pipeline().vae
    latents = torch.randn(1, 16, 3, 4, 4)
    vae.enable_tiling(16, 16, 8, 8)
    with torch.no_grad():
        video = autoencoder.decode(vae, latents)
        frames = list(stream_frames(vae, latents))
    assert len(frames) == 9
    assert all(frame.shape == (32, 32, 3) for frame in frames)
    middle = ((video[0, :, 4].permute(1, 2, 0) + 1) * 127.5).round()
    assert (torch.from_numpy(frames[4].astype(int)) - middle).abs().max() <= 1
