"""The laws of docs/architecture.md that a program can check; part of `make check`."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contentv.cli import VERBS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "contentv"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}

FILE_LINES = 400
FUNCTION_LINES = 50
CALL_LINES = 90  # a pipeline's `__call__` is one visible path

VENDOR_FILES = ("base/device.py", "models/attention.py", "lowbit/backends/", "planning/search.py")
VENDOR_WORDS = re.compile(r"(?<![a-z])(cuda|npu|nccl|hccl)(?![a-z])", re.IGNORECASE)
ENVIRONMENT_FILES = ("base/device.py", "curation/engine/ray.py")  # Ray can be told only there
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b")


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def in_one_of(path: Path, places: tuple[str, ...]) -> bool:
    return name_of(path).startswith(places)


def code_without_docstrings(tree: ast.Module) -> str:
    """Give the code alone: what people are told in docstrings may name a vendor, code may not."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    clone = ast.parse(ast.unparse(tree))
    for node in ast.walk(clone):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            node.body[0] = ast.Pass()
    return ast.unparse(clone)


def imported_modules(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def calls_and_attributes(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node), node


def test_files_are_short() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in lengths.items() if lines > FILE_LINES} == {}


def test_functions_are_short() -> None:
    long_ones = {}
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > (CALL_LINES if node.name == "__call__" else FUNCTION_LINES):
                    long_ones[f"{name_of(path)}:{node.lineno} {node.name}"] = lines
    assert long_ones == {}


def test_device_vendors_are_named_in_their_files_only() -> None:
    found = {
        name_of(path): sorted({word.lower() for word in VENDOR_WORDS.findall(text)})
        for path, tree in TREES.items()
        if not in_one_of(path, VENDOR_FILES)
        if VENDOR_WORDS.search(text := code_without_docstrings(tree))
    }
    assert found == {}


def test_nothing_is_unpickled() -> None:
    modules = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    faults = [
        f"{name_of(path)}: imports {module}"
        for path, tree in TREES.items()
        for module in imported_modules(tree)
        if module.split(".")[0] in modules
    ]
    for path, tree in TREES.items():
        for called, node in calls_and_attributes(tree):
            if isinstance(node, ast.Call) and called in {"torch.load", "np.load", "numpy.load"}:
                given = {word.arg: ast.unparse(word.value) for word in node.keywords}
                safe = given.get("weights_only") == "True" or (
                    called != "torch.load" and given.get("allow_pickle", "False") == "False"
                )
                if not safe:
                    faults.append(f"{name_of(path)}:{node.lineno} {called} may unpickle")
    assert faults == []


def test_the_environment_is_read_in_one_place() -> None:
    faults = [
        f"{name_of(path)}:{getattr(node, 'lineno', 0)} {called}"
        for path, tree in TREES.items()
        if not in_one_of(path, ENVIRONMENT_FILES)
        for called, node in calls_and_attributes(tree)
        if called in {"os.environ", "os.getenv", "os.putenv"}
    ]
    assert faults == []


def test_nothing_is_left_unfinished() -> None:
    faults = [name_of(path) for path in SOURCES if UNFINISHED.search(path.read_text())]
    assert faults == []


def test_packages_are_empty() -> None:
    """A package's file holds a docstring at most: importing a config must not import torch."""
    faults = [
        name_of(path)
        for path, tree in TREES.items()
        if path.name == "__init__.py" and path.parent != PACKAGE
        if any(not isinstance(node, ast.Expr) for node in tree.body)
    ]
    assert faults == []


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_never_imports_torch(verb: str) -> None:
    code = (
        "import sys\n"
        "from contentv.cli import main\n"
        f"code = main([*{verb.split()!r}, '--help'])\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'av'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else code)\n"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "usage" in result.stdout.lower()
