"""How a transformer attends: by which back-end, and over all tokens or those around."""

from collections.abc import Collection

from torch import Tensor, nn

from contentv.base.errors import UserError
from contentv.models.attention import JointAttention, find_backend
from contentv.models.embeddings import Grid
from contentv.models.windows import Kernel, Sides, WindowAttention


class AttentionChoices:
    """Part of the transformer: what its users may choose about attention."""

    transformer_blocks: nn.ModuleList
    _windows: WindowAttention | None = None

    def set_attention_backend(self, backend: str) -> None:
        """Computes attention by one of `attention.BACKENDS`, in this model only.

        Raises:
            UserError: there is none of this name, or not on this machine.
        """
        found = find_backend(backend)
        for attention in self._attentions():
            attention.processor._attention_backend = found  # noqa: SLF001 - diffusers' name

    def enable_window_attention(
        self,
        window: Sides,
        tile: Sides,
        *,
        dense_layers: Collection[int] = (),
        dense_steps: int = 0,
        kernel: Kernel = "boxes",
    ) -> None:
        """Lets video tokens attend to the tiles around their own only, and to all text.

        Args:
            window: tiles (t, h, w) that a token attends to, its own included.
            tile: tokens (t, h, w) of a tile; any grid may be cut, by any tile.
            dense_layers: numbers of blocks that attend to everything, 0 the first, -1 the last.
            dense_steps: first steps of a sampling that do; `begin_step` says which step it is.
            kernel: "boxes" computes what shares a window by the back-end that is set; "flex"
                compiles PyTorch's flex attention, which skips in place.

        Raises:
            UserError: a number out of its range, or no such block.
        """
        depth = len(self.transformer_blocks)
        if strangers := [number for number in dense_layers if not -depth <= number < depth]:
            raise UserError(f"dense_layers={strangers}: there are blocks 0 to {depth - 1}")
        windows = WindowAttention(window=window, tile=tile, kernel=kernel, dense_steps=dense_steps)
        if kernel == "flex":
            find_backend("flex")
        self._set_windows(windows, {number % depth for number in dense_layers})

    def disable_window_attention(self) -> None:
        """Undoes `enable_window_attention`."""
        self._set_windows(None, set())

    def begin_step(self, step: int) -> None:
        """Says which step of a sampling comes, 0 the first."""
        if self._windows is not None:
            self._windows.step = step

    def _in_window_order(
        self, grid: Grid, tokens: Tensor, text: Tensor, rotation: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens [b n d] and their rotation [2 n d/2] as the windows want them, if there are any.

        In dense steps too: caches of features carry them from one step to the next.
        """
        if self._windows is None:
            return tokens, rotation
        order = self._windows.start(grid, text.shape[1], tokens.device).order
        rotation = None if rotation is None else rotation.index_select(1, order)
        return tokens.index_select(1, order), rotation

    def _in_raster_order(self, patches: Tensor) -> Tensor:
        """Undoes `_in_window_order`."""
        return patches if self._windows is None else self._windows.restore(patches)

    def _set_windows(self, windows: WindowAttention | None, dense_layers: set[int]) -> None:
        self._windows = windows
        for number, attention in enumerate(self._attentions()):
            attention.processor.windows = None if number in dense_layers else windows

    def _attentions(self) -> list[JointAttention]:
        modules = (block.get_submodule("attn") for block in self.transformer_blocks)
        return [module for module in modules if isinstance(module, JointAttention)]
