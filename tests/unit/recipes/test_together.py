import pytest

from contentv.base.errors import UserError
from contentv.recipes.together import by_first
from contentv.training.peers import Peers


def test_alone_one_tells_oneself() -> None:
    assert by_first(Peers(), lambda: {"a": [1, "b"]}) == {"a": [1, "b"]}
    assert by_first(Peers(), lambda: None) is None


def test_its_own_error_stays_what_it_is() -> None:
    error = UserError("x=1: must be 2")

    def fail() -> None:
        raise error

    with pytest.raises(UserError) as caught:
        by_first(Peers(), fail)
    assert caught.value is error
