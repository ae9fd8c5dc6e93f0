"""From what a person calls a model to the folder it lies in."""

import re
from pathlib import Path

from contentv.base.errors import UserError, WorldError
from contentv.base.files import describe_os_error
from contentv.pipelines.folder import INDEX

_ASSETS = Path(__file__).resolve().parents[1] / "assets"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_HUB_FILES = [INDEX, "*/*.json", "*/*.safetensors", "*/*.txt", "*/*.model"]


def built_in_models() -> dict[str, Path]:
    """Give the model folders that come with the package, by name."""
    return {index.parent.name: index.parent for index in sorted(_ASSETS.glob(f"*/{INDEX}"))}


def locate_model(model: str, *, offline: bool = False) -> Path:
    """Give the folder of a model named by built-in name, path or Hugging Face id.

    A hub model is downloaded into the usual cache unless it lies there; `offline` forbids that.
    UserError when there is no such model, WorldError when it cannot be fetched.
    """
    built_in = built_in_models()
    if model in built_in:
        return built_in[model]
    if model and Path(model).is_dir():
        return Path(model)
    if _HUB_ID.fullmatch(model):
        return _from_hub(model, offline=offline)
    raise UserError(
        f"model={model}: no such model; there are {', '.join(built_in) or 'none built in'}, "
        "folders with a model_index.json, and Hugging Face ids such as ByteDance/ContentV-8B"
    )


def _from_hub(model: str, *, offline: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    instead = "the model tiny needs no download"
    try:
        return Path(snapshot_download(model, allow_patterns=_HUB_FILES, local_files_only=offline))
    except GatedRepoError as error:
        raise UserError(
            f"model={model}: accept its licence on huggingface.co and log in with `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(f"model={model}: no such model on Hugging Face; {instead}") from error
    except LocalEntryNotFoundError as error:
        reason = "offline" if offline else "the hub cannot be reached"
        raise WorldError(f"model={model}: not on this machine, and {reason}; {instead}") from error
    except HfHubHTTPError as error:
        raise WorldError(f"model={model}: the hub answered with an error; {instead}") from error
    except OSError as error:
        place = error.filename or "the Hugging Face cache"
        raise WorldError(
            f"model={model}: cannot write {place}: {describe_os_error(error)}; "
            "HF_HOME names another folder"
        ) from error
