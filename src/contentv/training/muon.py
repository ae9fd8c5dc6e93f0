"""Muon that takes the matrices of one shape together: products of single small ones are slow."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

_TOGETHER = 8  # matrices; more no longer fit a core's cache


class BatchedMuon(torch.optim.Muon):
    """PyTorch's Muon, to rounding, for matrices that are whole on one device.

    Learning rates are adjusted as by `adjust_lr_fn="match_rms_adamw"`; the state is PyTorch's too.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # noqa: ANN401 - as in torch
        """Update every matrix that has a gradient; gives what `closure` gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._update(group)
        return loss

    def _update(self, group: dict[str, Any]) -> None:
        weights: list[Tensor] = []
        gradients: list[Tensor] = []
        momenta: list[Tensor] = []
        self._init_group(group, weights, gradients, momenta)
        for places in _same_shape(weights):
            alike = ([tensors[i] for i in places] for tensors in (weights, gradients, momenta))
            _move(group, *alike)


def _move(
    group: dict[str, Any], weights: list[Tensor], gradients: list[Tensor], momenta: list[Tensor]
) -> None:
    """Update matrices of one shape."""
    keep, rate = group["momentum"], group["lr"]
    torch._foreach_lerp_(momenta, gradients, 1 - keep)
    steps = momenta
    if group["nesterov"]:
        steps = [g.lerp(m, keep) for g, m in zip(gradients, momenta, strict=True)]
    flat = orthogonalized(_stack(steps), group["ns_coefficients"], group["ns_steps"], group["eps"])
    torch._foreach_mul_(weights, 1 - rate * group["weight_decay"])
    for weight, matrix in zip(weights, flat.unbind(), strict=True):
        rows, columns = weight.shape
        turned = matrix.T if rows > columns else matrix
        weight.add_(turned, alpha=-0.2 * max(rows, columns) ** 0.5 * rate)


def orthogonalized(
    matrices: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """Matrices [b m n], m <= n, with all singular values near 1, by Newton and Schulz."""
    a, b, c = coefficients
    x = matrices / matrices.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def _stack(matrices: Sequence[Tensor]) -> Tensor:
    """Matrices of one shape, the tall ones lying, as [b m n] bfloat16."""
    return torch.stack([(m.T if m.shape[0] > m.shape[1] else m).bfloat16() for m in matrices])


def _same_shape(matrices: Sequence[Tensor]) -> Iterator[list[int]]:
    """Places of a few matrices at a time that have one shape, lying or not."""
    places: dict[tuple[int, ...], list[int]] = {}
    for place, matrix in enumerate(matrices):
        places.setdefault(tuple(sorted(matrix.shape)), []).append(place)
    for alike in places.values():
        yield from (alike[i : i + _TOGETHER] for i in range(0, len(alike), _TOGETHER))
