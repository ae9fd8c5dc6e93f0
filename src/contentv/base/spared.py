"""Keeps optional libraries out of a command that has no use for them.

diffusers and transformers import whatever they can work with as soon as it is installed: quantizers
and their compilers, LoRA, scipy, ONNX. That is a quarter of what `contentv generate` takes. A
process of ours can say what it has no use for, and these libraries then count as not installed.
A program that merely uses this package keeps all of them: only the command line asks for this.
"""

import sys
from collections.abc import Collection, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

QUANTIZERS = ("torchao", "bitsandbytes")


class _Sparing(PathFinder):
    """Python's own finder of modules (documented at `sys.meta_path`), but blind to some names."""

    def __init__(self, names: Collection[str]) -> None:
        self.names = set(names)

    # One list of names per finder, so not a class method as the parent's.
    def find_spec(  # type: ignore[override]
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        return None if fullname in self.names else PathFinder.find_spec(fullname, path, target)


def spare(names: Collection[str]) -> None:
    """Let libraries of these names count as not installed in this process, unless imported."""
    sys.meta_path[:] = [
        _Sparing(names) if finder is PathFinder else finder for finder in sys.meta_path
    ]


def need(names: Collection[str]) -> None:
    """Take back `spare` for these names; to be said before anybody has looked for them."""
    for finder in sys.meta_path:
        if isinstance(finder, _Sparing):
            finder.names -= set(names)
