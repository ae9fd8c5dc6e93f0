"""Latents of a data set's clips, encoded when first needed and remembered on disk."""

import hashlib
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from contentv.base.errors import ContentVError
from contentv.base.files import atomic_path
from contentv.base.log import get_logger
from contentv.data.batch import video_tensor
from contentv.data.buckets import Fit
from contentv.data.manifest import Clip
from contentv.data.media import read_clip
from contentv.data.plan import Draw
from contentv.data.standins import UnreadableClipError
from contentv.encoding.encoder import FeatureEncoder
from contentv.models.vae import Posterior, encode, normalize

_log = get_logger(__name__)


class ClipEncoder:
    """A frozen autoencoder before a folder of what it has encoded.

    A file is named by all that decides its content: the encoder's weights and number format, the
    clip's file and its state when it was measured, the frames, the size and the part of the picture
    (its middle). Posteriors are kept in bfloat16 and used so from the first time on.
    """

    def __init__(self, vae: AutoencoderKLWan, root: Path, cache: Path) -> None:
        self._vae, self._root, self._cache = vae, root, cache
        self._identity = f"{FeatureEncoder(vae).identity}-{vae.dtype}"

    def __call__(self, clip: Clip, fit: Fit, start: float, generator: torch.Generator) -> Tensor:
        """Normalised latents [c t h w] drawn from the clip's posterior, float32, on the CPU.

        Raises:
            UnreadableClipError: the clip cannot be decoded.
            WorldError: the cache cannot be written.
        """
        view = Draw(start, 0.5, 0.5, 0.0, (0.0, 0.0, 0.0))
        path = self._cache / f"{self._name(clip, fit, view)}.safetensors"
        posterior = _load(path) or self._encode(path, clip, fit, view)
        raw = Posterior(*(part.float() for part in posterior)).sample(generator)
        return normalize(self._vae, raw[None])[0]

    def _name(self, clip: Clip, fit: Fit, view: Draw) -> str:
        source = (clip.path, clip.stamp, clip.offset, clip.length, clip.kind, clip.start)
        corner = fit.corner(view.down, view.right)
        shown = (fit.times(view.start), fit.height, fit.width, corner, fit.bucket)
        text = repr((self._identity, source, shown)).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, digest_size=16).hexdigest()

    @torch.no_grad()
    def _encode(self, path: Path, clip: Clip, fit: Fit, view: Draw) -> Posterior:
        try:
            frames = read_clip(self._root, clip, fit, view)
        except ContentVError as error:
            raise UnreadableClipError(str(error)) from error
        video = video_tensor(frames[None]).to(self._vae.device, self._vae.dtype)
        parts = (part[0].bfloat16().cpu().contiguous() for part in encode(self._vae, video))
        posterior = Posterior(*parts)
        with atomic_path(path) as part:
            save_file(posterior._asdict(), part)
        return posterior


def _load(path: Path) -> Posterior | None:
    if not path.is_file():
        return None
    try:
        tensors = load_file(path)
        return Posterior(tensors["mean"], tensors["logvar"])
    except (SafetensorError, KeyError) as error:
        _log.warning("%s: damaged (%s); encoding the clip again", path, error)
        return None
