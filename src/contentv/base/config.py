"""Frozen, strict configuration objects, their YAML form, and one-line validation errors."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from contentv.base.errors import UserError
from contentv.base.files import atomic_path, os_errors

_MAX_SHOWN = 60


class Config(BaseModel):
    """Base of every configuration: immutable, no unknown names, no NaN or infinity."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=()
    )


ConfigType = TypeVar("ConfigType", bound=Config)


@dataclass(frozen=True)
class Argument:
    """How a field stands on the command line, put into `Annotated`, where `--its-name` does not do.

    `positional` arguments have no flag, `flag` is another name (without `--`), `metavar` stands for
    the value, `default` is what the help says of a default of None: who fills it in.
    """

    positional: bool = False
    flag: str | None = None
    metavar: str | None = None
    default: str | None = None


def describe_validation_error(error: ValidationError) -> str:
    """Say on one line which fields have which wrong value and what the rule is."""
    return "; ".join(_describe(detail) for detail in error.errors())


def save_yaml(config: Config, path: Path) -> None:
    """Write every field of `config`, defaults included, so that the file outlives the defaults."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def load_yaml(cls: type[ConfigType], path: Path) -> ConfigType:
    """Read a configuration of type `cls`; UserError says what in the file does not fit."""
    with os_errors(path, "read"):
        text = path.read_text(encoding="utf-8")
    try:
        return cls.model_validate(yaml.safe_load(text) or {})
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())})") from error
    except ValidationError as error:
        raise UserError(f"{path}: {describe_validation_error(error)}") from error


def _describe(detail: ErrorDetails) -> str:
    name = ".".join(str(part) for part in detail["loc"])
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if detail["type"] == "extra_forbidden":
        return f"{name}: there is no such setting"
    if detail["type"] == "missing":
        return f"{name}: is required"
    # A validator of ours that names the value itself is already the whole sentence.
    if not name or message.startswith(f"{name}="):
        return message
    return f"{name}={_shorten(detail['input'])}: {message[:1].lower()}{message[1:]}"


def _shorten(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = text.encode("unicode_escape").decode("ascii") if not text.isprintable() else text
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 1] + "…"
