"""Recomputation of blocks in the backward: memory bought with time."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import (
    CheckpointPolicy,
    SelectiveCheckpointContext,
    checkpoint,
    create_selective_checkpoint_contexts,
    noop_context_fn,
)

from contentv.distributed.config import RecomputeConfig

# Parts of operators' names. Attention is the dearest operator, an exchange makes others wait.
SAVED_OPERATORS = ("all_to_all_single", "attention", "flash_attn")


def recompute_blocks(blocks: nn.ModuleList, config: RecomputeConfig) -> None:
    """Let the backward of one block in `config.every` compute again what `config.mode` says."""
    if config.mode == "none":
        return
    for block in list(blocks)[:: config.every]:
        if config.mode == "full":
            block.forward = recomputed(block.forward)
        else:
            block.forward = recomputed(block.forward, saved=SAVED_OPERATORS)


def recomputed(forward: Callable[..., Any], *, saved: tuple[str, ...] = ()) -> Callable[..., Any]:
    """`forward`, keeping only its arguments and the results of operators named in `saved`."""
    contexts: Callable[[], Any] = noop_context_fn
    if saved:
        contexts = partial(create_selective_checkpoint_contexts, partial(_policy, saved))

    def run(*arguments: Any) -> Any:  # noqa: ANN401 - a block's
        return checkpoint(forward, *arguments, use_reentrant=False, context_fn=contexts)

    return run


def _policy(
    saved: tuple[str, ...],
    _: SelectiveCheckpointContext,
    operator: Any,  # noqa: ANN401 - torch's operators have no common public type
    *args: Any,  # noqa: ANN401, ARG001
    **kwargs: Any,  # noqa: ANN401, ARG001
) -> CheckpointPolicy:
    if any(part in str(operator) for part in saved):
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
