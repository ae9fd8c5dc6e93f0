"""A card that is not there: real code runs on tensors without content, and its bytes are counted.

The tensors of the host and of the card tell each other apart, so weights that wait on the host do
not count, whoever moves them. What is imported from torch's private parts may move: it is imported
here and in `fake.py` only, and tests skip when it is gone.

On a CPU some operations fall apart into steps that a card does in one kernel; `_Kernels` puts the
kernel's result in their place.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any
from weakref import ref

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Of the kinds of device that every build of torch can name, and none has, the one whose tensors
# may be indexed and moved. Its own library would need another name.
_KIND = "lazy"
CARD = torch.device(_KIND, 0)


class Meter:
    """Bytes on the card: those `live` now, and the `peak` since `restart`."""

    def __init__(self) -> None:
        self.live = self.peak = 0
        self._storages: dict[int, Any] = {}

    def restart(self) -> None:
        """Forgets the peak so far."""
        self.peak = self.live

    def see(self, tensor: Tensor) -> None:
        """Counts what a tensor holds until nothing holds that any more."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()  # noqa: SLF001 - torch's identity of storages
        if key in self._storages:
            return

        def forget(_: object) -> None:
            if self._storages.pop(key, None) is not None:
                self.live -= size

        self._storages[key] = ref(storage, forget)
        self.live += size
        self.peak = max(self.peak, self.live)


@contextmanager
def imagined_card() -> Iterator[Meter]:
    """Inside, all tensors are without content, those on `CARD` are counted; gradients are off."""
    meter, make = Meter(), FakeTensor.__new__
    swap: Callable[[Tensor, Tensor], None] = torch.utils.swap_tensors

    def swap_tensors(old: Tensor, new: Tensor) -> None:
        if isinstance(old, FakeTensor):
            _become(old, new)
        else:
            swap(old, new)

    def new(cls: type[FakeTensor], *args: Any, **kwargs: Any) -> Tensor:  # noqa: ANN401
        # Accelerate makes new parameters by calling the type of the old ones.
        if kwargs.keys() == {"requires_grad"}:
            return torch.nn.Parameter(*args, **kwargs)
        made: Tensor = make(cls, *args, **kwargs)
        return made

    torch.utils.swap_tensors = swap_tensors
    FakeTensor.__new__ = new  # type: ignore[method-assign, assignment]
    setattr(torch, _KIND, _Driver)
    try:
        tensors = FakeTensorMode(allow_non_fake_inputs=True)
        with tensors, _Counted(meter), _Kernels(), torch.no_grad():
            yield meter
    finally:
        torch.utils.swap_tensors = swap
        FakeTensor.__new__ = make  # type: ignore[method-assign]
        delattr(torch, _KIND)


class _Counted(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Shows each result of an operation to a meter."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._meter = meter

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - torch's operator
        types: Any,  # noqa: ANN401 - torch's protocol
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        if func is torch.ops.aten._local_scalar_dense.default:  # noqa: SLF001
            # Whoever asks for content hears: it is finite, it is bright, it is the first.
            return 0 if args[0].dtype == torch.int64 else 1
        if func is torch.ops.aten.equal.default:
            return args[0] is args[1]
        if func is torch.ops.aten.nonzero.default:
            # Whoever asks where something is: in one place.
            return args[0].new_zeros((1, args[0].ndim), dtype=torch.int64)
        if func is torch.ops.aten._pin_memory.default:  # noqa: SLF001
            return args[0]
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, FakeTensor) and leaf.device.type == _KIND:
                self._meter.see(leaf)
        return result


class _Kernels(TorchFunctionMode):
    """What an accelerator does in one kernel takes room for its result only."""

    def __torch_function__(
        self,
        func: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _attended(*args, **kwargs)
        if func is F.rms_norm:
            return torch.empty_like(args[0])
        if func is torch.Tensor.numpy:
            return np.zeros(tuple(args[0].shape), np.float32)
        if func == _SET_DATA and isinstance(args[0], FakeTensor):
            return _become(args[0], args[1].detach())
        return func(*args, **kwargs)


_SET_DATA = torch.Tensor.data.__set__  # type: ignore[attr-defined]


def _attended(query: Tensor, key: Tensor, value: Tensor, **_: object) -> Tensor:
    """Result [b h n d] of a fused attention, tokens outside of heads in memory."""
    del key
    batch, heads, tokens = query.shape[:3]
    return query.new_empty(batch, tokens, heads, value.shape[-1]).transpose(1, 2)


def _become(old: Tensor, new: Tensor) -> None:
    """`old` is from now on what `new` was: data, dtype and device."""
    new.requires_grad_(old.requires_grad)
    torch._C._swap_tensor_impl(old, new)  # noqa: SLF001
    assert isinstance(old, FakeTensor)
    assert isinstance(new, FakeTensor)
    old.fake_device, new.fake_device = new.fake_device, old.fake_device


class _Driver:
    """What libraries ask of a device's module: streams, of which here one waits for no other."""

    class Stream:
        """A queue of work."""

        def synchronize(self) -> None:
            """Nothing is ever under way."""

    stream: Callable[[object], nullcontext[None]] = staticmethod(lambda _: nullcontext())
    current_stream: Callable[[], Stream] = Stream
    empty_cache: Callable[[], None] = staticmethod(lambda: None)
