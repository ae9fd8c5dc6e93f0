"""`contentv encode`: features of a data set before training, or of prompts before generating."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from contentv.base.errors import UserError
from contentv.data.run import load_dataset
from contentv.encoding.config import EncodeConfig
from contentv.encoding.identity import (
    ClipIdentity,
    StoreIdentity,
    TextIdentity,
    encoder_build,
    read_identity,
    refuse_stale,
    write_identity,
)
from contentv.encoding.run import EncodeResult, Encoders, encode_dataset
from contentv.pipelines.embeds import towers_hash
from contentv.pipelines.folder import check_folder, fingerprint, read_defaults
from contentv.pipelines.locate import locate_model
from contentv.recipes.buckets import bucket_config

if TYPE_CHECKING:
    import torch

    from contentv.encoding.encoder import FeatureEncoder
    from contentv.encoding.verify import VerifyResult
    from contentv.pipelines.embedding import EmbedResult


def run(config: EncodeConfig) -> "EncodeResult | VerifyResult | EmbedResult":
    """Encode what is not there yet.

    Raises:
        UserError: no clip can be used, or what is there was made with something else.
        WorldError: the model is damaged, or the disk cannot be written.
    """
    if config.verify:
        from contentv.encoding.verify import verify

        return verify(config.out, remove=config.remove)
    model = locate_model(config.model)
    check_folder(model)
    if config.prompts is not None:
        from contentv.pipelines.embedding import embed_prompts

        return embed_prompts(model, config.prompts, config.out, config.device)
    assert config.clips is not None
    return _encode(config, model, config.clips)


def _encode(config: EncodeConfig, model: Path, clips: Path) -> EncodeResult:
    if config.out.resolve() == clips.resolve():
        raise UserError(f"out={config.out}: is the data set's own folder; choose another")
    identity = _identity(config, model)
    before = read_identity(config.out)
    if before is not None:
        refuse_stale(config.out, before.clips, identity.clips)
        if before.text and identity.text:
            refuse_stale(config.out, before.text, identity.text)
    kept = identity.text or (before.text if before else None)
    listing = load_dataset(
        clips, config.root, cache=config.out, workers=0, test_captions=config.test_captions
    )
    if before is None or kept != before.text:
        write_identity(config.out, identity.model_copy(update={"text": kept}))
    dtype = identity.text.dtype if identity.text else ""
    return encode_dataset(
        config.out,
        listing,
        identity,
        Encoders(
            partial(_clip_encoder, model, config.device), lambda: _caption_encoder(config, dtype)
        ),
        workers=config.workers,
        retry=config.retry,
    )


def _identity(config: EncodeConfig, model: Path) -> StoreIdentity:
    """What this run makes features with; nothing heavy is opened where the store knows."""
    before, files = read_identity(config.out), fingerprint(model, ["vae"])["sha256"]
    defaults = read_defaults(model)
    is_known = before is not None and before.vae_files == files
    vae = before.clips if before and is_known else None
    return StoreIdentity(
        clips=ClipIdentity(
            vae=vae.vae if vae else _vae_hash(model),
            dtype="torch.float32",  # the autoencoder's everywhere: see `component_dtypes`
            build=encoder_build(),
            buckets=bucket_config(config, defaults),
            windows=config.windows,
        ),
        text=TextIdentity(
            towers=towers_hash(model),
            dtype=before.text.dtype if before and before.text else _text_dtype(config.device),
            lengths=defaults.text_lengths,
        )
        if config.text
        else None,
        model=config.model,
        vae_files=files,
    )


def _vae_hash(model: Path) -> str:
    import torch

    from contentv.encoding.encoder import FeatureEncoder
    from contentv.pipelines.parts import load_vae

    return FeatureEncoder(load_vae(model, torch.device("cpu"))).identity


def _text_dtype(device: str | None) -> str:
    from contentv.base.device import default_dtype, pick_device

    return str(default_dtype(pick_device(device)))


def _clip_encoder(model: Path, device: str | None, worker: int) -> "FeatureEncoder":
    from contentv.encoding.encoder import FeatureEncoder
    from contentv.pipelines.parts import load_vae

    return FeatureEncoder(load_vae(model, _device(device, worker)))


def _caption_encoder(config: EncodeConfig, dtype: str) -> "FeatureEncoder":
    import torch

    from contentv.encoding.encoder import FeatureEncoder
    from contentv.pipelines.parts import load_towers

    form = getattr(torch, dtype.removeprefix("torch."))
    device = _device(config.device, 0)
    return FeatureEncoder(towers=load_towers(locate_model(config.model), form, device))


def _device(name: str | None, worker: int) -> "torch.device":
    """The device asked for; else the workers go round the accelerators of this machine."""
    import torch

    from contentv.base.device import pick_device

    device = pick_device(name)
    if name is None and device.type != "cpu":
        device = torch.device(device.type, worker % torch.accelerator.device_count())
    return device
