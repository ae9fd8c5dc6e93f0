"""Captions of a data set as shards of embeddings, each tower's by itself."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from contentv.encoding.encoder import FeatureEncoder
from contentv.encoding.store import Row, text_key, write_shard

_SHARD_TEXTS = 64  # 0.2 GB of the 8B model's


def t5_name(length: int) -> str:
    """Tensor of what T5 makes of `length` tokens."""
    return f"t5_{length}"


def encode_texts(
    encoder: FeatureEncoder, folder: Path, texts: Sequence[str], lengths: Sequence[int]
) -> Iterator[None]:
    """Make shards of the embeddings of `texts`; yields once a text.

    T5 reads each text at all of `lengths` at which it can stand in a batch; the others hold zeros.
    """
    for first in range(0, len(texts), _SHARD_TEXTS):
        rows: list[Row] = []
        tensors: list[dict[str, Tensor]] = []
        for text in texts[first : first + _SHARD_TEXTS]:
            fitting = encoder.lengths(text, lengths)
            rows.append(Row(text_key(text), text, ",".join(map(str, fitting))))
            tensors.append(_embed(encoder, text, fitting, lengths))
            yield
        write_shard(folder, rows, _stack(tensors))


def _embed(
    encoder: FeatureEncoder, text: str, fitting: Sequence[int], lengths: Iterable[int]
) -> dict[str, Tensor]:
    found = {length: encoder.caption(text, length) for length in fitting}
    any_of_them = found[fitting[0]]
    tensors = any_of_them._asdict()
    width = tensors.pop("t5").shape[1]
    for length in lengths:
        empty = any_of_them.t5.new_zeros(length, width)
        tensors[t5_name(length)] = found[length].t5 if length in found else empty
    return tensors


def _stack(tensors: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.stack([each[name] for each in tensors]) for name in tensors[0]}
