"""What a model says of itself, as plain data, so that others can spread it over processes."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TensorSplit:
    """Names, below a block, of what tensor parallelism splits; those a block lacks are skipped.

    `column` layers give each process some heads or channels, `row` layers sum over processes.
    `head_norms` normalise each head with weights shared by all heads: every process sees only its
    own heads, so the weights' gradient is a part, to be summed.
    """

    column: tuple[str, ...]
    row: tuple[str, ...]
    head_norms: tuple[str, ...]


@dataclass(frozen=True)
class Declaration:
    """Where a model's repeated blocks and token sequences are.

    `blocks` names the list of blocks. For each positional argument of a block, `carried` and
    `constant` give the stream whose tokens its dim 1 counts, or None: carried arguments come from
    the block before, constant ones go to every block alike. Streams are named in the order in which
    attention joins them. `attention` names, below a block, the object whose
    `attend(query, key, value)` mixes the tokens of all streams, [b n h d] each. `output` names the
    module after the blocks that gives the tokens [b n c] of the first stream.
    """

    blocks: str
    carried: tuple[str | None, ...]
    constant: tuple[str | None, ...]
    attention: str
    output: str
    num_heads: int
    tensor_split: TensorSplit | None = None

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams, in attention's order."""
        return tuple(name for name in self.carried if name is not None)
