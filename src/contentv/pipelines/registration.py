"""Lets diffusers find `ContentVPipeline` by its name, at no cost to those who never ask.

`DiffusionPipeline.from_pretrained` looks up the class that a folder names among the attributes of
the module `diffusers`. Importing torch and diffusers at `import contentv` for that would make every
`--help` slow, so a module-level `__getattr__` (PEP 562) is put on diffusers: at once if it is
there, else after somebody imports it, by a finder that then takes itself off `sys.meta_path`.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

_LIBRARY = "diffusers"
_CLASSES = {
    "ContentVPipeline": "contentv.pipelines.pipeline",
    "ContentVTransformer3DModel": "contentv.models.transformer",
}


def register_with_diffusers() -> None:
    """Makes our classes attributes of diffusers, loaded when first asked for."""
    if _LIBRARY in sys.modules:
        _offer_classes(sys.modules[_LIBRARY])
    elif not any(isinstance(finder, _DiffusersFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _DiffusersFinder())


def _offer_classes(library: ModuleType) -> None:
    def find_class(name: str) -> Any:  # noqa: ANN401 - a module's attribute is anything
        if name not in _CLASSES:
            raise AttributeError(f"module {_LIBRARY} has no attribute {name}")
        return getattr(import_module(_CLASSES[name]), name)

    # diffusers finds its own names in `_LazyModule.__getattr__`, which runs when this one fails.
    library.__dict__.setdefault("__getattr__", find_class)


class _DiffusersFinder(MetaPathFinder):
    """Sees `import diffusers` once."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - the protocol's signature
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname != _LIBRARY:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _LoaderWithClasses(spec.loader)
        return spec


class _LoaderWithClasses(Loader):
    """Runs the real loader, puts it back in its place, then offers our classes."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _offer_classes(sys.modules[_LIBRARY])  # diffusers replaces the module while it runs
