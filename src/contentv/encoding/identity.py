"""What a store of features was made with, written beside it; other features are refused."""

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

from contentv.base.config import Config, load_yaml, save_yaml
from contentv.base.errors import UserError
from contentv.data.buckets import BucketConfig

IDENTITY_NAME = "encoding.yaml"

_RULES = 1  # of how a clip becomes latents and a caption embeddings: a change makes other features


class ClipIdentity(Config):
    """All that decides which latents a store holds, besides the clips.

    `vae` is the hash of the encoder's weights, `build` says whose code ran it.
    """

    vae: str
    dtype: str
    build: str
    buckets: BucketConfig
    windows: int

    @property
    def encoder(self) -> str:
        """The autoencoder's part in the names of what it has encoded."""
        return encoder_name(self.vae, self.dtype)


class TextIdentity(Config):
    """All that decides embeddings besides the captions; `towers` is the hash of the encoders."""

    towers: str
    dtype: str
    lengths: tuple[int, ...]


class StoreIdentity(Config):
    """The content of `encoding.yaml`; `text` is None where no captions were encoded.

    `model` (its name) and `vae_files` (the hash of its files) are notes: they are not compared.
    """

    clips: ClipIdentity
    text: TextIdentity | None
    model: str
    vae_files: str


_WORDS = {
    "vae": "autoencoder",
    "dtype": "number format",
    "build": "encoder build",
    "areas": "resolution",
    "multiple": "resolution",
    "max_crop": "resolution",
    "frames": "frame rule",
    "fps": "frame rule",
    "windows": "frame rule",
    "towers": "text encoders",
    "lengths": "text lengths",
}


def encoder_name(vae: str, dtype: str) -> str:
    """Identity of the encoder's weights and its number format, for `views.view_key`."""
    return f"{vae}-{dtype}"


def encoder_build() -> str:
    """Version of the code that turns frames into latents: ours and diffusers'."""
    return f"{_RULES} diffusers {importlib.metadata.version('diffusers')}"


def read_identity(folder: Path) -> StoreIdentity | None:
    """What the store in `folder` was made with; None when there is none yet."""
    path = folder / IDENTITY_NAME
    return load_yaml(StoreIdentity, path) if path.is_file() else None


def write_identity(folder: Path, identity: StoreIdentity) -> None:
    """Write it down, before the first feature."""
    save_yaml(identity, folder / IDENTITY_NAME)


def refuse_stale(
    folder: Path, before: ClipIdentity | TextIdentity, now: ClipIdentity | TextIdentity
) -> None:
    """UserError naming what differs, when features in `folder` are not those asked for."""
    changed = list(_differences(before, now))
    if changed:
        raise UserError(
            f"{folder}: its features are stale ({', '.join(changed)}); restore these, or choose "
            "another folder and encode anew"
        )


def _differences(before: Config, now: Config) -> Iterator[str]:
    for name in type(before).model_fields:
        old, new = getattr(before, name), getattr(now, name)
        if isinstance(old, Config):
            yield from _differences(old, new)
        elif old != new:
            yield f"{_WORDS[name]}: {name}={_shown(old)}, now {_shown(new)}"


def _shown(value: object) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value)
