"""The straight path between data and noise, in one sign convention for the whole project.

Code speaks of sigma (1 = noise, 0 = data) and of velocity = noise - data, as the published weights
do. The paper's time is 1 - sigma, its velocity has the other sign (arXiv 2506.05343, section 4.1).
"""

from torch import Tensor


def add_noise(data: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Point at `sigma` on the path from data to noise; data, noise [b ...], sigma [b] in 0..1."""
    sigma = per_sample(sigma, data)
    return (1 - sigma) * data + sigma * noise


def velocity(data: Tensor, noise: Tensor) -> Tensor:
    """What the network predicts: the path's derivative by sigma, the same at every sigma."""
    return noise - data


def per_sample(values: Tensor, like: Tensor) -> Tensor:
    """Shape [b] to [b 1 1 ...] for broadcasting against `like`."""
    return values.reshape(-1, *[1] * (like.ndim - 1)).to(like.dtype)
