"""From Stable Diffusion 3's transformer to ContentV's: the same layers, passed otherwise."""

import inspect

import torch
from diffusers import SD3Transformer2DModel
from torch import nn

from contentv.models.transformer import ContentVTransformer3DModel

# What diffusers' loaders note on a model about its layers, which are the same layers here.
_LOADER_NOTES = ("hf_quantizer", "is_quantized", "quantization_method", "is_loaded_in_8bit")


def from_sd3(source: SD3Transformer2DModel) -> ContentVTransformer3DModel:
    """ContentV's transformer made of the layers of `source`: shared, quantised or not, no copy.

    For SD3.5-Large these are the start weights of video training; for a ContentV checkpoint that a
    loader took for a plain SD3 model, it is the model itself. The 2-D position table is left out.

    Raises:
        UserError: `source` has blocks that ContentV does not know (SD3.5-Medium).
    """
    known = inspect.signature(ContentVTransformer3DModel.__init__).parameters
    config = {key: value for key, value in source.config.items() if key in known}
    with torch.device("meta"):
        model = ContentVTransformer3DModel(**config)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear | nn.Conv2d):
            model.set_submodule(name, source.get_submodule(name))
        elif isinstance(module, nn.RMSNorm):
            module.weight = source.get_submodule(name).weight
    for note in _LOADER_NOTES:
        if hasattr(source, note):
            setattr(model, note, getattr(source, note))
    if "quantization_config" in source.config:
        model.register_to_config(quantization_config=source.config["quantization_config"])
    return model.train(source.training)
