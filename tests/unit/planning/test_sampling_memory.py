from collections.abc import Iterator

import pytest
import torch
from torch import nn

from contentv.pipelines.memory.modes import Mode
from contentv.pipelines.memory.predicting import GIB, Call, Prediction, predict
from contentv.pipelines.memory.sizes import PUBLISHED
from contentv.video.shapes import VideoShape

# The tensors without content, and how they are told apart, are private parts of torch.
card = pytest.importorskip("contentv.planning.card", exc_type=ImportError)
sampling_memory = pytest.importorskip("contentv.planning.sampling_memory", exc_type=ImportError)

LONG, LARGE = VideoShape(125, 432, 768), VideoShape(125, 720, 1280)
INT8, NF4 = Mode("model", quantization="int8"), Mode("model", quantization="nf4", decoding="tiles")
STREAMED = Mode("group", decoding="tiles")
STREAMED_CHUNKED = Mode("group", chunked=True, decoding="tiles")
LAYERS = Mode("sequential", chunked=True, decoding="tiles")
SMALL = Mode("model", quantization="int8", modulation=True, chunked=True, decoding="tiles")
SMALLEST = Mode("model", quantization="nf4", modulation=True, chunked=True, decoding="tiles")
# GiB at the fullest moment of a call.
BUDGETS = [
    pytest.param(Mode(), 32.6, id="resident"),
    pytest.param(Mode("model"), 17.5, id="model"),
    pytest.param(Mode("model", modulation=True), 12.5, id="stored"),
    pytest.param(INT8, 10.0, id="int8"),
    pytest.param(SMALL, 6.7, id="int8-small"),
    pytest.param(NF4, 6.3, id="nf4"),
    pytest.param(SMALLEST, 4.4, id="nf4-small"),
    pytest.param(STREAMED, 3.3, id="streamed"),
    pytest.param(STREAMED_CHUNKED, 2.6, id="streamed-chunked"),
    pytest.param(LAYERS, 2.6, id="layers"),
]


@pytest.fixture
def meter() -> Iterator[object]:
    with card.imagined_card() as meter:
        yield meter


def test_bytes_on_the_card_are_counted_while_something_holds_them(meter: object) -> None:
    first = torch.empty(1000, device=card.CARD)
    view, on_host = first[:10], torch.empty(10**6)
    assert meter.live == meter.peak == 4000
    second = torch.cat([first, first])
    del first, second
    assert (meter.live, meter.peak) == (4000, 12000), "a view holds all"
    del view
    assert meter.live == 0
    meter.restart()
    assert meter.peak == 0
    assert on_host.to(card.CARD).device == card.CARD
    assert meter.peak == 4 * 10**6


def test_a_module_that_leaves_the_card_leaves_nothing(meter: object) -> None:
    linear = nn.Linear(100, 100)
    assert meter.live == 0
    linear.to(card.CARD)
    assert meter.live == 4 * 10100
    assert linear(torch.empty(1, 100, device=card.CARD)).device == card.CARD
    linear.to(torch.bfloat16)
    assert meter.live == 2 * 10100
    linear.weight.data = linear.weight.data.cpu()
    assert meter.live == 2 * 100
    linear.cpu()
    assert meter.live == 0


def test_fused_attention_stores_no_scores(meter: object) -> None:
    heads = torch.empty(1, 2, 10_000, 64, device=card.CARD)
    nn.functional.scaled_dot_product_attention(heads, heads, heads)
    assert meter.peak == 2 * heads.nbytes


@pytest.mark.usefixtures("meter")
def test_whoever_asks_for_content_gets_an_answer() -> None:
    numbers = torch.empty(4, device=card.CARD)
    assert torch.isfinite(numbers).all()
    assert (numbers == 3).nonzero()[0].item() == 0
    assert float(numbers.amax()) == 1.0


def test_nothing_is_left_behind() -> None:
    swap, make = torch.utils.swap_tensors, card.FakeTensor.__new__
    with pytest.raises(ZeroDivisionError), card.imagined_card():
        1 / 0  # noqa: B018
    assert (torch.utils.swap_tensors, card.FakeTensor.__new__) == (swap, make)
    assert not hasattr(torch, card.CARD.type)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("mode", "act", "budget"),
    [
        pytest.param(Mode("model", modulation=True), "denoise", 12.5, marks=pytest.mark.slow),
        (STREAMED_CHUNKED, "denoise", 2.6),
        (Mode("model"), "decode", 7.0),
    ],
)
def test_an_act_stays_within_its_budget(mode: Mode, act: str, budget: float) -> None:
    measured = sampling_memory.measure_sampling_memory(mode, LONG, [act])[act]
    assert measured <= 1.05 * budget * GIB
    assert getattr(predicted(mode, LONG), act) == pytest.approx(measured, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "budget"), BUDGETS)
def test_every_mode_stays_within_its_budget(mode: Mode, budget: float) -> None:
    peak = max(sampling_memory.measure_sampling_memory(mode, LONG).values())
    assert peak <= 1.05 * budget * GIB
    assert predicted(mode, LONG).peak == pytest.approx(peak, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("mode", [Mode("model", modulation=True), STREAMED, SMALL])
def test_predictions_hold_for_large_videos(mode: Mode) -> None:
    peak = max(sampling_memory.measure_sampling_memory(mode, LARGE).values())
    assert predicted(mode, LARGE).peak == pytest.approx(peak, rel=0.1)


def predicted(mode: Mode, video: VideoShape) -> Prediction:
    return predict(PUBLISHED, Call(video=video, text_tokens=333, steps=2), mode)
