"""Flow matching with text towers that do not learn: only the transformer, or a part of it, does."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

from torch import Tensor, nn

from contentv.data.batch import TowerBatch
from contentv.models.text import PromptEmbeds
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.training.objectives.flow_matching import velocity_error

EmbedCaptions: TypeAlias = Callable[[Sequence[str], Sequence[str], Sequence[str]], PromptEmbeds]
"""Embeddings of what each of the three text encoders reads, without gradients."""


class FrozenTextObjective:
    """Mean squared error of the velocity.

    `networks` holds the weights of `transformer` that learn: itself, or its adapters alone.
    """

    def __init__(
        self,
        transformer: ContentVTransformer3DModel,
        embed_captions: EmbedCaptions,
        *,
        networks: nn.Module,
    ) -> None:
        self.transformer, self.networks = transformer, networks
        self._embed_captions = embed_captions

    def losses(self, batch: TowerBatch) -> dict[str, Tensor]:
        """Per-sample squared error [b]."""
        text = self._embed_captions(batch.captions, batch.captions_2, batch.captions_3)
        return {"loss": velocity_error(self.transformer, batch, text)}
