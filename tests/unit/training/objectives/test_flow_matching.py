import pytest
import torch

from builders import VOCABULARY, random_transformer
from contentv.data.batch import LatentBatch
from contentv.models.text import embed, tokenize
from contentv.models.zoo import TEXT_LENGTHS, tiny_text_towers
from contentv.training.objectives.flow_matching import FlowMatchingObjective


def made() -> FlowMatchingObjective:
    torch.manual_seed(0)
    towers = tiny_text_towers(VOCABULARY)
    return FlowMatchingObjective(random_transformer(1), towers, text_lengths=TEXT_LENGTHS)


def batch(*captions: str) -> LatentBatch:
    rng = torch.Generator().manual_seed(1)
    shape = (len(captions), 16, 2, 4, 4)
    latents, noise = (torch.randn(shape, generator=rng) for _ in range(2))
    sigma = torch.rand(len(captions), generator=rng)
    return LatentBatch(latents, noise, sigma, captions, captions)


def test_a_network_that_says_nothing_is_wrong_by_the_velocity() -> None:
    objective = made()
    torch.nn.init.zeros_(objective.transformer.proj_out.weight)
    torch.nn.init.zeros_(objective.transformer.proj_out.bias)
    given = batch("a red circle", "")
    loss = objective.losses(given)["loss"]
    assert torch.allclose(loss, (given.noise - given.latents).square().mean((1, 2, 3, 4)))


@pytest.mark.parametrize(("caption", "length"), [("a red circle", 16), ("a " * 20, 112)])
def test_the_network_sees_the_path_point_its_level_and_the_text(caption: str, length: int) -> None:
    """Prompts, levels and signs reach the network as the pipeline sends them when sampling."""
    objective, given = made(), batch(caption, "")
    text = embed(objective.towers, tokenize(objective.towers, given.captions, max_length_3=length))
    sigma = given.sigma.view(-1, 1, 1, 1, 1)
    predicted = objective.transformer(
        (1 - sigma) * given.latents + sigma * given.noise,
        encoder_hidden_states=text.sequence,
        pooled_projections=text.pooled,
        timestep=1000 * given.sigma,
        return_dict=False,
    )[0]
    expected = (predicted + given.latents - given.noise).square().mean((1, 2, 3, 4))
    assert torch.allclose(objective.losses(given)["loss"], expected, atol=1e-6)


def test_gradients_reach_the_transformer_and_all_three_towers() -> None:
    objective = made()
    objective.losses(batch("a red circle moves right", "a green square"))["loss"].mean().backward()
    reached = {
        name.split(".")[0]
        for name, parameter in objective.networks.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }
    assert reached == {"transformer", "text_encoder", "text_encoder_2", "text_encoder_3"}
