from hypothesis import given
from hypothesis import strategies as st

from contentv.distributed.ulysses import split


@given(st.integers(0, 500), st.integers(1, 64))
def test_all_are_dealt_and_the_first_have_most(count: int, parts: int) -> None:
    sizes = split(count, parts)
    assert len(sizes) == parts
    assert sum(sizes) == count
    assert list(sizes) == sorted(sizes, reverse=True)
    assert sizes[0] == -(-count // parts)
    assert len(set(sizes) - {sizes[0], 0}) <= 1  # full ones, one with the rest, empty ones


def test_heads_of_the_published_model() -> None:
    assert split(38, 2) == (19, 19)
    assert split(38, 4) == (10, 10, 10, 8)
    assert split(38, 8) == (5, 5, 5, 5, 5, 5, 5, 3)
    assert split(38, 16) == (3,) * 12 + (2, 0, 0, 0)
