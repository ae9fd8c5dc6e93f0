"""Low-rank adapters of the transformer, in the file format of diffusers' SD3."""

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model_state_dict
from torch import nn

from contentv.base.files import atomic_dir
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.pipelines.pipeline import ContentVPipeline

_PROJECTIONS = (
    *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
    *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
)


def add_lora(transformer: ContentVTransformer3DModel, rank: int, *, seed: int) -> None:
    """Freeze `transformer` and add adapters, in float32, to all its attention projections.

    At first they change nothing: one of each pair of matrices is zero.
    """
    transformer.requires_grad_(False)
    torch.manual_seed(seed)
    transformer.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(_PROJECTIONS)))
    for parameter in transformer.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def learning_part(networks: nn.Module) -> nn.Module:
    """A module of the parameters of `networks` that learn, under their names, and nothing else.

    They are the same parameters: a checkpoint and an average of them leave out what is frozen.
    """
    part = nn.Module()
    for name, parameter in networks.named_parameters():
        if parameter.requires_grad:
            *path, last = name.split(".")
            _place(part, path).register_parameter(last, parameter)
    return part


def save_lora(transformer: ContentVTransformer3DModel, folder: Path) -> None:
    """Write the adapters as a folder that `ContentVPipeline.load_lora_weights` reads."""
    layers = get_peft_model_state_dict(transformer)
    layers = {name: value.detach().cpu().contiguous() for name, value in layers.items()}
    with atomic_dir(folder) as part:
        ContentVPipeline.save_lora_weights(part, transformer_lora_layers=layers)


def _place(module: nn.Module, path: list[str]) -> nn.Module:
    for name in path:
        children = dict(module.named_children())
        if name not in children:
            module.add_module(name, nn.Module())
        module = module.get_submodule(name)
    return module
