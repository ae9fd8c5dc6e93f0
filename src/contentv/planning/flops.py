"""How long a training step takes: operations at a stated share of the peak, and messages."""

from dataclasses import dataclass

from contentv.distributed.config import ParallelConfig, RecomputeConfig
from contentv.models.cost import (
    Spread,
    TransformerSize,
    attention_flops,
    executed_flops,
    lora_parameters,
    num_parameters,
)
from contentv.planning.config import MethodConfig
from contentv.planning.devices import Device
from contentv.planning.memory import Workload

_BF16, _FP32 = 2, 4
_GB = 1e9


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step on every device.

    `compute` at the stated share of the peak, `exchange` in messages that computing waits for,
    `weights` in gathering weights and reducing gradients, which overlaps with computing.
    """

    compute: float
    exchange: float
    weights: float

    @property
    def seconds(self) -> float:
        """Seconds of the step."""
        return max(self.compute, self.weights) + self.exchange


def step_time(
    size: TransformerSize,
    method: MethodConfig,
    layout: ParallelConfig,
    recompute: RecomputeConfig,
    work: Workload,
    *,
    samples: int,
    rounds: int,
    device: Device,
    mfu: float,
) -> StepTime:
    """Time of `samples` samples in `rounds` rounds, each with a reduction of the gradients."""
    flops = _executed(size, method, layout, recompute, work)
    return StepTime(
        compute=samples * flops / (device.peak_tflops * 1e12 * mfu),
        exchange=samples * _exchange_bytes(size, layout, recompute, work) / _link(device),
        weights=rounds * _weights_seconds(size, method, layout, device),
    )


def _executed(
    size: TransformerSize,
    method: MethodConfig,
    layout: ParallelConfig,
    recompute: RecomputeConfig,
    work: Workload,
) -> float:
    """Operations of one sample on one device; the device with most heads sets the pace."""
    flops = executed_flops(
        size,
        work.latent,
        work.text_tokens,
        recompute=recompute.mode,
        every=recompute.every,
        frozen=method.name == "lora",
    )
    attention = attention_flops(size, work.latent, work.text_tokens)
    times = 4 if recompute.mode == "full" else 3
    ways = layout.sp * layout.tp
    heads = Spread(layout.sp, layout.tp).heads(size.num_heads)
    unequal = heads * ways / size.num_heads - 1
    return (flops + times * attention * unequal) / ways


def _exchange_bytes(
    size: TransformerSize, layout: ParallelConfig, recompute: RecomputeConfig, work: Workload
) -> float:
    """Bytes that one device sends for one sample: all-to-alls of `sp`, all-reduces of `tp`.

    A forward moves four widths a token over `sp` (query, key, value; result) and reduces two over
    `tp`; a backward as much again, and so does a block computed again.
    """
    spread = Spread(layout.sp, layout.tp)
    video = size.video_tokens(work.latent)
    tokens = spread.tokens(video) + spread.tokens(work.text_tokens)
    again = 1 / recompute.every if recompute.mode == "full" else 0.0
    width = spread.heads(size.num_heads) * layout.sp * size.head_dim
    all_to_all = 4 * width * (1 - 1 / layout.sp) * (2 + again)
    again = 1 / recompute.every if recompute.mode != "none" else 0.0
    all_reduce = 2 * 2 * size.width * (1 - 1 / layout.tp) * (2 + again)
    return size.num_layers * tokens * _BF16 * (all_to_all + all_reduce)


def _weights_seconds(
    size: TransformerSize, method: MethodConfig, layout: ParallelConfig, device: Device
) -> float:
    """Seconds to gather all weights twice, and to reduce the trained ones' gradients."""
    ways = layout.shard * layout.sp
    total = num_parameters(size) / layout.tp
    trained = total if method.name == "full" else lora_parameters(size, method.rank)
    share = 1 - 1 / ways
    inside = ways * layout.tp <= device.node
    sharded = share * (2 * _BF16 * total + _FP32 * trained)
    replicated = 2 * _FP32 * trained / ways * (1 - 1 / layout.replicate)
    everywhere = layout.world_size <= device.node
    network = device.network_gb_s * _GB
    return sharded / (_link(device) if inside else network) + replicated / (
        _link(device) if everywhere else network
    )


def _link(device: Device) -> float:
    return device.link_gb_s * _GB
