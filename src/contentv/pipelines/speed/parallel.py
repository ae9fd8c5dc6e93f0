"""One video on several devices: the two passes of guidance apart, and tokens spread.

Each process runs the whole command, with the same noise and prompts; they meet within a step. The
first one writes what comes of it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch.distributed as dist
from torch import Tensor, nn

from contentv.base.device import pick_device
from contentv.base.errors import UserError, WorldError
from contentv.base.log import get_logger, only_errors
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.pipelines.pipeline import ContentVPipeline
from contentv.pipelines.speed.guidance import Inputs, Predict

# What most commands never need, and takes a part of a second to import, is imported in functions.

_LOG = get_logger(__name__)


@dataclass(frozen=True)
class Crew:
    """The processes of a command, `guidance` x `tokens` of them, and this one's place and device.

    `guidance` is 2 where one half computes with the prompt, the other with the negative prompt;
    `tokens` is over how many each video's tokens are spread.
    """

    device: str | None
    guidance: int
    tokens: int
    rank: int

    @property
    def size(self) -> int:
        """How many they are."""
        return self.guidance * self.tokens

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def __str__(self) -> str:
        ways = [
            *(["guidance's two passes apart"] if self.guidance > 1 else []),
            *([f"tokens spread over {self.tokens}"] if self.tokens > 1 else []),
        ]
        return f"{self.size} processes: {', '.join(ways)}"


@contextmanager
def joined(device: str | None, *, guided: bool) -> Iterator[Crew]:
    """Meet the other processes that torchrun started for this command; without it, be alone.

    An even number of them takes the passes of guidance apart if anything is `guided`; tokens are
    spread over the rest.

    Raises:
        WorldError: another process has ended, or says nothing for ten minutes.
    """
    if not dist.is_torchelastic_launched():
        yield Crew(device, 1, 1, 0)
        return
    from contentv.distributed.mesh import leave_together, process_group

    with process_group(pick_device(device)) as own:
        size, rank = dist.get_world_size(), dist.get_rank()
        guidance = 2 if guided and size % 2 == 0 else 1
        crew = Crew(str(own), guidance, size // guidance, rank)
        leave_together()  # none writes before all have looked what is written
        with only_errors(wanted=not crew.is_first), explained_loss():
            _LOG.info("%s", crew)
            yield crew


def spread(pipe: ContentVPipeline, *, guidance: int = 1, tokens: int = 1) -> None:
    """Let all processes of the default group sample each video of `pipe` together.

    Every process calls this, and then the pipeline with the same arguments; each gets the same
    latents. `guidance=2` computes the two passes of a guided step at once. `tokens` spreads the
    attention and all else of a pass; the weights stay whole in every process.

    Raises:
        UserError: the degrees do not make the number of processes, or leave one without a head.
    """
    from torch.distributed.device_mesh import init_device_mesh

    _check(pipe.transformer, guidance, tokens)
    kind = pipe._execution_device.type  # noqa: SLF001 - of our own pipeline
    mesh = init_device_mesh(kind, (guidance, tokens), mesh_dim_names=("guidance", "tokens"))
    if guidance > 1:
        pipe._passes = PassesApart(mesh["guidance"].get_group())  # noqa: SLF001
    if tokens > 1:
        group = mesh["tokens"].get_group()
        _spread_tokens(pipe.transformer, group)


class PassesApart:
    """Each of two processes runs one pass, then they tell each other the velocities."""

    name: ClassVar[str] = "apart"
    rows: ClassVar[int] = 1
    separate: ClassVar[bool] = True

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group

    def __call__(self, predict: Predict, cond: Inputs, uncond: Inputs) -> tuple[Tensor, Tensor]:
        """Both velocities [b c t h w], the prompt's first."""
        from contentv.distributed.collectives import gather

        is_second = dist.get_rank(self._group) == 1
        own = predict(uncond, "uncond") if is_second else predict(cond, "cond")
        velocity, negative = gather(own, self._group)
        return velocity, negative


@contextmanager
def explained_loss() -> Iterator[None]:
    """Turn what a collective says of an ended process into one WorldError."""
    try:
        yield
    except dist.DistError as error:
        raise _lost(error) from error
    except RuntimeError as error:
        if "gloo" not in str(error):
            raise
        raise _lost(error) from error


def _lost(error: Exception) -> WorldError:
    reason = " ".join(str(error).split())[:160]
    return WorldError(f"lost another process of this command; see what it says ({reason})")


def _check(transformer: ContentVTransformer3DModel, guidance: int, tokens: int) -> None:
    size = dist.get_world_size()
    if guidance not in (1, 2):
        raise UserError(f"guidance={guidance}: has two passes; use 1 or 2")
    if guidance * tokens != size:
        fit = f"guidance=1, tokens={size}"
        if size % 2 == 0:
            fit += f" or guidance=2, tokens={size // 2}"
        raise UserError(
            f"guidance={guidance}, tokens={tokens}: makes {guidance * tokens} processes, not the "
            f"{size} there are; use {fit}"
        )
    heads = transformer.config.num_attention_heads
    if tokens > heads:
        raise UserError(
            f"tokens={tokens}: each process needs a head of its own, and there are {heads}; "
            f"use {heads} processes or less, twice as many with guidance=2"
        )


def _spread_tokens(transformer: ContentVTransformer3DModel, group: dist.ProcessGroup) -> None:
    from contentv.distributed.ulysses import Ulysses, split_sequences
    from contentv.models.parallel import declare

    transformer.register_forward_pre_hook(_refuse_caches)
    split_sequences(transformer, declare(transformer), Ulysses(group, even=True))


def _refuse_caches(transformer: nn.Module, _: tuple[Tensor, ...]) -> None:
    """Caches judge by a process's own tokens: one would skip a block and the others wait for it."""
    if getattr(transformer, "is_cache_enabled", False):
        raise UserError(
            "tokens are spread over processes: step caches do not work so; use guidance=2 alone, "
            "or pipe.transformer.disable_cache()"
        )
