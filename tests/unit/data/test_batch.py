import numpy as np
import torch

from contentv.data.batch import FeatureBatch, video_tensor
from contentv.video.transforms import to_uint8, to_unit


def test_bytes_become_channels_first_values_and_come_back() -> None:
    clips = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 5, 3), dtype=np.uint8)
    clips[0, 0, 0, 0], clips[0, 0, 0, 1] = 0, 255
    video = video_tensor(clips)
    assert video.shape == (2, 3, 3, 4, 5)
    assert video.dtype == torch.float32
    assert video[0, 1, 0, 0, 0] == -1
    assert video[0, 1, 0, 0, 1] == 1
    back = to_uint8(to_unit(video.permute(0, 2, 3, 4, 1).numpy()))
    assert np.array_equal(back, clips)


def test_a_moved_batch_of_features_is_the_same_batch() -> None:
    tensors = [torch.full((2,), float(number)) for number in range(5)]
    batch = FeatureBatch(*tensors, ("a", "b"))
    moved = batch.to(torch.device("meta"))
    assert all(x.device.type == "meta" for x in vars(moved).values() if isinstance(x, torch.Tensor))
    same = batch.to(torch.device("cpu"))
    assert [float(getattr(same, name)[0]) for name in vars(same) if name != "keys"] == [*range(5)]
    assert same.keys == ("a", "b")
