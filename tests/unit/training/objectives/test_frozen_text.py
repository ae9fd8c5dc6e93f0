import torch

from builders import VOCABULARY, random_transformer
from contentv.data.batch import FeatureBatch, LatentBatch
from contentv.encoding.captions import CaptionEncoder
from contentv.encoding.encoder import FeatureEncoder
from contentv.models.zoo import TEXT_LENGTHS, tiny_text_towers
from contentv.training.objectives.flow_matching import FlowMatchingObjective
from contentv.training.objectives.frozen_text import FrozenTextObjective

CAPTIONS = ("a red circle", "")


def test_the_loss_is_that_of_training_with_the_towers() -> None:
    torch.manual_seed(0)
    transformer, towers = random_transformer(1), tiny_text_towers(VOCABULARY)
    together = FlowMatchingObjective(transformer, towers, text_lengths=TEXT_LENGTHS)
    together.networks.eval()
    embed = CaptionEncoder(FeatureEncoder(towers=towers), text_lengths=TEXT_LENGTHS)
    frozen = FrozenTextObjective(transformer, networks=transformer)
    rng = torch.Generator().manual_seed(1)
    latents, noise = (torch.randn(2, 16, 2, 4, 4, generator=rng) for _ in range(2))
    sigma = torch.rand(2, generator=rng)
    texts = embed(CAPTIONS, CAPTIONS, CAPTIONS)
    loss = frozen.losses(FeatureBatch(latents, noise, sigma, *texts, CAPTIONS))["loss"]
    expected = together.losses(LatentBatch(latents, noise, sigma, CAPTIONS, CAPTIONS))["loss"]
    assert torch.allclose(loss, expected, rtol=1e-4)
    loss.sum().backward()
    assert all(p.grad is None for p in towers.text_encoder.parameters())
    assert any(p.grad is not None for p in transformer.parameters())
