from pathlib import Path

import pytest
from pydantic import Field, ValidationError, field_validator

from contentv.base.config import Config, describe_validation_error, load_yaml, save_yaml
from contentv.base.errors import UserError, WorldError


class Inner(Config):
    rate: float = 0.5


class Example(Config):
    name: str
    steps: int = Field(3, ge=1)
    folder: Path | None = None
    inner: Inner = Inner()

    @field_validator("name")
    @classmethod
    def _short(cls, name: str) -> str:
        if len(name) > 100:
            raise ValueError("name too long; shorten it")
        return name


def fault(**values: object) -> str:
    with pytest.raises(ValidationError) as caught:
        Example.model_validate(values)
    return describe_validation_error(caught.value)


def test_yaml_keeps_everything_defaults_too(tmp_path: Path) -> None:
    config = Example(name="é", folder=Path("a/b"), inner=Inner(rate=1e-4))
    save_yaml(config, tmp_path / "run.yaml")
    assert load_yaml(Example, tmp_path / "run.yaml") == config
    assert "steps: 3" in (tmp_path / "run.yaml").read_text()


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Example(name="a").steps = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({}, "name: is required"),
        ({"name": "a", "stesp": 1}, "stesp: there is no such setting"),
        (
            {"name": "a", "steps": 0},
            "steps=0: input should be greater than or equal to 1",
        ),
        (
            {"name": "a", "inner": {"rate": float("nan")}},
            "inner.rate=nan: input should be a finite number",
        ),
        (
            {"name": "a", "steps": "x"},
            "steps=x: input should be a valid integer, unable to parse string as an integer",
        ),
    ],
)
def test_faults_are_one_line_with_name_value_and_rule(values: dict[str, object], line: str) -> None:
    assert fault(**values) == line


def test_long_and_unprintable_values_are_cut_and_escaped() -> None:
    line = fault(name="\x1b[31m" * 1000)
    assert line.isprintable()
    assert len(line) < 120
    assert line.endswith(": name too long; shorten it")


def test_several_faults_share_the_line() -> None:
    assert fault(steps=0, x=1).count(";") == 2


def test_a_bad_yaml_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: [")
    (tmp_path / "b.yaml").write_text("nme: x")
    for file in ("a.yaml", "b.yaml"):
        with pytest.raises(UserError, match=file) as caught:
            load_yaml(Example, tmp_path / file)
        assert "\n" not in str(caught.value)
    with pytest.raises(WorldError, match="no such file"):
        load_yaml(Example, tmp_path / "c.yaml")
