import pytest
import torch
from diffusers import SD3Transformer2DModel

from contentv.base.errors import UserError
from contentv.models.convert import from_sd3
from contentv.models.transformer import ContentVTransformer3DModel

CONFIG = {
    "sample_size": 16,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "joint_attention_dim": 64,
    "caption_projection_dim": 32,
    "pooled_projection_dim": 48,
    "pos_embed_max_size": 16,
    "qk_norm": "rms_norm",
}
NO_POSITIONS = torch.zeros(1, 256, 32)


def image_model(**changes: object) -> SD3Transformer2DModel:
    torch.manual_seed(0)
    return SD3Transformer2DModel(**{**CONFIG, **changes}).eval()


def test_layers_are_shared_and_the_table_is_dropped() -> None:
    source = image_model()
    model = from_sd3(source)
    assert type(model) is ContentVTransformer3DModel
    theirs = dict(source.named_parameters())
    ours = dict(model.named_parameters())
    assert theirs.keys() == ours.keys()
    assert all(parameter is theirs[name] for name, parameter in ours.items())
    assert "pos_embed.pos_embed" in source.state_dict()
    assert "pos_embed.pos_embed" not in model.state_dict()


def test_one_frame_is_an_image_but_for_its_positions() -> None:
    source = image_model()
    model = from_sd3(source)
    source.pos_embed.pos_embed.zero_()
    model.sincos = None
    image = torch.randn(2, 16, 8, 6)
    rest = {
        "encoder_hidden_states": torch.randn(2, 5, 64),
        "pooled_projections": torch.randn(2, 48),
        "timestep": torch.tensor([300.0, 900.0]),
    }
    with torch.no_grad():
        expected = source(image, **rest).sample
        got = model(image[:, :, None], **rest).sample[:, :, 0]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_files_of_an_image_model_load(tmp_path, caplog: pytest.LogCaptureFixture) -> None:  # noqa: ANN001
    source = image_model()
    source.save_pretrained(tmp_path)
    model = ContentVTransformer3DModel.from_pretrained(tmp_path)
    assert torch.equal(model.proj_out.weight, source.proj_out.weight)
    assert caplog.records == []


def test_two_attentions_in_a_block_are_refused() -> None:
    with pytest.raises(UserError, match="dual_attention_layers"):
        from_sd3(image_model(dual_attention_layers=(0,)))


def test_dtype_and_mode_stay() -> None:
    model = from_sd3(image_model().to(torch.bfloat16).train())
    assert model.dtype == torch.bfloat16
    assert model.training
