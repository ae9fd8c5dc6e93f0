"""Ulysses for joint attention: tokens are spread over processes, heads while attention runs.

Every stream is split by itself, so no process repeats another's text. Attention sees the streams
whole, one after the other, as in one process: it may have windows. Degrees need not divide
anything.
Method: arXiv 2309.14509 (DeepSpeed Ulysses).
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from contentv.distributed.collectives import exchange, gather
from contentv.distributed.declaration import Declaration

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
_Arguments = tuple[Tensor | None, ...]


class Attention(Protocol):
    """Something whose attention of query, key and value [b n h d] can be replaced."""

    attend: Attend


def split(count: int, parts: int) -> tuple[int, ...]:
    """Deal `count` things: as many as fit one after the other, the last parts get what is left."""
    most = -(-count // parts)
    return tuple(min(most, max(0, count - part * most)) for part in range(parts))


class Ulysses:
    """Splits streams of tokens over `group` and lets attention see all of them.

    `even` fills every process's share up with zeros to one size; attention never sees the zeros.
    `lengths` are the token counts, by stream, of the forward or backward under way.
    """

    def __init__(self, group: dist.ProcessGroup, *, even: bool) -> None:
        self.group, self.even = group, even
        self.rank, self.degree = dist.get_rank(group), dist.get_world_size(group)
        self.lengths: Mapping[str, int] = {}

    def start(self, lengths: Mapping[str, int]) -> None:
        """Begin a forward with these token counts, streams in attention's order."""
        self.lengths = dict(lengths)

    def shard(self, stream: str, tensor: Tensor) -> Tensor:
        """This process's share of the tokens in dim 1."""
        sizes = split(self.lengths[stream], self.degree)
        local = tensor.narrow(1, min(self.rank * sizes[0], tensor.shape[1]), sizes[self.rank])
        return _padded(local, 1, self._kept(sizes)[self.rank])

    def shard_all(self, streams: Sequence[str | None], tensors: _Arguments) -> _Arguments:
        """Those of the tensors that belong to a stream sharded, the others as they are."""
        return tuple(
            tensor if stream is None or tensor is None else self.shard(stream, tensor)
            for stream, tensor in zip(streams, tensors, strict=True)
        )

    def gather(self, stream: str, local: Tensor) -> Tensor:
        """All tokens in dim 1 from everyone's share.

        All processes must go on to compute the same from it: each gets the gradient of its own
        tokens, and the sum of weights' gradients over processes is the whole.
        """
        lengths = self.lengths
        sizes = split(lengths[stream], self.degree)
        pieces = gather(_padded(local, 1, sizes[0]), self.group)
        whole = torch.cat([p.narrow(1, 0, n) for p, n in zip(pieces, sizes, strict=True)], dim=1)
        if whole.requires_grad:
            # Another forward may come before this one's backward, which may recompute attention.
            whole.register_hook(lambda _: self.start(lengths))  # type: ignore[no-untyped-call]
        return whole

    def attend(self, inner: Attend, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """`inner` over all tokens, for this process's share of them and all heads, [b n h d]."""
        heads = split(query.shape[2], self.degree)
        query, key, value = self._to_heads(torch.stack([query, key, value]), heads).unbind()
        # A process left without heads still takes part in both exchanges, and in their backward.
        mixed = inner(query, key, value) if heads[self.rank] else value
        return self._to_tokens(mixed, heads)

    def _to_heads(self, tokens: Tensor, heads: tuple[int, ...]) -> Tensor:
        """[3 b local-n h d] to [3 b n local-h d]."""
        kept = self._kept(heads)
        parts = torch.split(_padded(tokens, 3, sum(kept)), kept, dim=3)
        three, batch, _, _, dim = tokens.shape
        shapes = [
            (three, batch, sum(counts), kept[self.rank], dim) for counts in self._kept_tokens()
        ]
        received = exchange(parts, shapes, self.group, even=self.even)
        real = [part.narrow(3, 0, heads[self.rank]) for part in received]
        pieces: list[list[Tensor]] = []
        for part, kept_counts, counts in zip(
            real, self._kept_tokens(), self._tokens(), strict=True
        ):
            streams = torch.split(part, kept_counts, dim=2)
            pieces.append([s.narrow(2, 0, n) for s, n in zip(streams, counts, strict=True)])
        return torch.cat([p for stream in zip(*pieces, strict=True) for p in stream], dim=2)

    def _to_tokens(self, mixed: Tensor, heads: tuple[int, ...]) -> Tensor:
        """[b n local-h d] to [b local-n h d]."""
        kept = self._kept(heads)
        mixed = _padded(mixed, 2, kept[self.rank])
        by_stream = [list(counts) for counts in zip(*self._tokens(), strict=True)]
        streams = torch.split(mixed, [sum(counts) for counts in by_stream], dim=1)
        shares = [torch.split(s, n, dim=1) for s, n in zip(streams, by_stream, strict=True)]
        parts = []
        for pieces, kept_counts in zip(zip(*shares, strict=True), self._kept_tokens(), strict=True):
            padded = [_padded(piece, 1, n) for piece, n in zip(pieces, kept_counts, strict=True)]
            parts.append(torch.cat(padded, dim=1))
        own = parts[self.rank].shape[1]
        shapes = [(mixed.shape[0], own, count, mixed.shape[3]) for count in kept]
        received = exchange(parts, shapes, self.group, even=self.even)
        return torch.cat(received, dim=2).narrow(2, 0, sum(heads))

    def _tokens(self) -> list[list[int]]:
        """Real tokens of each process, by stream."""
        by_stream = [split(length, self.degree) for length in self.lengths.values()]
        return [list(counts) for counts in zip(*by_stream, strict=True)]

    def _kept_tokens(self) -> list[list[int]]:
        """Rows that each process keeps for them, zeros included."""
        by_stream = [self._kept(split(length, self.degree)) for length in self.lengths.values()]
        return [list(counts) for counts in zip(*by_stream, strict=True)]

    def _kept(self, sizes: tuple[int, ...]) -> list[int]:
        return [sizes[0]] * self.degree if self.even else list(sizes)


def split_sequences(model: nn.Module, declaration: Declaration, ulysses: Ulysses) -> None:
    """Spread the model's tokens from its first block to its output."""
    blocks = model.get_submodule(declaration.blocks)
    assert isinstance(blocks, nn.ModuleList)
    for block in blocks:
        attention = _find(block, declaration.attention)
        attention.attend = partial(ulysses.attend, attention.attend)

    def start(_: nn.Module, args: _Arguments) -> _Arguments:
        pairs = zip(declaration.carried, args, strict=True)
        ulysses.start({s: a.shape[1] for s, a in pairs if s is not None and a is not None})
        return ulysses.shard_all(declaration.carried, args)

    def shard(_: nn.Module, args: _Arguments) -> _Arguments:
        return ulysses.shard_all(declaration.constant, args)

    def join(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return ulysses.gather(declaration.streams[0], output)

    blocks[0].register_forward_pre_hook(start)
    for block in blocks:
        block.register_forward_pre_hook(shard)
    model.get_submodule(declaration.output).register_forward_hook(join)


def _find(block: nn.Module, path: str) -> Attention:
    found: Attention = operator.attrgetter(path)(block)
    return found


def _padded(tensor: Tensor, dim: int, size: int) -> Tensor:
    """`tensor` with zeros after it in `dim` up to `size`."""
    missing = size - tensor.shape[dim]
    if missing == 0:
        return tensor
    return F.pad(tensor, (0, 0) * (tensor.ndim - 1 - dim) + (0, missing))
