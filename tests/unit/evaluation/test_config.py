import pytest
from pydantic import ValidationError

from contentv.base.config import describe_validation_error
from contentv.evaluation.config import EvaluateConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_prompts": 0}, "num_prompts=0"),
        ({"guidance_scale": float("nan")}, "guidance_scale=nan"),
        ({"num_inference_steps": -3}, "num_inference_steps=-3"),
        ({"flow_shift": 0}, "flow_shift=0"),
        ({"split": "train"}, "split=train"),
        ({"suite": "vbench"}, "suite=vbench"),
        ({"suite": "autoencoder", "guidance_scale": 2.0}, "guidance_scale has no effect"),
        ({"suite": "autoencoder", "captions": "long"}, "captions has no effect"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        EvaluateConfig.model_validate({"suite": "toybench", **settings})
    assert message in describe_validation_error(caught.value)
