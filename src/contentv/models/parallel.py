"""What the transformer declares to `distributed/`: its blocks, streams, heads and matrices."""

from contentv.distributed.declaration import Declaration, TensorSplit
from contentv.models.transformer import ContentVTransformer3DModel

_TENSOR_SPLIT = TensorSplit(
    column=(
        *("attn.to_q", "attn.to_k", "attn.to_v"),
        *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
        *("ff.net.0.proj", "ff_context.net.0.proj"),
    ),
    row=("attn.to_out.0", "attn.to_add_out", "ff.net.2", "ff_context.net.2"),
    head_norms=("attn.norm_q", "attn.norm_k", "attn.norm_added_q", "attn.norm_added_k"),
)


def declare(transformer: ContentVTransformer3DModel) -> Declaration:
    """Declaration of `transformer`; adaLN works per sample and is computed by everyone."""
    return Declaration(
        blocks="transformer_blocks",
        carried=("video", "text", None, None),
        constant=(None, None, None, "video"),
        attention="attn.processor",
        output="proj_out",
        num_heads=transformer.config.num_attention_heads,
        tensor_split=_TENSOR_SPLIT,
    )
