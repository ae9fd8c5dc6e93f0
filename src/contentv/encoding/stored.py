"""Features of a store in place of encoders: the same calls, the same bits, no network run."""

from collections.abc import Sequence
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from contentv.base.errors import UserError
from contentv.data.buckets import BucketConfig, Fit
from contentv.data.manifest import Clip
from contentv.data.standins import UnreadableClipError
from contentv.encoding.captions import join_towers, stack_rows
from contentv.encoding.clips import draw_latents
from contentv.encoding.encoder import FeatureEncoder, TowerEmbeds
from contentv.encoding.identity import (
    ClipIdentity,
    StoreIdentity,
    TextIdentity,
    encoder_build,
    read_identity,
    refuse_stale,
)
from contentv.encoding.index import IndexRow
from contentv.encoding.store import CAPTIONS, CLIPS, ShardFolder, text_key
from contentv.encoding.texts import t5_name
from contentv.encoding.views import view_key
from contentv.models.text import PromptEmbeds
from contentv.models.vae import Posterior


class StoredClips:
    """Latents of clips from a store, called as `ClipEncoder` is."""

    def __init__(
        self, store: Path, vae: AutoencoderKLWan, buckets: BucketConfig, windows: int
    ) -> None:
        """UserError when the store was made by another encoder, or looks at clips elsewhere."""
        self._wanted = ClipIdentity(
            vae=FeatureEncoder(vae).identity,
            dtype=str(vae.dtype),
            build=encoder_build(),
            buckets=buckets,
            windows=windows,
        )
        refuse_stale(store, _identity(store).clips, self._wanted)
        self._vae, self._store = vae, store
        self._shards = ShardFolder(store / CLIPS)

    def __call__(self, clip: Clip, fit: Fit, start: float, generator: torch.Generator) -> Tensor:
        """Normalised latents [c t h w] drawn from the clip's posterior, float32, on the CPU.

        Raises:
            UnreadableClipError: the clip could not be decoded when the store was made.
            UserError: it is not in the store.
            WorldError: a shard is damaged.
        """
        key = view_key(self._wanted.encoder, clip, fit, start)
        place = self._shards.places.get(key)
        if place is None:
            raise UserError(
                f"{clip.id}: its features are not in {self._store}, or its file has changed; "
                f"run `contentv encode --clips ... --out {self._store}` on this data"
            )
        if place.fault:
            raise UnreadableClipError(place.fault)
        posterior = Posterior(**self._shards.read(key, Posterior._fields))
        return draw_latents(self._vae, posterior, generator)


class StoredCaptions:
    """Embeddings of captions from a store, called as `CaptionEncoder` is."""

    def __init__(self, store: Path, wanted: TextIdentity, device: torch.device) -> None:
        """UserError when the store has no captions, or other text encoders made them."""
        found = _identity(store).text
        if found is None:
            raise UserError(f"{store}: made with --no-text; run `contentv encode` without it")
        refuse_stale(store, found, wanted)
        self._store, self._device = store, device
        self._shards = ShardFolder(store / CAPTIONS)

    def __call__(
        self, captions: Sequence[str], captions_2: Sequence[str], captions_3: Sequence[str]
    ) -> PromptEmbeds:
        """Embeddings [b n d] and [b p], on `device`; each tower reads its own captions.

        Raises:
            UserError: a caption is not in the store.
            WorldError: a shard is damaged.
        """
        length = min(set.intersection(*(self._lengths(text) for text in captions_3)))
        rows = [
            self._row(*texts, length)
            for texts in zip(captions, captions_2, captions_3, strict=True)
        ]
        return stack_rows(rows, self._device)

    def _row(self, first: str, second: str, third: str, length: int) -> PromptEmbeds:
        t5 = t5_name(length)
        parts = (
            self._read(first, ("clip", "clip_pooled"))
            | self._read(second, ("clip_2", "clip_2_pooled"))
            | self._read(third, (t5,))
        )
        return join_towers(TowerEmbeds(t5=parts.pop(t5), **parts))

    def _read(self, caption: str, names: Sequence[str]) -> dict[str, Tensor]:
        return self._shards.read(self._place(caption).key, names)

    def _lengths(self, caption: str) -> set[int]:
        return {int(length) for length in self._place(caption).shape.split(",")}

    def _place(self, caption: str) -> IndexRow:
        place = self._shards.places.get(text_key(caption))
        if place is None:
            raise UserError(
                f"caption {caption[:60]!r}: is not in {self._store}; "
                f"run `contentv encode --clips ... --out {self._store}` on this data"
            )
        return place


def _identity(store: Path) -> StoreIdentity:
    identity = read_identity(store)
    if identity is None:
        way = f"run `contentv encode --clips ... --out {store}` first"
        raise UserError(f"{store}: is no store of features; {way}")
    return identity
