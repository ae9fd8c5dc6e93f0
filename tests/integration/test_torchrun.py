import pytest

from contentv.base.errors import UserError
from contentv.recipes.config import TrainConfig
from contentv.recipes.run import run


def test_training_in_many_processes_that_would_not_know_of_each_other_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(UserError, match="torchrun: contentv train trains in one process"):
        run(TrainConfig(recipe="smoke"))
