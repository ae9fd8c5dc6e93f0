"""Latents of a data set's clips, encoded when first needed and remembered on disk."""

from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from contentv.base.errors import ContentVError
from contentv.base.files import atomic_path
from contentv.base.log import get_logger
from contentv.data.buckets import Fit
from contentv.data.manifest import Clip
from contentv.data.media import read_clip
from contentv.data.plan import Draw
from contentv.data.standins import UnreadableClipError
from contentv.encoding.encoder import FeatureEncoder
from contentv.encoding.identity import encoder_name
from contentv.encoding.views import MIDDLE, view_key
from contentv.models.vae import Posterior, normalize

_log = get_logger(__name__)


class ClipEncoder:
    """A frozen encoder before a folder of what it has encoded.

    A file is named by all that decides its content (`view_key`). Posteriors are kept in bfloat16
    and used so from the first time on.
    """

    def __init__(self, encoder: FeatureEncoder, root: Path, cache: Path) -> None:
        self._encoder, self._root, self._cache = encoder, root, cache
        self._name = encoder_name(encoder.identity, str(encoder.autoencoder.dtype))

    def __call__(self, clip: Clip, fit: Fit, start: float, generator: torch.Generator) -> Tensor:
        """Normalised latents [c t h w] drawn from the clip's posterior, float32, on the CPU.

        Raises:
            UnreadableClipError: the clip cannot be decoded.
            WorldError: the cache cannot be written.
        """
        key = view_key(self._name, clip, fit, start)
        path = self._cache / key[:2] / f"{key}.safetensors"  # folders of millions of files are slow
        posterior = _load(path) or self._encode(path, clip, fit, start)
        return draw_latents(self._encoder.autoencoder, posterior, generator)

    def _encode(self, path: Path, clip: Clip, fit: Fit, start: float) -> Posterior:
        try:
            frames = read_clip(self._root, clip, fit, middle(start))
        except ContentVError as error:
            raise UnreadableClipError(str(error)) from error
        posterior = self._encoder.clip(frames)
        with atomic_path(path) as part:
            save_file(posterior._asdict(), part)
        return posterior


def middle(start: float) -> Draw:
    """The middle of the picture, from the frames at `start` on."""
    return Draw(start, MIDDLE, MIDDLE, 0.0, (0.0, 0.0, 0.0))


def draw_latents(vae: AutoencoderKLWan, posterior: Posterior, generator: torch.Generator) -> Tensor:
    """Normalised latents [c t h w], float32, from a posterior as it is kept."""
    raw = Posterior(*(part.float() for part in posterior)).sample(generator)
    return normalize(vae, raw[None])[0]


def _load(path: Path) -> Posterior | None:
    if not path.is_file():
        return None
    try:
        tensors = load_file(path)
        return Posterior(tensors["mean"], tensors["logvar"])
    except (SafetensorError, KeyError) as error:
        _log.warning("%s: damaged (%s); encoding the clip again", path, error)
        return None
