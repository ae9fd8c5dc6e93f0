"""Step caches: diffusers' hooks that reuse what a transformer computed in an earlier step."""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from diffusers import (
    FasterCacheConfig,
    FirstBlockCacheConfig,
    PyramidAttentionBroadcastConfig,
    TaylorSeerCacheConfig,
)

from contentv.base.errors import UserError
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.pipelines.speed.settings import (
    Cache,
    FasterCache,
    FirstBlockCache,
    PyramidCache,
    TaylorSeerCache,
)

Timestep: TypeAlias = Callable[[], float]
"""The timestep of the running step, 0..1000."""

_SCALE = 1000  # timestep of sigma 1
# What one forward of both guidance halves reads in rows [unguided; guided].
_ROWS = ["hidden_states", "encoder_hidden_states", "pooled_projections", "timestep"]


class StepCache:
    """Keeps one cache on a transformer, or none; touches none that others have put there."""

    def __init__(self) -> None:
        self._config: Any = None
        self._cache: Cache | None = None

    def put_on(
        self, transformer: ContentVTransformer3DModel, cache: Cache | None, timestep: Timestep
    ) -> None:
        """Makes `cache` the transformer's, if it is not yet; forgets what it holds.

        Raises:
            UserError: the transformer has a cache of somebody else's, or is compiled already.
        """
        is_ours = transformer.is_cache_enabled and transformer._cache_config is self._config  # noqa: SLF001
        if transformer.is_cache_enabled and not is_ours and cache is not None:
            raise UserError(
                f"cache={cache.name}: the transformer has a "
                f"{type(transformer._cache_config).__name__} already; "  # noqa: SLF001
                "call pipe.transformer.disable_cache() first"
            )
        if cache != (self._cache if is_ours else None):
            _refuse_if_compiled(transformer)
            if is_ours:
                transformer.disable_cache()
            if cache is not None:
                self._config, self._cache = diffusers_config(cache, timestep), cache
                transformer.enable_cache(self._config)
        transformer._reset_stateful_cache()  # noqa: SLF001 - diffusers' pipelines call it


def diffusers_config(cache: Cache, timestep: Timestep) -> Any:  # noqa: ANN401 - one of four
    """What `transformer.enable_cache` takes."""
    match cache:
        case FirstBlockCache():
            return FirstBlockCacheConfig(threshold=cache.threshold)
        case TaylorSeerCache():
            return TaylorSeerCacheConfig(
                cache_interval=cache.interval,
                disable_cache_before_step=cache.warmup,
                max_order=cache.order,
                taylor_factors_dtype=torch.float32,
                use_lite_mode=True,
            )
        case PyramidCache():
            low, high = cache.sigmas
            return PyramidAttentionBroadcastConfig(
                spatial_attention_block_skip_range=cache.interval,
                spatial_attention_timestep_skip_range=(low * _SCALE, high * _SCALE),
                current_timestep_callback=timestep,
            )
        case FasterCache():
            below = (-1, cache.sigma * _SCALE)
            return FasterCacheConfig(
                spatial_attention_block_skip_range=cache.attention_interval,
                spatial_attention_timestep_skip_range=below,
                unconditional_batch_skip_range=cache.interval,
                unconditional_batch_timestep_skip_range=below,
                attention_weight_callback=lambda _: 0.5,
                current_timestep_callback=timestep,
                _unconditional_conditional_input_kwargs_identifiers=_ROWS,
            )


def needs_both_halves(config: object) -> bool:
    """Whether a cache of diffusers counts forwards, so that a step must have just one of them.

    The others keep what they hold by the name of the pass.
    """
    return isinstance(config, PyramidAttentionBroadcastConfig | FasterCacheConfig)


def _refuse_if_compiled(transformer: ContentVTransformer3DModel) -> None:
    modules = (transformer, *transformer.transformer_blocks)
    if any(module._compiled_call_impl is not None for module in modules):  # noqa: SLF001
        raise UserError(
            "set_speed: the transformer is compiled, and a step cache must be there before; "
            "load the model again, set the speed, then compile"
        )
