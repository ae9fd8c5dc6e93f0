import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from contentv.flow.path import add_noise, velocity
from contentv.flow.timesteps import sampling_sigmas

SHAPE = (3, 2, 4, 5, 6)


def pair(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    data = torch.randn(SHAPE, generator=rng, dtype=dtype)
    return data, torch.randn(SHAPE, generator=rng, dtype=dtype)


def test_the_path_begins_at_the_data_and_ends_at_the_noise() -> None:
    data, noise = pair()
    assert torch.equal(add_noise(data, noise, torch.zeros(3)), data)
    assert torch.equal(add_noise(data, noise, torch.ones(3)), noise)


def test_each_sample_of_a_batch_has_its_own_sigma() -> None:
    data, noise = pair()
    mixed = add_noise(data, noise, torch.tensor([0.0, 0.25, 1.0]))
    assert torch.equal(mixed[0], data[0])
    assert torch.allclose(mixed[1], 0.75 * data[1] + 0.25 * noise[1])
    assert torch.equal(mixed[2], noise[2])


def test_velocity_is_the_derivative_of_the_path_by_sigma() -> None:
    data, noise = pair(torch.float64)
    sigma = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64, requires_grad=True)
    expected = velocity(data, noise)
    for index in range(len(data)):
        point = add_noise(data, noise, sigma)[index, 0, 0, 0, 0]
        (slope,) = torch.autograd.grad(point, sigma)
        assert torch.isclose(slope[index], expected[index, 0, 0, 0, 0])
    ahead, behind = add_noise(data, noise, sigma + 0.1), add_noise(data, noise, sigma - 0.1)
    assert torch.allclose((ahead - behind) / 0.2, expected)


def test_the_scheduler_follows_the_true_velocity_from_noise_to_data() -> None:
    """One sign convention: what training asks the network for is what sampling integrates."""
    data, noise = pair()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(sigmas=sampling_sigmas(4))
    point = noise
    for index, timestep in enumerate(scheduler.timesteps):
        point = scheduler.step(velocity(data, noise), timestep, point, return_dict=False)[0]
        on_path = add_noise(data, noise, scheduler.sigmas[index + 1].expand(3))
        assert torch.allclose(point, on_path, atol=1e-5)
    assert torch.allclose(point, data, atol=1e-5)
