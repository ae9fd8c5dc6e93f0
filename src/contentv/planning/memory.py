"""Where the memory of one device goes during a training step, part by part."""

from dataclasses import dataclass

from contentv.distributed.config import ParallelConfig, RecomputeConfig
from contentv.models.cost import (
    Spread,
    TransformerSize,
    activations,
    block_parameters,
    end_parameters,
    lora_parameters,
    num_parameters,
)
from contentv.planning.config import MethodConfig
from contentv.video.shapes import LatentShape

GIB = 2**30
_BF16, _FP32 = 2, 4


@dataclass(frozen=True)
class Workload:
    """Samples that one data group computes at once: so many, of one shape.

    `accumulates` when a step has more such rounds: then gradients stay through the next forward.
    """

    latent: LatentShape
    text_tokens: int
    samples: int
    accumulates: bool


@dataclass(frozen=True)
class Memory:
    """Bytes on one device at the fullest moment of a step, by part.

    `gathered` are whole weights of the blocks at work and their gradients on the way to their
    owners, `working` what one block's backward computes again and its gradients of activations.
    `exchange`, the buffers of an all-to-all, are full at another moment and not in the sum.
    """

    parameters: float
    gradients: float
    optimizer: float
    ema: float
    gathered: float
    activations: float
    working: float
    exchange: float

    @property
    def peak(self) -> float:
        """Bytes in all."""
        kept = self.parameters + self.gradients + self.optimizer + self.ema
        return kept + self.gathered + self.activations + self.working


@dataclass(frozen=True)
class _Moment:
    """A point of the backward: `done` blocks are behind it; what is on the way between devices."""

    done: int
    gathered: float
    working: float


def estimate_memory(
    size: TransformerSize,
    method: MethodConfig,
    layout: ParallelConfig,
    recompute: RecomputeConfig,
    work: Workload,
) -> Memory:
    """Memory of one device; kernels' workspaces and the communication library's own are not in it.

    During the backward activations go and gradients come, so their sum is looked at in its first
    and its last blocks. A LoRA's activations are counted as those of full training, which is more
    than it keeps.
    """
    ways = layout.shard * layout.sp
    total = _after_tensor_split(num_parameters(size), size.num_layers, size, layout.tp)
    trained = total if method.name == "full" else lora_parameters(size, method.rank)
    frozen = 0.0 if method.name == "full" else _BF16 * total / ways
    held = activations(
        size,
        work.latent,
        work.text_tokens,
        samples=work.samples,
        recompute=recompute.mode,
        every=recompute.every,
        spread=Spread(layout.sp, layout.tp),
    )

    def at(moment: _Moment) -> Memory:
        done = moment.done / size.num_layers
        return Memory(
            parameters=frozen + _FP32 * trained / ways,
            gradients=_FP32 * trained / ways * (1.0 if work.accumulates else done),
            optimizer=2 * _FP32 * trained / ways,
            ema=_FP32 * trained / ways if method.ema else 0.0,
            gathered=moment.gathered,
            activations=held.blocks * (1 - done) + held.ends,
            working=moment.working,
            exchange=held.exchanged,
        )

    moments = _moments(size, method, layout, held.working)
    return max((at(moment) for moment in moments), key=lambda memory: memory.peak)


def _after_tensor_split(parameters: int, blocks: int, size: TransformerSize, tp: int) -> float:
    """Parameters of which one process keeps the attention and feed-forward matrices' `tp`-th."""
    split = blocks * 24 * size.width**2
    return parameters - split + split / tp


def _moments(
    size: TransformerSize, method: MethodConfig, layout: ParallelConfig, working: float
) -> list[_Moment]:
    """The moments that can be the fullest, early and late in the backward.

    Weights in bfloat16 of a block, the next one and both ends are there. While a block's feed-
    forward is at work, the gradients of the block before it are sent in float32; at its end, its
    own gradients are whole, and so are their copies to be sent.
    """
    block = _after_tensor_split(block_parameters(size), 1, size, layout.tp)
    weights = 2 * block * _BF16 + end_parameters(size) * _BF16
    if method.name == "lora":
        # bfloat16 weights that nobody shares are used where they are
        alone = layout.shard * layout.sp == 1
        return [_Moment(0, 0.0 if alone else weights, working)]
    feed_forward = 8 * size.width**2 * _BF16 / layout.tp
    late = max(0, size.num_layers - 2)
    return [
        _Moment(0, weights + feed_forward, working),
        *(
            _Moment(done, weights + feed_forward + block * _FP32, working)
            for done in (min(1, late), late)
        ),
        *(_Moment(done, weights + block * (_BF16 + _FP32), 0.0) for done in (1, late + 1)),
    ]
