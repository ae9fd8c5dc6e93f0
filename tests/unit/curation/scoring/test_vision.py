import sys

import pytest

from contentv.base.errors import UserError
from contentv.curation.scoring.vision import opencv


def test_one_thread() -> None:
    assert opencv().getNumThreads() == 1


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UserError, match=r"pip install 'contentv\[curate\]'"):
        opencv()
