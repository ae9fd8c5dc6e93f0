from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from contentv.base.errors import UserError, WorldError
from contentv.curation.teaching.heads import (
    ClipHead,
    LinearHead,
    apply_head,
    load_clip_head,
    load_laion_head,
    save_clip_head,
)


def published() -> torch.nn.Sequential:
    """The layers as they were published: dropout between the first ones, no activation."""
    linear, dropout = torch.nn.Linear, torch.nn.Dropout
    return torch.nn.Sequential(
        linear(768, 1024), dropout(0.2), linear(1024, 128), dropout(0.2), linear(128, 64),
        dropout(0.1), linear(64, 16), linear(16, 1),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_laions_head_scores_as_its_layers_do(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(0)
    network, path = published(), tmp_path / f"head{suffix}"
    state = {f"layers.{name}": value for name, value in network.state_dict().items()}
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file({name: value.numpy() for name, value in state.items()}, path)
    vectors = torch.nn.functional.normalize(torch.randn(5, 768), dim=1)
    with torch.no_grad():
        wanted = network(vectors)[:, 0].numpy()
    assert np.allclose(load_laion_head(path)(vectors.numpy()), wanted, atol=1e-6)


def test_files_that_are_no_head_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "head.pth"
    torch.save({"layers.0.weight": torch.zeros(1024, 512)}, path)
    with pytest.raises(UserError, match=r"layers\.0 does not fit; give LAION's head 768-1024"):
        load_laion_head(path)
    torch.save({"path": Path("x")}, path)  # a class of Python's: code, if it were unpickled
    with pytest.raises(UserError, match="holds more than weights, or is damaged"):
        load_laion_head(path)
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="holds more than weights, or is damaged"):
        load_laion_head(path)
    with pytest.raises(WorldError, match="no such file"):
        load_laion_head(tmp_path / "none.safetensors")
    other = tmp_path / "other.safetensors"
    save_file({"weights": np.zeros(4)}, other)
    with pytest.raises(UserError, match="is no head of contentv curate teach"):
        load_clip_head(other)


def test_a_head_comes_back_as_it_was_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    head = ClipHead(LinearHead(rng.normal(size=8), 0.5), "embedding@1-abc", {"labels": "12"})
    save_clip_head(tmp_path / "head.safetensors", head)
    again = load_clip_head(tmp_path / "head.safetensors")
    vectors = rng.normal(size=(3, 8)).astype(np.float16)
    assert np.array_equal(
        apply_head(again, vectors, "embedding@1-abc"), vectors @ head.head.weights + 0.5
    )
    assert (again.embedding, again.facts) == (head.embedding, head.facts)


def test_a_head_refuses_vectors_of_another_embedding() -> None:
    head = ClipHead(LinearHead(np.zeros(8), 0.0), "embedding@1-abc", {})
    with pytest.raises(UserError, match="taught on embedding@1-abc; teach one on this catalogue"):
        apply_head(head, np.zeros((2, 8)), "embedding@2-abc")
    with pytest.raises(UserError, match="taught on"):
        apply_head(replace(head), np.zeros((2, 9)), "embedding@1-abc")
