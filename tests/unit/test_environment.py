"""Each extra's libraries import together in one environment, at the versions of constraints.txt."""

import ast
import importlib
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
CORE: list[str] = PROJECT["dependencies"]

# What to import of a distribution, where that is not its name.
MODULES = {
    "faiss-cpu": "faiss",
    "import-linter": "importlinter",
    "opencv-python-headless": "cv2",
    "pre-commit": "pre_commit",
    "pillow": "PIL",
    "pyarrow": "pyarrow.flight",
    "pytest-xdist": "xdist",
    "pyyaml": "yaml",
    "ray": "ray.data",
    "scenedetect-headless": "scenedetect",
    "scikit-video": "skvideo",
    "types-pyyaml": "yaml",
}

PARTS = {"pydantic-core"}  # pydantic names the one version it goes with


def module_of(requirement: str) -> str:
    name = Requirement(requirement).name
    return MODULES.get(name, name.replace("-", "_"))


def is_installed(requirement: str) -> bool:
    try:
        return bool(version(Requirement(requirement).name))
    except PackageNotFoundError:
        return False


@pytest.mark.parametrize("requirement", CORE)
def test_core_imports(requirement: str) -> None:
    importlib.import_module(module_of(requirement))


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_extra_imports(extra: str) -> None:
    missing = [requirement for requirement in EXTRAS[extra] if not is_installed(requirement)]
    if missing:
        pytest.skip(f"extra {extra!r} is not installed ({missing[0]}): pip install '.[{extra}]'")
    for requirement in EXTRAS[extra]:
        importlib.import_module(module_of(requirement))


def test_every_requirement_has_a_tested_version() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [line.split("==") for line in lines if "==" in line and not line.startswith("#")]
    tested = {canonicalize_name(name): pinned for name, pinned in pins}
    for text in [*CORE, *(entry for entries in EXTRAS.values() for entry in entries)]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert name in tested, f"{name} has no line in constraints.txt; run `make lock`"
        assert requirement.specifier.contains(tested[name]), f"{text} shuts out {tested[name]}"


def test_every_import_is_declared() -> None:
    """What comes along with another library may leave with it."""
    every = [*CORE, *(entry for entries in EXTRAS.values() for entry in entries)]
    declared = PARTS | {canonicalize_name(Requirement(text).name) for text in every}
    owners = packages_distributions()
    undeclared = {
        f"{path.name}: {module}"
        for path in (ROOT / "src").rglob("*.py")
        for module in imported_modules(path)
        if module in owners and not {canonicalize_name(name) for name in owners[module]} & declared
    }
    assert undeclared == set()


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0])
    return names - set(sys.stdlib_module_names) - {"contentv"}


def test_torchvision_is_not_required() -> None:
    """Its wheels do not import beside a CPU torch, so nothing we ask for may bring it."""
    lines = (ROOT / "constraints.txt").read_text().lower()
    assert "torchvision" not in lines
    assert "torchaudio" not in lines
    assert "nvidia" not in lines
