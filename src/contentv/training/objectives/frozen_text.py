"""Flow matching on features: only the transformer, or a part of it, learns."""

from torch import Tensor, nn

from contentv.data.batch import FeatureBatch
from contentv.models.text import PromptEmbeds
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.training.objectives.flow_matching import velocity_error


class FrozenTextObjective:
    """Mean squared error of the velocity.

    `networks` holds the weights of `transformer` that learn: itself, or its adapters alone.
    """

    def __init__(self, transformer: ContentVTransformer3DModel, *, networks: nn.Module) -> None:
        self.transformer, self.networks = transformer, networks

    def losses(self, batch: FeatureBatch) -> dict[str, Tensor]:
        """Per-sample squared error [b]."""
        # Text encoders may compute in a shorter format than the transformer is trained in.
        dtype = batch.latents.dtype
        text = PromptEmbeds(batch.sequence.to(dtype), batch.pooled.to(dtype))
        return {"loss": velocity_error(self.transformer, batch, text)}
