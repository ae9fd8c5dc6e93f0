"""The public names: adding or removing one is a decision, made here."""

import subprocess
import sys

import pytest

import contentv

PUBLIC = [
    "ContentVError",
    "ContentVPipeline",
    "ContentVPipelineOutput",
    "ContentVTransformer3DModel",
    "__version__",
    "evaluate",
    "generate",
    "train",
]


def test_names() -> None:
    assert contentv.__all__ == PUBLIC
    assert dir(contentv) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_name_is_there(name: str) -> None:
    assert getattr(contentv, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        contentv.nothing  # noqa: B018 - reading it is the test


def test_import_is_light() -> None:
    code = (
        "import sys, contentv\n"
        "sys.exit(str({'torch', 'diffusers', 'transformers', 'av'} & set(sys.modules) or ''))"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.stderr.strip() == ""
