"""The model card's line works after `import contentv`, which costs next to nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from builders import build_random_pipeline

LOAD = """
pipe = diffusers.DiffusionPipeline.from_pretrained(sys.argv[1])
assert type(pipe).__module__ == "contentv.pipelines.pipeline", type(pipe)
assert diffusers.ContentVTransformer3DModel is type(pipe.transformer)
"""
ORDERS = {
    "ours first": "import sys, contentv, diffusers",
    "diffusers first": "import sys, diffusers, contentv",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_pipeline(tmp_path_factory.mktemp("model") / "tiny")


def python(code: str, *arguments: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("imports", ORDERS.values(), ids=ORDERS.keys())
def test_diffusers_finds_our_pipeline(folder: Path, imports: str) -> None:
    python(imports + LOAD, str(folder))


def test_diffusers_is_otherwise_as_before() -> None:
    python(
        "import sys, contentv\n"
        "ours = lambda: [f for f in sys.meta_path if 'contentv' in type(f).__module__]\n"
        "assert len(ours()) == 1\n"
        "from diffusers.models import ModelMixin\n"
        "import diffusers, importlib.machinery as machinery\n"
        "assert ours() == []\n"
        "assert type(diffusers.__spec__.loader) is machinery.SourceFileLoader\n"
        "assert diffusers.DDPMScheduler.__name__ == 'DDPMScheduler'\n"
        "assert not hasattr(diffusers, 'NoSuchPipeline')\n"
        "import inspect; assert 'import_structure' in inspect.getsource(diffusers)\n"
    )
