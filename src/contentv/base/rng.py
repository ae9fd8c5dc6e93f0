"""Random numbers that are a pure function of named keys, never of call order or process rank."""

import hashlib

import numpy as np
import torch


def key(*parts: int | str) -> int:
    """Hash parts such as (seed, "stage1", step, slot) to 63 bits, the same on every machine."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def torch_generator(*parts: int | str) -> torch.Generator:
    """CPU generator for these parts."""
    return torch.Generator().manual_seed(key(*parts))


def numpy_generator(*parts: int | str) -> np.random.Generator:
    """Counter-based numpy generator for these parts."""
    return np.random.Generator(np.random.Philox(key=key(*parts)))
