import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from captioners import SENTENCE, Reply, chat_server, completion
from contentv.base.errors import UserError
from contentv.curation.captions.captioner import CaptionError, Request, Shown
from contentv.curation.captions.endpoint import EndpointCaptioner, EndpointConfig

FRAMES = [np.full((32, 48, 3), 40 * i, np.uint8) for i in range(3)]
REQUEST = Request(Shown(FRAMES, [0.5, 1.5, 2.5]), "short", "Describe it.", 80)


def captioner(
    url: str, token: str = "", attempts: int = 5, timeout: float = 30.0
) -> EndpointCaptioner:
    config = EndpointConfig(url, "a-model", token, attempts=attempts, timeout=timeout)
    return EndpointCaptioner(replace(config, first_pause=0.01))


def test_frames_times_prompt_and_token_are_sent() -> None:
    with chat_server() as server:
        answer = captioner(server.url, token="secret")(REQUEST)
    assert (answer.text, answer.finished) == (SENTENCE, True)
    assert (answer.prompt_tokens, answer.answer_tokens) == (11, 7)
    (body,) = server.asked
    *pictures, text = body["messages"][0]["content"]
    assert len(pictures) == 3
    assert all(p["image_url"]["url"].startswith("data:image/jpeg;base64,") for p in pictures)
    assert "0.5, 1.5, 2.5 seconds" in text["text"]
    assert text["text"].endswith("Describe it.")
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("a-model", 80, 0)
    assert server.tokens == ["Bearer secret"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_fault_that_may_pass_is_tried_again(status: int) -> None:
    def answer(number: int, _: dict[str, Any]) -> Reply:
        return completion("A dog runs") if number == 2 else (status, {"error": "busy"})

    with chat_server(answer) as server:
        assert captioner(server.url)(REQUEST).text == "A dog runs"
        assert len(server.asked) == 3


def test_a_server_that_stays_busy_is_given_up_for_now() -> None:
    with chat_server(lambda *_: (503, {"error": "busy"})) as server:
        with pytest.raises(CaptionError, match=r"no answer .HTTP 503"):
            captioner(server.url, attempts=3)(REQUEST)
        assert len(server.asked) == 3


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_ends_the_run_with_the_way_out(status: int) -> None:
    with chat_server(lambda *_: (status, {"error": "no"})) as server:
        with pytest.raises(UserError, match=f"HTTP {status}.*--token-file"):
            captioner(server.url)(REQUEST)
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    "content", [b"not json", {}, {"choices": []}, {"choices": [{"message": {"content": None}}]}, []]
)
def test_nonsense_is_no_caption(content: object) -> None:
    with (
        chat_server(lambda *_: (200, content)) as server,
        pytest.raises(CaptionError, match="the answer"),
    ):
        captioner(server.url)(REQUEST)


def test_an_answer_that_ran_out_of_tokens_says_so() -> None:
    with chat_server(lambda *_: completion("A dog", finish="length")) as server:
        assert not captioner(server.url)(REQUEST).finished


def test_a_server_that_hangs_or_is_gone_is_given_up_for_now() -> None:
    def sleep(_: int, __: dict[str, Any]) -> Reply:
        time.sleep(1)
        return completion("late")

    with chat_server(sleep) as server, pytest.raises(CaptionError, match="Timeout"):
        captioner(server.url, attempts=1, timeout=0.2)(REQUEST)
    with pytest.raises(CaptionError, match="ConnectError"):
        captioner(server.url, attempts=2)(REQUEST)
