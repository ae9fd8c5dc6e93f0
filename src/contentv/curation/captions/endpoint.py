"""Captions from any server that speaks OpenAI's chat completions: vLLM, SGLang, llama.cpp, ..."""

import base64
import io
import random
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import httpx
from PIL import Image

from contentv.base.errors import UserError
from contentv.base.log import get_logger
from contentv.base.types import Frame
from contentv.curation.captions.captioner import Answer, CaptionError, Request, Sampling

_log = get_logger(__name__)

_TRANSIENT = frozenset([408, 409, 425, 429, 500, 502, 503, 504])
_LONGEST_PAUSE = 30.0
_LONGEST_ANSWER = 1 << 20  # bytes; more is not a caption


@dataclass(frozen=True)
class EndpointConfig:
    """`url` ends before `/chat/completions`, as in http://127.0.0.1:8000/v1; `token` may be empty.

    A request that fails for a reason that may pass is tried `attempts` times, with longer and
    longer pauses, each at most `timeout` seconds long.
    """

    url: str
    model: str
    token: str = ""
    parallel: int = 8
    attempts: int = 5
    timeout: float = 300.0
    first_pause: float = 1.0


class EndpointCaptioner:
    """Sends a clip's frames as JPEG with the prompt, at temperature 0."""

    sampling: ClassVar[Sampling] = Sampling()

    def __init__(self, config: EndpointConfig) -> None:
        self._config = config
        head = {"Authorization": f"Bearer {config.token}"} if config.token else {}
        self._client = httpx.Client(timeout=config.timeout, headers=head, follow_redirects=False)

    @property
    def name(self) -> str:
        """The model as the server calls it."""
        return self._config.model

    @property
    def parallel(self) -> int:
        """Requests at the same time."""
        return self._config.parallel

    def __call__(self, request: Request) -> Answer:
        """Ask until there is an answer.

        Raises:
            CaptionError: the server failed to the last attempt, or answered nonsense.
            UserError: it refuses us, or has no such model: no attempt will change that.
        """
        body = _body(self._config.model, request)
        reason = ""
        for attempt in range(self._config.attempts):
            if attempt:
                self._pause(attempt, reason)
            try:
                reply = self._client.post(f"{self._config.url}/chat/completions", json=body)
            except httpx.HTTPError as error:
                reason = f"{type(error).__name__}: {error}"
                continue
            if reply.status_code == httpx.codes.OK:
                return _answer(reply)
            reason = f"HTTP {reply.status_code}: {' '.join(reply.text[:200].split())}"
            if reply.status_code not in _TRANSIENT:
                raise self._refusal(reply.status_code, reason)
        raise CaptionError(f"{self._config.url}: no answer ({reason})")

    def _refusal(self, status: int, reason: str) -> UserError | CaptionError:
        if status in (401, 403, 404):
            way = "check --captioner, --caption-model and --token-file"
            return UserError(f"{self._config.url} refuses: {reason}; {way}")
        return CaptionError(f"{self._config.url}: {reason}")

    def _pause(self, attempt: int, reason: str) -> None:
        longest = min(_LONGEST_PAUSE, self._config.first_pause * 2 ** (attempt - 1))
        _log.info("%s: %s; trying again", self._config.url, reason)
        time.sleep(longest * random.uniform(0.5, 1.0))  # noqa: S311 - so that not all come at once


def _body(model: str, request: Request) -> dict[str, Any]:
    pictures = [
        {"type": "image_url", "image_url": {"url": _data_url(frame)}}
        for frame in request.shown.frames
    ]
    times = ", ".join(f"{time:.1f}" for time in request.shown.times)
    told = f"These pictures are frames of one video, at {times} seconds. {request.prompt}"
    return {
        "model": model,
        "messages": [{"role": "user", "content": [*pictures, {"type": "text", "text": told}]}],
        "max_tokens": request.max_tokens,
        "temperature": 0,
    }


def _data_url(frame: Frame) -> str:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, format="JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def _answer(reply: httpx.Response) -> Answer:
    # A server is a stranger, too: what it says is checked like a file's content.
    if len(reply.content) > _LONGEST_ANSWER:
        raise CaptionError(f"the answer has {len(reply.content)} bytes")
    try:
        content = reply.json()
        choice = content["choices"][0]
        text, reason = choice["message"]["content"], choice.get("finish_reason")
        usage = content.get("usage") or {}
        tokens = [int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CaptionError("the answer is not that of a chat completion") from error
    if not isinstance(text, str):
        raise CaptionError("the answer has no text")
    return Answer(text, reason != "length", *tokens)
