"""Linear layers for inference on a CPU, with weights in the order that its products read them.

oneDNN multiplies by blocks. Bringing a weight into blocks once, not in every product, makes the
products of float32 faster, and the feed-forward's activation is computed while a block is at hand.
What they give differs by rounding. Both copies of a weight are kept.
"""

import weakref

import torch
from diffusers.models.activations import GELU
from torch import Tensor, nn

from contentv.models.transformer import ContentVTransformer3DModel


class PackedLinear(nn.Linear):
    """A linear layer that keeps a second, blocked copy of its weight.

    Inputs that are not float32 on the CPU, and training, take the plain weight. A weight that was
    written to or replaced is packed again.
    """

    _packed: Tensor | None = None
    _owner: weakref.ref[Tensor] | None = None  # of which parameter, in which state
    _state: tuple[int, int] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Rows [... d] times the weight."""
        return self.product(x, "none", "") if self.takes(x) else super().forward(x)

    def takes(self, x: Tensor) -> bool:
        """Whether the packed weight can be used for `x`."""
        return not torch.is_grad_enabled() and _is_plain(x) and _is_plain(self.weight)

    def product(self, x: Tensor, activation: str, algorithm: str) -> Tensor:
        """Rows [... d] times the packed weight, and one of oneDNN's activations after it."""
        weight = self.weight
        writes = 0 if weight.is_inference() else weight._version  # noqa: SLF001
        state = (weight.data_ptr(), writes)
        # The address is not enough: a weight read anew may get that of one given up.
        if self._owner is None or self._owner() is not weight or state != self._state:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach())  # noqa: SLF001
            self._owner, self._state = weakref.ref(weight), state
        result: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
            x, self._packed, self.bias, activation, [], algorithm
        )
        return result


class PackedGELU(GELU):
    """The feed-forward's first half as one step: product and activation."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Rows [... d] to [... 4d]."""
        layer = self.proj
        if type(layer) is PackedLinear and layer.takes(hidden_states):
            return layer.product(hidden_states, "gelu", self.approximate)
        result: Tensor = super().forward(hidden_states)
        return result


_PACKED: dict[type[nn.Module], type[nn.Module]] = {nn.Linear: PackedLinear, GELU: PackedGELU}


def can_pack(transformer: ContentVTransformer3DModel) -> bool:
    """Whether this torch can pack, and the weights are of a kind that can be packed."""
    return torch.backends.mkldnn.is_available() and any(map(_is_plain, transformer.parameters()))


def pack(transformer: ContentVTransformer3DModel) -> None:
    """Packs the layers of attention and feed-forward: a second copy of their weights."""
    for layer in _layers(transformer):
        if type(layer) in _PACKED and all(map(_is_plain, layer.parameters())):
            _become(layer, _PACKED[type(layer)])


def unpack(transformer: ContentVTransformer3DModel) -> None:
    """Undoes `pack`."""
    for layer in _layers(transformer):
        if isinstance(layer, PackedLinear):
            layer._packed = layer._owner = layer._state = None  # noqa: SLF001
        for plain, packed in _PACKED.items():
            if type(layer) is packed:
                _become(layer, plain)


def _become(layer: nn.Module, kind: type[nn.Module]) -> None:
    """The layer stays the same object, with its parameters and their names."""
    layer.__class__ = kind


def _layers(transformer: ContentVTransformer3DModel) -> list[nn.Module]:
    return [
        module
        for block in transformer.transformer_blocks
        for name, module in block.named_modules()
        if not name.startswith("norm")  # one row each: nothing to gain
    ]


def _is_plain(tensor: Tensor) -> bool:
    """On the CPU, in float32, and not a quantized tensor that only looks so."""
    kinds = (Tensor, nn.Parameter)
    return type(tensor) in kinds and tensor.device.type == "cpu" and tensor.dtype == torch.float32
