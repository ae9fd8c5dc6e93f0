"""What trainers and encode servers must agree on besides the plan, and the trainers' source."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch

from contentv.base.device import default_dtype
from contentv.data.plan import Plan
from contentv.data.planned import SamplingConfig
from contentv.encoding.identity import encoder_build
from contentv.encoding.remote import PlanTickets, RemoteSource
from contentv.pipelines.folder import GenerationDefaults, fingerprint

_ENCODERS = (
    *("vae", "text_encoder", "text_encoder_2", "text_encoder_3"),
    *("tokenizer", "tokenizer_2", "tokenizer_3"),
)


def features_build(
    model: Path, defaults: GenerationDefaults, sampling: SamplingConfig, device: torch.device
) -> str:
    """Hash of all that turns a plan into numbers: 16 hex digits.

    The kind of device is part of it, for no two kinds give the same bits.
    """
    parts = (
        fingerprint(model, _ENCODERS)["sha256"],
        encoder_build(),
        f"torch {torch.__version__}",
        device.type,
        str(default_dtype(device)),
        tuple(defaults.text_lengths),
        sampling.model_dump_json(),
    )
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def remote_source(
    servers: Sequence[str],
    plan: Plan,
    *,
    build: str,
    steps: int,
    tls: Path | None,
    group: int = 0,
    groups: int = 1,
) -> RemoteSource:
    """Batches of a data group that servers of `contentv serve` encode; close it at the end."""
    return RemoteSource(servers, PlanTickets(plan, build, group, groups), steps=steps, tls=tls)
