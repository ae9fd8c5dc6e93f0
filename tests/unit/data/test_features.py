from pathlib import Path

import pytest
import torch
from torch import nn

from contentv.base.errors import UserError, WorldError
from contentv.data.features import Features, load_shards, network_hash, write_shard


def features(first: int, count: int) -> Features:
    """Clips whose every value is their number, exact in bfloat16."""
    mean = torch.arange(first, first + count).float().view(-1, 1, 1, 1, 1).expand(-1, 2, 3, 2, 2)
    return Features(mean, -mean)


def write(folder: Path, *, encoder: str = "e1") -> None:
    write_shard(folder / "clips-00000004.safetensors", features(4, 2), encoder=encoder)
    write_shard(folder / "clips-00000000.safetensors", features(0, 4), encoder=encoder)


def test_shards_are_joined_in_order(tmp_path: Path) -> None:
    write(tmp_path)
    for first in (14, 6, 12, 8, 10):  # a folder lists its files in any order
        write_shard(tmp_path / f"clips-{first:08d}.safetensors", features(first, 2), encoder="e1")
    loaded = load_shards(tmp_path, encoder="e1")
    expected = features(0, 16)
    assert len(loaded) == 16
    assert torch.equal(loaded.mean.float(), expected.mean)
    assert torch.equal(loaded.logvar.float(), expected.logvar)


def test_a_sample_is_mean_plus_deviation_times_noise() -> None:
    mean, logvar = torch.randn(2, 4, 2, 3, 2, 2).unbind(0)
    clips = Features(mean, logvar)
    noise = torch.randn(2, 2, 2, 2, 2)
    raw = clips.sample([3, 1], noise)
    for row, index in enumerate([3, 1]):
        expected = mean[index, :, :2] + (logvar[index, :, :2].exp() ** 0.5) * noise[row]
        assert torch.allclose(raw[row], expected, atol=1e-6)


def test_another_encoders_shard_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    write_shard(tmp_path / "clips-00000006.safetensors", features(6, 1), encoder="e2")
    with pytest.raises(UserError, match=r"00000006.*encoder e2, training uses e1; delete"):
        load_shards(tmp_path, encoder="e1")


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no feature shards"):
        load_shards(tmp_path, encoder="e1")


@pytest.mark.parametrize("kept", [0, 5, 60, 0.5, 0.99])
def test_a_truncated_shard_is_one_line_naming_it(tmp_path: Path, kept: float) -> None:
    write(tmp_path)
    file = tmp_path / "clips-00000004.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: kept if isinstance(kept, int) else int(len(data) * kept)])
    with pytest.raises(WorldError, match=r"00000004.safetensors: damaged") as error:
        load_shards(tmp_path, encoder="e1")
    assert "\n" not in str(error.value)
    assert "encode anew" in str(error.value)


def test_a_foreign_safetensors_file_is_one_line(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"mean": torch.zeros(1)}, tmp_path / "clips-00000000.safetensors")
    with pytest.raises(WorldError, match="damaged"):
        load_shards(tmp_path, encoder="e1")


def test_a_networks_hash_is_of_its_weights() -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 3)
    before = network_hash(network)
    assert before == network_hash(network)
    with torch.no_grad():
        network.weight[2, 2] += 1e-6
    assert network_hash(network) != before
