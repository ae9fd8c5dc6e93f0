import importlib.metadata
import importlib.util
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from contentv.base.spared import need, spare

PROBES = ("spared_probe", "other_probe")


@pytest.fixture(autouse=True)
def probes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two libraries, and finders that are as before afterwards."""
    for name in PROBES:
        (tmp_path / f"{name}.py").write_text("")
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.syspath_prepend(tmp_path)


def found() -> list[str]:
    return [name for name in PROBES if importlib.util.find_spec(name)]


def test_a_spared_library_counts_as_not_installed() -> None:
    assert found() == [*PROBES]
    spare(PROBES[:1])
    assert found() == [*PROBES[1:]]
    with pytest.raises(ModuleNotFoundError, match="spared_probe"):
        importlib.import_module("spared_probe")
    assert importlib.metadata.version("torch"), "all else is found as before"


def test_what_is_needed_after_all_comes_back() -> None:
    spare(PROBES)
    need(["other_probe", "never_spared"])
    assert found() == ["other_probe"]


def test_needing_what_was_not_spared_changes_nothing() -> None:
    before = list(sys.meta_path)
    need(PROBES)
    assert sys.meta_path == before
    assert PathFinder in before, "Python's own finder, which `spare` is about"
