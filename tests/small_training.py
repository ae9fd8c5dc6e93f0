"""A small transformer trained for three steps, by one process or by many."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from contentv.base.config import Config
from contentv.distributed.clip import by_mesh, clip_grad_norm
from contentv.distributed.config import ParallelConfig, RecomputeConfig
from contentv.distributed.declaration import Declaration
from contentv.distributed.mesh import Mesh, build_mesh
from contentv.distributed.parallelize import parallelize, set_gradient_sync
from contentv.models.parallel import declare
from contentv.models.transformer import ContentVTransformer3DModel

SAMPLES, STEPS, MAX_NORM = 5, 3, 0.05
LATENTS = (SAMPLES, 4, 3, 6, 10)  # 3 x 3 x 5 = 45 tokens
TEXT = (SAMPLES, 13, 12)


class Case(Config):
    """One way to spread the training."""

    parallel: ParallelConfig
    recompute: RecomputeConfig = RecomputeConfig()
    compiled: bool = False
    micro_batches: int = 1
    positions: Literal["ape", "rope"] = "ape"


@dataclass(frozen=True)
class Trained:
    """What comes out of it."""

    norms: list[float]
    parameters: dict[str, Tensor]


def small_transformer(positions: str = "ape") -> ContentVTransformer3DModel:
    """Six heads: three with tp=2, none left for the last of sp=4."""
    torch.manual_seed(0)
    head_dim = 16 if positions == "rope" else 8
    model = ContentVTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=6,
        attention_head_dim=head_dim,
        caption_projection_dim=6 * head_dim,
        joint_attention_dim=TEXT[2],
        pooled_projection_dim=10,
        pos_embed_type=positions,
    )
    return model.double()


def losses(model: ContentVTransformer3DModel, step: int, samples: Sequence[int]) -> Tensor:
    """Per-sample errors of those of the step's samples."""
    generator = torch.Generator().manual_seed(step)
    latents, target, text, pooled, sigma = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)[list(samples)]
        for shape in (LATENTS, LATENTS, TEXT, (SAMPLES, 10), (SAMPLES,))
    )
    dtype = next(model.parameters()).dtype
    predicted = model(
        latents.to(dtype), text.to(dtype), pooled.to(dtype), 500 + 100 * sigma, return_dict=False
    )[0]
    return (predicted - target).square().flatten(1).mean(1)


def count_samples(errors: Tensor, _groups: int) -> Tensor:
    """The rule: the sum over this group's samples, over the samples of all groups."""
    return errors.sum() / SAMPLES


def train_alone(positions: str = "ape") -> Trained:
    """One process, all samples at once."""
    return _train(small_transformer(positions), None, 1, count_samples)


def train_together(
    case: Case,
    *,
    change: Callable[[Declaration], Declaration] = lambda declaration: declaration,
    reduce: Callable[[Tensor, int], Tensor] = count_samples,
) -> Trained:
    """All processes. `change` and `reduce` let a test put a fault in."""
    mesh = build_mesh(case.parallel, torch.device("cpu"))
    model = small_transformer(case.positions)
    parallelize(
        model,
        mesh,
        change(declare(model)),
        recompute=case.recompute,
        compiled=case.compiled,
    )
    return _train(model, mesh, case.micro_batches, reduce)


def largest_difference(first: Trained, second: Trained) -> float:
    """Of parameters after the last step, and of the gradients' norms."""
    assert first.parameters.keys() == second.parameters.keys()
    differences = [
        (first.parameters[name] - second.parameters[name]).abs().max().item()
        for name in first.parameters
    ]
    norms = [abs(a - b) for a, b in zip(first.norms, second.norms, strict=True)]
    return max(differences + norms)


def _train(
    model: ContentVTransformer3DModel,
    mesh: Mesh | None,
    micro_batches: int,
    reduce: Callable[[Tensor, int], Tensor],
) -> Trained:
    group, groups = (0, 1) if mesh is None else (mesh.data_group, mesh.config.num_data_groups)
    shares = _shares(group, groups, micro_batches)
    one_mesh_each = [{"params": group} for group in by_mesh(model.parameters())]
    optimizer = torch.optim.AdamW(one_mesh_each, lr=1e-2, weight_decay=0.1, fused=True)
    norms = []
    for step in range(STEPS):
        for index, share in enumerate(shares):
            set_gradient_sync(model, index == len(shares) - 1)
            reduce(losses(model, step, share), groups).backward()
        norms.append(clip_grad_norm(model.parameters(), MAX_NORM).item())
        optimizer.step()
        optimizer.zero_grad()
    return Trained(norms, {name: _whole(p.detach()) for name, p in model.named_parameters()})


def _shares(group: int, groups: int, micro_batches: int) -> list[list[int]]:
    """Sample numbers of a group, by micro-batch: more in the first groups than in the last."""
    own = list(range(SAMPLES))[group::groups]
    return [own[index::micro_batches] for index in range(micro_batches)]


def _whole(parameter: Tensor) -> Tensor:
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
