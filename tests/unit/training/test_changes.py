from pathlib import Path

import pytest

from contentv.base.errors import UserError
from contentv.training.changes import changed_settings
from contentv.training.config import OptimizerConfig, SpikeConfig, StageConfig

BEFORE = StageConfig(name="stage", steps=4)


def changes(*, accept: bool = False, **update: object) -> list[str]:
    now = BEFORE.model_copy(update=update).model_dump(mode="json")
    return changed_settings(Path("run"), BEFORE.model_dump(mode="json"), now, accept=accept)


def test_every_changed_field_is_named_and_no_other() -> None:
    optimizer = OptimizerConfig(learning_rate=0.5, betas=(0.9, 0.95))
    with pytest.raises(UserError) as error:
        changes(steps=5, optimizer=optimizer)
    message = str(error.value)
    assert "\n" not in message
    assert "steps=4, now 5" in message
    assert "optimizer.learning_rate=0.001, now 0.5" in message
    assert "optimizer.betas=[0.9, 0.99], now [0.9, 0.95]" in message
    assert "warmup" not in message
    assert "--accept" in message
    assert "--out" in message


@pytest.mark.parametrize("field", ["log_every", "checkpoint_every", "validate_every", "keep"])
def test_how_a_run_is_watched_is_free(field: str) -> None:
    assert changes(**{field: 7}) == []


def test_what_touches_neither_data_nor_network_may_be_accepted() -> None:
    found = changes(accept=True, steps=9, ema_decay=0.5, spikes=SpikeConfig(factor=3))
    assert found == [
        "ema_decay=0.999, now 0.5",
        "spikes.factor=0.0, now 3.0",
        "steps=4, now 9",
    ]


@pytest.mark.parametrize("accept", [False, True])
@pytest.mark.parametrize(
    ("update", "text"),
    [
        ({"seed": 1}, "seed=0, now 1"),
        ({"name": "other"}, "name=stage, now other"),
        ({"optimizer": OptimizerConfig(name="muon")}, "optimizer.name=adamw, now muon"),
    ],
)
def test_data_and_network_may_not(update: dict[str, object], text: str, *, accept: bool) -> None:
    with pytest.raises(UserError) as error:
        changes(accept=accept, ema_decay=0.5, **update)
    assert text in str(error.value)
    assert "--accept" not in str(error.value)


def test_a_factor_that_would_skip_usual_updates_is_refused() -> None:
    with pytest.raises(ValueError, match=r"factor=0\.5: must be above 1, or 0 for never"):
        SpikeConfig(factor=0.5)
