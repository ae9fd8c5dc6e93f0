"""What trainers and encoders say to each other: a ticket, and a batch as a record of raw buffers.

A reply is an Arrow record of one row. Each tensor is a column of raw bytes; the schema's metadata
says what they are and carries a digest over everything. Nothing in it can be executed.
"""

import hashlib
import json
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from pydantic import ConfigDict, Field, ValidationError, model_validator
from torch import Tensor

from contentv.base.config import Config, describe_validation_error
from contentv.base.errors import UserError, WorldError
from contentv.data.batch import FeatureBatch

MAX_TICKET_BYTES = 1024
MAX_REPLY_BYTES = 2**31 - 2**20  # what one message of gRPC can hold, less room for its frame
_MAX_HEADER_BYTES = 2**20
_HEADER = b"contentv"
_TENSORS = ("latents", "noise", "sigma", "sequence", "pooled")
_DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_HASH = r"^[0-9a-f]{1,64}$"


class CorruptReplyError(WorldError):
    """A reply is damaged, or is not the batch that was asked for."""


class Ticket(Config):
    """Names one batch: a micro-batch of a data-parallel group in a step.

    `plan` is the hash of the stage's plan; `build` that of whatever turns the plan into numbers:
    encoders, number formats, device, sampling.
    """

    model_config = ConfigDict(strict=True)

    plan: str = Field(pattern=_HASH)
    build: str = Field(pattern=_HASH)
    seed: int = Field(ge=0, lt=2**63)
    stage: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    step: int = Field(ge=0, lt=2**40)
    group: int = Field(0, ge=0, lt=2**20)
    groups: int = Field(1, ge=1, le=2**20)
    micro_batch: int = Field(0, ge=0, lt=2**20)

    @model_validator(mode="after")
    def _group_is_one_of_them(self) -> "Ticket":
        if self.group >= self.groups:
            raise ValueError(f"group={self.group}: must be below groups={self.groups}")
        return self

    def encode(self) -> bytes:
        """Small JSON."""
        return self.model_dump_json().encode()


def decode_ticket(data: bytes) -> Ticket:
    """Read a stranger's ticket; UserError says what is wrong with it."""
    if len(data) > MAX_TICKET_BYTES:
        raise UserError(f"a ticket of {len(data)} bytes: at most {MAX_TICKET_BYTES} are read")
    try:
        return Ticket.model_validate_json(data)
    except ValidationError as error:
        raise UserError(f"not a ticket: {describe_validation_error(error)[:300]}") from error


def pack(batch: FeatureBatch, ticket: Ticket, build: str) -> pa.RecordBatch:
    """Make the reply to `ticket` of an encoder of this `build`; the tensors' memory is not copied.

    WorldError when the batch does not fit into one message.
    """
    tensors = {name: getattr(batch, name).detach().cpu().contiguous() for name in _TENSORS}
    raw = {name: tensor.flatten().view(torch.uint8).numpy() for name, tensor in tensors.items()}
    size = sum(part.nbytes for part in raw.values())
    if size > MAX_REPLY_BYTES:
        raise WorldError(f"a batch of {size} bytes: one message holds {MAX_REPLY_BYTES}")
    header = {
        "ticket": ticket.model_dump(),
        "build": build,
        "keys": list(batch.keys),
        "tensors": {
            name: {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape)}
            for name, tensor in tensors.items()
        },
    }
    header["digest"] = _digest(header, [memoryview(part) for part in raw.values()])
    schema = pa.schema(
        [pa.field(name, pa.large_binary(), nullable=False) for name in _TENSORS],
        metadata={_HEADER: json.dumps(header).encode()},
    )
    columns = [_column(pa.py_buffer(part)) for part in raw.values()]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def unpack(record: pa.RecordBatch, ticket: Ticket) -> FeatureBatch:
    """Read the reply to `ticket` into memory of its own, on the CPU.

    CorruptReplyError when a bit of it is not what was sent, or it answers another ticket or comes
    of another build.
    """
    try:
        record.validate(full=True)
        header, buffers = _parts(record)
        said = header.pop("digest")
        if _digest(header, [memoryview(buffer) for buffer in buffers]) != said:
            raise CorruptReplyError("its digest does not fit: it was damaged on the way")
        if header["ticket"] != ticket.model_dump() or header["build"] != ticket.build:
            raise CorruptReplyError("it answers another ticket, or comes of another build")
        described = [header["tensors"][name] for name in _TENSORS]
        tensors = [_tensor(*pair) for pair in zip(buffers, described, strict=True)]
        return _batch(tensors, header["keys"])
    except (pa.ArrowException, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CorruptReplyError(f"not a batch ({type(error).__name__}: {error})") from error


def size_of(batch: FeatureBatch) -> int:
    """Bytes of a batch's tensors."""
    return sum(getattr(batch, name).nbytes for name in _TENSORS)


def _column(data: pa.Buffer) -> pa.Array:
    offsets = pa.py_buffer(np.array([0, data.size], dtype="<i8"))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, data])


def _parts(record: pa.RecordBatch) -> tuple[dict[str, Any], list[pa.Buffer]]:
    text = (record.schema.metadata or {}).get(_HEADER, b"")
    if record.num_rows != 1 or tuple(record.schema.names) != _TENSORS:
        raise CorruptReplyError("not a batch: other columns, or not one row")
    if len(text) > _MAX_HEADER_BYTES:
        raise CorruptReplyError(f"not a batch: a header of {len(text)} bytes")
    return json.loads(text), [column[0].as_buffer() for column in record.columns]


def _digest(header: dict[str, Any], buffers: list[memoryview]) -> str:
    digest = hashlib.blake2b(json.dumps(header, sort_keys=True).encode(), digest_size=16)
    for buffer in buffers:
        digest.update(buffer)
    return digest.hexdigest()


def _tensor(buffer: pa.Buffer, described: dict[str, Any]) -> Tensor:
    # A copy: what arrives is read-only and lies at any address.
    data = np.frombuffer(buffer, np.uint8).copy()
    dtype, shape = _DTYPES[described["dtype"]], described["shape"]
    return torch.from_numpy(data).view(dtype).reshape(shape)


def _batch(tensors: list[Tensor], keys: list[str]) -> FeatureBatch:
    if not all(isinstance(key, str) for key in keys):
        raise CorruptReplyError("not a batch: its keys are not text")
    if any(len(tensor) != len(keys) for tensor in tensors):
        raise CorruptReplyError("not a batch: its parts are not of one length")
    latents, noise, sigma, sequence, pooled = tensors
    return FeatureBatch(latents, noise, sigma, sequence, pooled, tuple(keys))
