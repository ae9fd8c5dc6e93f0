"""adaLN for all steps at once, before denoising: a third of the weights is then not needed.

What steers a norm depends on the timestep and the pooled text only, and both are known when a call
begins. So each `Modulation` is evaluated once for all of them, on the device, one module at a time,
and lookups stand in its place while the call denoises. Exact but for rounding (1e-6).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from diffusers.utils import USE_PEFT_BACKEND, scale_lora_layers, unscale_lora_layers
from torch import Tensor, nn
from torch.func import functional_call

from contentv.base.errors import UserError
from contentv.models.transformer import ContentVTransformer3DModel, Modulation


class StoredConditioning(nn.Module):
    """Stands in for `time_text_embed`: finds the vectors of a timestep and a pooled text.

    `table` [steps * texts, vectors, d] holds, step by step, what the modulations made of each of
    `timesteps` [steps] with each of `pooled` [texts p]. It stays where it is, as a rule on the
    host: a forward needs one row of it per sample.
    """

    def __init__(self, timesteps: Tensor, pooled: Tensor, table: Tensor) -> None:
        super().__init__()
        # Not buffers: whoever moves the transformer leaves them alone.
        self._timesteps, self._pooled, self._table = timesteps, pooled, table

    def forward(self, timestep: Tensor, pooled_projection: Tensor) -> Tensor:
        """Vectors [b v d] for timesteps [b] and pooled texts [b p].

        Raises:
            UserError: a timestep or a text that was not known beforehand.
        """
        is_step = timestep[:, None] == self._timesteps.to(timestep.device)
        is_text = (pooled_projection[:, None] == self._pooled.to(pooled_projection.device)).all(-1)
        if not bool((is_step.any(1) & is_text.any(1)).all()):
            raise UserError(
                "a callback changed pooled_prompt_embeds, or a step has its own time: not with "
                "precomputed modulation; pipe.enable_precomputed_modulation(False)"
            )
        rows = is_step.int().argmax(1) * len(self._pooled) + is_text.int().argmax(1)
        return self._table[rows.to(self._table.device)].to(pooled_projection.device)


class StoredModulation(nn.Module):
    """Stands in for a `Modulation`: takes its vectors from those of all modulations.

    `which` holds their places. It is a tensor, so that compiled blocks share one graph.
    """

    def __init__(self, which: Tensor) -> None:
        super().__init__()
        self._which = which

    def forward(self, vectors: Tensor) -> tuple[Tensor, ...]:
        """Vectors [b 1 d] of this modulation out of [b v d]."""
        return vectors.index_select(1, self._which).split(1, dim=1)


class _Place(NamedTuple):
    """A module and the attribute of its parent that it stands in."""

    parent: nn.Module
    name: str
    module: nn.Module


@contextmanager
def stored_modulation(
    transformer: ContentVTransformer3DModel,
    timesteps: Tensor,
    pooled: Tensor,
    device: torch.device,
    *,
    lora_scale: float | None = None,
) -> Iterator[None]:
    """Inside, the transformer reads its modulations from a table, made for these inputs only.

    The real modulations are not its submodules meanwhile: hooks and `.to()` pass them by. Their
    weights come to `device` one module at a time from where they rest, and stay there also.
    LoRAs on them count, at the strength `lora_scale` (None: 1).
    """
    distinct = _distinct(pooled)
    with _lora_strength(transformer, 1.0 if lora_scale is None else lora_scale):
        table = _evaluate(transformer, timesteps, distinct, device)
    conditioning = StoredConditioning(timesteps, distinct, table)
    with _replaced(transformer, [*_stand_ins(transformer, device), conditioning]):
        yield


@contextmanager
def without_modulation(transformer: ContentVTransformer3DModel) -> Iterator[None]:
    """Inside, the modulations are not there: what moves the transformer leaves them in place."""
    count = len(modulation_parts(transformer))
    with _replaced(transformer, [nn.Identity() for _ in range(count)]):
        yield


def modulation_parts(transformer: ContentVTransformer3DModel) -> list[nn.Module]:
    """What `stored_modulation` makes superfluous on the device: a third of the weights."""
    return [place.module for place in _places(transformer)]


@contextmanager
def _replaced(
    transformer: ContentVTransformer3DModel, stand_ins: Sequence[nn.Module]
) -> Iterator[None]:
    places = _places(transformer)
    try:
        for place, stand_in in zip(places, stand_ins, strict=True):
            setattr(place.parent, place.name, stand_in)
        yield
    finally:
        for place in places:
            setattr(place.parent, place.name, place.module)


def _places(transformer: ContentVTransformer3DModel) -> list[_Place]:
    """All modulations, then what they read."""
    places = [
        _Place(block, name, getattr(block, name))
        for block in transformer.transformer_blocks
        for name in ("norm1", "norm1_context")
    ]
    names = ("norm_out", "time_text_embed")
    return places + [_Place(transformer, name, getattr(transformer, name)) for name in names]


def _modulations(transformer: ContentVTransformer3DModel) -> list[Modulation]:
    return [module for module in modulation_parts(transformer) if isinstance(module, Modulation)]


@contextmanager
def _lora_strength(transformer: ContentVTransformer3DModel, scale: float) -> Iterator[None]:
    if not USE_PEFT_BACKEND:
        yield
        return
    scale_lora_layers(transformer, scale)
    try:
        yield
    finally:
        unscale_lora_layers(transformer, scale)


def _stand_ins(
    transformer: ContentVTransformer3DModel, device: torch.device
) -> Iterator[StoredModulation]:
    first = 0
    for modulation in _modulations(transformer):
        last = first + modulation.num_vectors
        yield StoredModulation(torch.arange(first, last, device=device))
        first = last


@torch.no_grad()
def _evaluate(
    transformer: ContentVTransformer3DModel, timesteps: Tensor, pooled: Tensor, device: torch.device
) -> Tensor:
    """The table of `StoredConditioning`, on the host."""
    each_time = timesteps.to(device).repeat_interleave(len(pooled))
    each_text = pooled.to(device).repeat(len(timesteps), 1)
    temb: Tensor = _call_on(device, transformer.time_text_embed, each_time, each_text)
    modulations = _modulations(transformer)
    total = sum(modulation.num_vectors for modulation in modulations)
    table = torch.empty(len(temb), total, temb.shape[-1], dtype=temb.dtype)
    first = 0
    for modulation in modulations:
        vectors = torch.cat(_call_on(device, modulation, temb), dim=1)
        last = first + vectors.shape[1]
        table[:, first:last] = vectors
        first = last
    return table


def _call_on(device: torch.device, module: nn.Module, *inputs: Tensor) -> Any:  # noqa: ANN401 - what it returns
    """Calls a module with copies of its weights on `device`; the weights themselves stay."""
    if _brings_weights(module):
        return module(*inputs)
    named = [*module.named_parameters(), *module.named_buffers()]
    weights = {name: tensor.to(device, non_blocking=True) for name, tensor in named}
    return functional_call(module, weights, inputs)


def _brings_weights(module: nn.Module) -> bool:
    """Whether hooks on its layers fetch their weights: sequential and leaf-level offload."""
    registries = (getattr(child, "_diffusers_hook", None) for child in module.modules())
    return any(parameter.is_meta for parameter in module.parameters()) or any(
        registry is not None and registry.get_hook("group_offloading") is not None
        for registry in registries
    )


def _distinct(rows: Tensor) -> Tensor:
    """The different ones of a few rows [n p], in order."""
    found: list[Tensor] = []
    for row in rows:
        if not any(torch.equal(row, other) for other in found):
            found.append(row)
    return torch.stack(found)
