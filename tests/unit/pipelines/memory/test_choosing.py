from dataclasses import replace
from math import inf

import pytest

from contentv.base.errors import UserError
from contentv.pipelines.memory.choosing import Limits, MemoryPlan, choose, limits_within, plans
from contentv.pipelines.memory.modes import Mode
from contentv.pipelines.memory.predicting import GIB, Call
from contentv.pipelines.memory.sizes import PUBLISHED
from contentv.video.shapes import VideoShape

CALL = Call(VideoShape(125, 432, 768), text_tokens=333, steps=50)
CARDS = (3, 4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 80)


def chosen(vram: float | None, host: float = inf, **more: object) -> MemoryPlan:
    return choose(PUBLISHED, [CALL], Limits(vram, host), **more)  # type: ignore[arg-type]


def test_a_larger_card_never_gets_a_slower_mode() -> None:
    order = [plan.mode for plan in plans(PUBLISHED, [CALL], Limits(8), lazy=(False,))]
    places = [order.index(chosen(vram).mode) for vram in CARDS]
    assert places == sorted(places, reverse=True)
    assert places[-1] == 0
    assert len(set(places)) >= 5


@pytest.mark.parametrize("vram", CARDS)
@pytest.mark.parametrize("host", [18, 24, inf])
def test_what_is_chosen_fits(vram: float, host: float) -> None:
    plan = chosen(vram, host, quantization="int8")
    assert plan.prediction.card <= vram * GIB
    assert plan.prediction.host <= host * GIB
    assert (plan.chunk is not None) == plan.mode.chunked


@pytest.mark.parametrize(
    ("vram", "mode"),
    [
        (40, Mode("none")),
        (24, Mode("model")),
        (16, Mode("model", modulation=True)),
        (12, Mode("model", modulation=True, chunked=True)),
        (8, Mode("group")),
        (6, Mode("group", decoding="bfloat16")),
        (4, Mode("sequential", chunked=True, decoding="bfloat16")),
        (3, Mode("group", chunked=True, decoding="tiles")),
    ],
)
def test_usual_cards_keep_the_models_own_weights(vram: float, mode: Mode) -> None:
    assert chosen(vram, 32).mode == mode
    assert chosen(vram, 32, quantization="int8").mode == mode


def test_blocks_wait_in_pinned_memory_only_where_there_is_a_lot() -> None:
    assert chosen(8, 48).mode == Mode("group")
    assert chosen(8, 64).mode == Mode("group", pinned=True)


def test_parts_come_from_disk_only_where_main_memory_is_small() -> None:
    assert not chosen(24, 28).mode.lazy
    assert chosen(24, 24).mode.lazy


def test_rounded_weights_are_the_last_means_and_must_be_allowed() -> None:
    with pytest.raises(UserError, match=r"host=12: the least that works is 16\.\d GiB .*int8"):
        chosen(24, 12)
    assert chosen(24, 12, quantization="int8").mode.quantization == "int8"


def test_rounded_weights_stay_so() -> None:
    sizes = replace(PUBLISHED, kind="int8")
    for vram in (8, 24, None):
        assert choose(sizes, [CALL], Limits(vram)).mode.quantization == "int8"


def test_several_calls_fit_all() -> None:
    short = replace(CALL, video=VideoShape(5, 720, 1280))
    both = choose(PUBLISHED, [CALL, short], Limits(16)).prediction
    for call in (CALL, short):
        alone = choose(PUBLISHED, [call], Limits(16)).prediction
        assert alone.decode <= both.decode or both.card <= 16 * GIB


@pytest.mark.parametrize(
    ("vram", "host", "parts"),
    [
        (0.5, inf, ["vram=0.5: the least that works is", "layer by layer", "ask for fewer frames"]),
        (24, 4, ["host=4: the least that works is", "quantization=int8"]),
        (None, 2, ["host=2: the least that works is", "parts from disk"]),
    ],
)
def test_too_little_is_answered_with_the_least_that_works(
    vram: float | None, host: float, parts: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        chosen(vram, host)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message
    least = float(message.split("the least that works is ")[1].split(maxsplit=1)[0])
    name = message.split("=", maxsplit=1)[0]
    again = chosen(least, host) if name == "vram" else chosen(vram, least)
    assert again.prediction.peak > 0


@pytest.mark.parametrize(
    ("quantization", "way_out"),
    [(None, "quantization=int8"), ("int8", "quantization=nf4"), ("nf4", "machine with more")],
)
def test_the_way_to_less_main_memory_is_fewer_bits(quantization: str | None, way_out: str) -> None:
    with pytest.raises(UserError, match=f"host=3: the least that works is .*{way_out}"):
        chosen(24, 3, quantization=quantization)


def test_where_all_is_in_memory_already_the_way_out_is_to_open_it_lazily() -> None:
    with pytest.raises(UserError, match=r"host=20.*lazy=True, release=True"):
        chosen(24, 20, lazy=(False,))


@pytest.mark.parametrize("limit", [0, -3, float("nan")])
def test_a_limit_is_a_number_above_0(limit: float) -> None:
    with pytest.raises(UserError, match="vram="):
        limits_within(limit, None, 24)
    with pytest.raises(UserError, match="host="):
        limits_within(8, limit, None)


def test_a_card_has_what_it_has() -> None:
    assert limits_within(8, None, 7.7) == Limits(8)
    assert limits_within(None, None, 7.7) == Limits(7.7)
    assert limits_within(8, 16, None) == Limits(None, 16)
    with pytest.raises(UserError, match=r"vram=24: this machine's card has 7\.7 GiB"):
        limits_within(24, None, 7.7)


def test_a_plan_says_what_it_does_in_three_lines() -> None:
    lines = str(chosen(4, 24)).splitlines()
    assert lines[0] == "memory: streamed blocks, tiled decoding, parts from disk"
    assert "of 4; host" in lines[1]
    assert lines[2].strip().startswith("not exact: tiles")
    assert "rounding only" in str(chosen(24))
    assert "no card here" in str(chosen(None))
