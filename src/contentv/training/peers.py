"""What the processes of a run tell each other between steps; a lone process tells itself."""

import json
from typing import Any, Self

import torch
import torch.distributed as dist


class Peers:
    """The processes that train together, over two CPU groups of all of them; None: one process.

    `saving` writes checkpoints while training goes on, so nothing else may use it. Each batch is
    worked on by `sharing` processes together, which all see its whole loss.
    """

    def __init__(
        self,
        group: dist.ProcessGroup | None = None,
        saving: dist.ProcessGroup | None = None,
        *,
        sharing: int = 1,
    ) -> None:
        assert (group is None) == (saving is None)
        self._group, self.saving, self.sharing = group, saving, sharing

    @classmethod
    def of_world(cls, *, sharing: int = 1) -> Self:
        """All processes of the default group; every one of them must call this."""
        groups = (dist.new_group(backend="gloo"), dist.new_group(backend="gloo"))
        return cls(*groups, sharing=sharing)

    @property
    def count(self) -> int:
        """How many there are."""
        return 1 if self._group is None else self._group.size()

    @property
    def is_first(self) -> bool:
        """Whether this one writes the log."""
        return self._group is None or self._group.rank() == 0

    def sum(self, *values: float) -> list[float]:
        """Sums over the processes, the same bits on each."""
        if self._group is None:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(total, group=self._group)
        return total.tolist()

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401 - JSON is anything
        """Values of all processes, which go through JSON, in the order of their ranks."""
        if self._group is None:
            return [value]
        own = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.count)]
        dist.all_gather(sizes, torch.tensor([len(own)]), group=self._group)
        longest = max(int(size) for size in sizes)
        rows = [torch.zeros(longest, dtype=torch.uint8) for _ in sizes]
        padded = torch.nn.functional.pad(own, (0, longest - len(own)))
        dist.all_gather(rows, padded, group=self._group)
        return [
            json.loads(bytes(row[: int(size)].tolist()))
            for row, size in zip(rows, sizes, strict=True)
        ]
