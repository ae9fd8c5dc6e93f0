"""What `contentv generate` does not load: seconds of imports that nobody asked for."""

import subprocess
import sys
from pathlib import Path

import pytest

from contentv.pipelines.folder import needed_libraries
from contentv.pipelines.locate import locate_model

NEEDLESS = (
    *("torchao", "bitsandbytes", "peft"),  # what a model without adapters and few bits needs not
    *("scipy", "sklearn", "pandas", "pyarrow", "duckdb", "matplotlib"),
    *("tensorboard", "onnxruntime", "cv2", "torchvision", "librosa", "wandb"),
    *("torch._inductor.compile_fx", "torch._inductor.lowering"),  # the compiler of kernels
    *("transformers.pipelines", "transformers.trainer", "diffusers.pipelines.stable_diffusion"),
)
PROGRAM = """
import atexit, gc, sys
from contentv.cli import program
atexit.register(lambda: print("frozen at the end:", gc.get_freeze_count() > 0))
code = program()
print("needless:", sorted(set(NEEDLESS) & set(sys.modules)))
sys.exit(code)
"""


def test_generate_imports_nothing_needless(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    words = ["generate", "a red circle", "--num-inference-steps=1", f"--out={video}"]
    code = PROGRAM.replace("NEEDLESS", repr(NEEDLESS))
    result = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [str(video), "needless: []", "frozen at the end: True"]


def test_the_tiny_model_needs_no_optional_library() -> None:
    assert needed_libraries(locate_model("tiny")) == set()


@pytest.mark.parametrize(
    ("file", "content", "needed"),
    [
        ("transformer/config.json", '{"quantization_config": {}}', set()),
        (
            "transformer/config.json",
            '{"quantization_config": {"a": 1}}',
            {"torchao", "bitsandbytes"},
        ),
        ("scheduler/scheduler_config.json", '{"use_beta_sigmas": true}', {"scipy"}),
        ("scheduler/scheduler_config.json", '{"use_beta_sigmas": false}', set()),
        ("text_encoder/adapter_config.json", "{}", {"peft"}),
    ],
)
def test_what_a_folder_says_brings_its_libraries(
    tmp_path: Path, file: str, content: str, needed: set[str]
) -> None:
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text(content)
    assert needed_libraries(tmp_path) == needed
