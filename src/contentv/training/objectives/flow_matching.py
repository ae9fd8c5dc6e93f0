"""Flow matching: predict the velocity at a point between data and noise, given a text."""

import torch
from torch import Tensor, nn

from contentv.data.batch import LatentBatch, NoisedBatch
from contentv.flow.path import add_noise, velocity
from contentv.models.text import PromptEmbeds, TextTowers, embed, fitting_length, tokenize
from contentv.models.transformer import ContentVTransformer3DModel

_TIMESTEPS = 1000
# The CPU's vector library takes twice as long for a tanh, of which GELU has one, as for an exp.
_INDUCTOR = {"cpp.use_decompose_tanh": True}


class FlowMatchingObjective:
    """Mean squared error of the velocity; transformer and text towers learn together.

    `text_lengths` are the token lengths T5 may run at: a batch takes the shortest that fits.
    """

    def __init__(
        self,
        transformer: ContentVTransformer3DModel,
        towers: TextTowers,
        *,
        text_lengths: tuple[int, ...],
        compiled: bool = False,
    ) -> None:
        self.transformer, self.towers, self.text_lengths = transformer, towers, text_lengths
        self.networks = nn.ModuleDict({"transformer": transformer, **towers.encoders})
        if compiled:
            compile_for_training(transformer)
            for encoder in towers.encoders.values():
                encoder.set_attn_implementation("eager")

    def losses(self, batch: LatentBatch) -> dict[str, Tensor]:
        """Per-sample squared error [b]."""
        length = fitting_length(self.towers, batch.captions, self.text_lengths)
        tokens = tokenize(self.towers, batch.captions, max_length_3=length)
        text = embed(self.towers, tokens.to(batch.latents.device))
        return {"loss": velocity_error(self.transformer, batch, text)}


def compile_for_training(transformer: ContentVTransformer3DModel) -> None:
    """Compile the blocks of a small transformer for fixed shapes."""
    # Compilations of earlier stages in this process would count towards the limit of this one's.
    torch.compiler.reset()
    # At a few hundred tokens plain matrix products beat the CPU's fused attention backward.
    transformer.set_attention_backend("_native_math")
    transformer.compile_repeated_blocks(fullgraph=True, dynamic=False, options=_INDUCTOR)


def velocity_error(
    transformer: ContentVTransformer3DModel, batch: NoisedBatch, text: PromptEmbeds
) -> Tensor:
    """Mean squared error of each sample's velocity, float32 [b]."""
    predicted = transformer(
        add_noise(batch.latents, batch.noise, batch.sigma),
        encoder_hidden_states=text.sequence,
        pooled_projections=text.pooled,
        timestep=batch.sigma * _TIMESTEPS,
        return_dict=False,
    )[0]
    error = predicted.float() - velocity(batch.latents, batch.noise)
    return error.square().flatten(1).mean(1)
