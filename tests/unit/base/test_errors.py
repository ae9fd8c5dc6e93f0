import pytest

from contentv.base.errors import (
    ContentVError,
    ModelFilesError,
    NumericsError,
    UserError,
    WorldError,
)


@pytest.mark.parametrize(
    ("error", "code"), [(UserError, 2), (WorldError, 1), (ModelFilesError, 1), (NumericsError, 1)]
)
def test_the_class_decides_the_exit_code(error: type[ContentVError], code: int) -> None:
    assert error.exit_code == code
    assert issubclass(error, ContentVError)


def test_a_wrong_argument_is_a_value_error_too() -> None:
    assert issubclass(UserError, ValueError)
