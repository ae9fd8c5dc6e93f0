"""ContentV: text to video, from a laptop to the published 8B model.

The public names below are imported when first used, so that `import contentv` takes milliseconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from contentv.pipelines.registration import register_with_diffusers

if TYPE_CHECKING:
    from contentv.base.errors import ContentVError
    from contentv.evaluation.run import run as evaluate
    from contentv.models.transformer import ContentVTransformer3DModel
    from contentv.pipelines.pipeline import ContentVPipeline, ContentVPipelineOutput
    from contentv.pipelines.run import run as generate
    from contentv.recipes.run import run as train

__version__ = "0.1.0"
__all__ = [
    "ContentVError",
    "ContentVPipeline",
    "ContentVPipelineOutput",
    "ContentVTransformer3DModel",
    "__version__",
    "evaluate",
    "generate",
    "train",
]

_HOMES = {
    "ContentVError": "contentv.base.errors:ContentVError",
    "ContentVPipeline": "contentv.pipelines.pipeline:ContentVPipeline",
    "ContentVPipelineOutput": "contentv.pipelines.pipeline:ContentVPipelineOutput",
    "ContentVTransformer3DModel": "contentv.models.transformer:ContentVTransformer3DModel",
    "evaluate": "contentv.evaluation.run:run",
    "generate": "contentv.pipelines.run:run",
    "train": "contentv.recipes.run:run",
}

# The model card's `DiffusionPipeline.from_pretrained(...)` must find our pipeline.
register_with_diffusers()


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute is anything
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
