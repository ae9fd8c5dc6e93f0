import errno
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

from contentv.base.errors import ContentVError, UserError, WorldError
from contentv.pipelines.locate import built_in_models, locate_model


def test_a_folder_is_its_own_place(tmp_path: Path) -> None:
    assert locate_model(str(tmp_path)) == tmp_path


def test_built_in_models_go_by_name() -> None:
    for name, folder in built_in_models().items():
        assert locate_model(name) == folder
        assert (folder / "model_index.json").is_file()


@pytest.mark.parametrize("name", ["tinny", "a/b/c", "../x", "/no/such/folder", "", "org/na me"])
def test_what_is_no_model_is_answered_with_what_could_be(name: str) -> None:
    with pytest.raises(UserError, match="no such model; there are"):
        locate_model(name)


def test_offline_means_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WorldError, match="not on this machine, and offline"):
        locate_model("ByteDance/ContentV-8B", offline=True)


def _response_error(kind: type[Exception]) -> Exception:
    return kind.__new__(kind, "the hub's words")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (_response_error(GatedRepoError), UserError, "accept its licence"),
        (_response_error(RepositoryNotFoundError), UserError, "no such model on Hugging Face"),
        (LocalEntryNotFoundError("no"), WorldError, "the hub cannot be reached"),
        (PermissionError(errno.EACCES, "no", "/cache"), WorldError, "/cache.*HF_HOME"),
        (OSError(errno.ENOSPC, "no"), WorldError, "disk is full.*HF_HOME"),
    ],
)
def test_every_failure_of_the_hub_has_a_way_out(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[ContentVError], words: str
) -> None:
    def fail(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(kind, match=words) as caught:
        locate_model("ByteDance/ContentV-8B")
    assert "\n" not in str(caught.value)
