"""What describes clips: frames and a prompt in, a text out. Oracle, endpoint or local model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol, TypeAlias

from contentv.base.errors import WorldError
from contentv.base.types import Frame

Length: TypeAlias = Literal["short", "detailed"]


class CaptionError(WorldError):
    """A clip could not be described now; the next run tries again."""


@dataclass(frozen=True)
class Shown:
    """A clip as a captioner sees it: frames ``[h w 3]`` and when each is shown, in seconds."""

    frames: Sequence[Frame]
    times: Sequence[float]


@dataclass(frozen=True)
class Sampling:
    """Which frames a captioner wants: `rate` a second (None: all), at most `most` of `pixels`."""

    rate: float | None = 1.0
    most: int = 16
    pixels: int = 360_000


@dataclass(frozen=True)
class Answer:
    """A captioner's words as they came; `finished` is False if it ran out of tokens."""

    text: str
    finished: bool = True
    prompt_tokens: int = 0
    answer_tokens: int = 0


@dataclass(frozen=True)
class Request:
    """What is asked of a captioner about one clip; `max_tokens` of answer at most."""

    shown: Shown
    length: Length
    prompt: str
    max_tokens: int


class Captioner(Protocol):
    """Describes clips. Several threads may call it when `parallel` is above 1."""

    sampling: ClassVar[Sampling]

    @property
    def name(self) -> str:
        """Model and revision, with TEST_MARK before it for one whose texts mean nothing."""

    @property
    def parallel(self) -> int:
        """How many requests it takes at the same time."""

    def __call__(self, request: Request) -> Answer:
        """Describe a clip; CaptionError when it cannot."""


@dataclass(frozen=True)
class Prompt:
    """How a kind of caption is asked for."""

    length: Length
    text: str
    max_tokens: int
    words: tuple[int, int] = field(default=(5, 300))


# The paper (section 3.3) has short and detailed captions of each clip, and picks one at random.
PROMPTS = (
    Prompt(
        "short",
        "Describe this video in one sentence of at most 25 words: who or what is seen, and what "
        "happens. Begin with the subject, not with words like 'the video'.",
        80,
        (3, 40),
    ),
    Prompt(
        "detailed",
        "Describe this video for somebody who cannot see it. Say who or what is seen and how it "
        "looks, what happens in the order of time, where it happens, how the camera moves, the "
        "light and the style. Write plain prose of 60 to 150 words without a heading or a list. "
        "Do not begin with words like 'the video' and do not guess what is not shown.",
        400,
        (20, 300),
    ),
)
