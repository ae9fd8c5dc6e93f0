import pytest

from contentv.base.errors import UserError
from contentv.recipes import finetune, run
from contentv.recipes.config import FinetuneConfig, TrainConfig


def test_training_in_many_processes_that_would_not_know_of_each_other_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(UserError, match="torchrun: contentv train trains in one process"):
        run.run(TrainConfig(recipe="smoke"))
    with pytest.raises(UserError, match="torchrun: contentv train finetune trains in one process"):
        finetune.run(FinetuneConfig(data="films"))
