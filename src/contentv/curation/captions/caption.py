"""`contentv curate caption`: short and detailed captions of exported clips, checked and kept."""

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from contentv.base.errors import UserError, WorldError
from contentv.base.files import os_errors
from contentv.base.log import get_logger
from contentv.base.progress import progress
from contentv.curation.captions.captioner import (
    PROMPTS,
    Captioner,
    CaptionError,
    Prompt,
    Request,
    Shown,
)
from contentv.curation.captions.showing import show
from contentv.curation.captions.wording import clean, fault
from contentv.curation.captions.written import Written, appending, read_captions
from contentv.curation.products import CaptionConfig
from contentv.data.manifest import MANIFEST_NAME, Clip, read_manifest, write_manifest
from contentv.encoding.ahead import ahead

_log = get_logger(__name__)

_MOST_ASKED = 3  # times that one caption is asked for
_TRUNCATED = "truncated"
# Added to the prompt when an answer failed a check: an equal question may get an equal answer.
_REMINDERS = {
    "refused": "Frames of a video are attached; describe what is seen in them.",
    "too_short": "Write a longer description, in whole sentences.",
    "too_long": "Write a shorter description.",
    "repeats": "Say each thing once.",
    "language": "Write in English.",
}


@dataclass(frozen=True)
class CaptionResult:
    """How many captions there are, how many were written now, and why others cannot be used."""

    folder: Path
    clips: int
    captioned: int
    asked: int
    unanswered: int
    faults: Counter[str]

    def __str__(self) -> str:
        lines = [f"{self.captioned} of {self.clips} clips have captions, {self.asked} written now"]
        lines += [f"  not used, {reason}: {count}" for reason, count in self.faults.items()]
        if self.unanswered:
            lines.append(f"  no answer: {self.unanswered}; run again to ask again")
        return "\n".join([*lines, f"{self.folder / MANIFEST_NAME}"])


def run(config: CaptionConfig) -> CaptionResult:
    """Caption what has no caption of this captioner yet, and write all into the manifest."""
    manifest = config.clips / MANIFEST_NAME
    if not manifest.is_file():
        way = "`contentv curate export` writes it"
        raise UserError(f"{config.clips}: has no {MANIFEST_NAME}; {way}")
    return caption_clips(config.clips, open_captioner(config))


def check_captioner(name: str) -> None:
    """UserError when `name` is not that of a captioner."""
    is_server = name.startswith(("http://", "https://"))
    if name != "oracle" and not is_server and not Path(name).is_dir():
        kinds = "an http:// address, a Qwen2.5-VL folder, or the word oracle"
        raise UserError(f"captioner={name}: give {kinds}")


def open_captioner(config: CaptionConfig) -> Captioner:
    """Make the captioner that a configuration names; UserError when there is none of that name."""
    check_captioner(config.captioner)
    if config.captioner == "oracle":
        from contentv.curation.captions.oraclecaptions import OracleCaptioner

        return OracleCaptioner()
    if config.captioner.startswith(("http://", "https://")):
        return _open_endpoint(config)
    from contentv.curation.captions.qwen import QwenCaptioner

    return QwenCaptioner(Path(config.captioner), config.device)


def _open_endpoint(config: CaptionConfig) -> Captioner:
    try:
        from contentv.curation.captions.endpoint import EndpointCaptioner, EndpointConfig
    except ImportError as error:
        raise UserError("captions from a server need pip install 'contentv[curate]'") from error
    token = ""
    if config.token_file:
        with os_errors(config.token_file, "read"):
            token = config.token_file.read_text(encoding="utf-8").strip()
    return EndpointCaptioner(
        EndpointConfig(
            url=config.captioner.rstrip("/"),
            model=config.caption_model,
            token=token,
            parallel=config.parallel,
            timeout=config.timeout,
        )
    )


def caption_clips(folder: Path, captioner: Captioner) -> CaptionResult:
    """Ask for the captions that are missing; write them into the manifest of `folder`."""
    manifest = folder / MANIFEST_NAME
    clips = read_manifest(manifest)
    known = {caption.key for caption in read_captions(folder)}
    todo = [
        (clip, missing)
        for clip in clips
        if not clip.fault and (missing := _missing(clip, captioner, known))
    ]
    asked = unanswered = 0
    with progress(len(todo), "captioning clips") as line, appending(folder) as file:
        for answers in _ask_all(folder, captioner, todo):
            for answer in answers:
                if isinstance(answer, Written):
                    file.add(answer)
                    asked += 1
                else:
                    _log.warning("%s", answer)
                    unanswered += 1
            line.advance()
    captioned, faults = _write_down(manifest, clips, read_captions(folder), captioner)
    return CaptionResult(folder, len(clips), captioned, asked, unanswered, faults)


def _missing(
    clip: Clip, captioner: Captioner, known: set[tuple[str, str, str, str]]
) -> list[Prompt]:
    keys = {p: (clip.path, p.length, captioner.name, _digest(p)) for p in PROMPTS}
    return [prompt for prompt in PROMPTS if keys[prompt] not in known]


def _digest(prompt: Prompt) -> str:
    return hashlib.blake2b(prompt.text.encode(), digest_size=6).hexdigest()


def _ask_all(
    folder: Path, captioner: Captioner, todo: Sequence[tuple[Clip, list[Prompt]]]
) -> Iterator[list[Written | WorldError]]:
    """Answers clip by clip, some asked at the same time, frames read beforehand."""
    groups = [
        todo[i : i + 2 * captioner.parallel] for i in range(0, len(todo), 2 * captioner.parallel)
    ]
    shown = (
        list(show(folder, [clip for clip, _ in group], captioner.sampling)) for group in groups
    )
    pool = ThreadPoolExecutor(captioner.parallel)
    try:
        with closing(ahead(shown, depth=1)) as decoded:
            for group, frames in zip(groups, decoded, strict=True):
                jobs = [
                    pool.submit(_ask, captioner, clip, prompts, seen)
                    for (clip, prompts), seen in zip(group, frames, strict=True)
                ]
                yield from (job.result() for job in jobs)
    finally:
        pool.shutdown(cancel_futures=True)


def _ask(
    captioner: Captioner, clip: Clip, prompts: list[Prompt], seen: Shown | WorldError
) -> list[Written | WorldError]:
    if isinstance(seen, WorldError):
        return [seen]
    answers: list[Written | WorldError] = []
    for prompt in prompts:
        try:
            answers.append(_ask_once(captioner, clip, prompt, seen))
        except CaptionError as error:
            answers.append(CaptionError(f"{clip.id}: {error}"))
    return answers


def _ask_once(captioner: Captioner, clip: Clip, prompt: Prompt, seen: Shown) -> Written:
    begin, text, wrong = time.monotonic(), prompt.text, _TRUNCATED
    tokens = prompt.max_tokens
    for _ in range(_MOST_ASKED):
        answer = captioner(Request(seen, prompt.length, text, tokens))
        said = clean(answer.text)
        wrong = fault(said, prompt.words) if answer.finished else _TRUNCATED
        if not wrong:
            break
        if answer.finished:
            text = f"{prompt.text} {_REMINDERS[wrong]}"
        else:
            tokens *= 2
    return Written(
        clip=clip.path,
        length=prompt.length,
        captioner=captioner.name,
        prompt=_digest(prompt),
        text=said,
        fault=wrong,
        finished=answer.finished,
        times=tuple(seen.times),
        prompt_tokens=answer.prompt_tokens,
        answer_tokens=answer.answer_tokens,
        seconds=round(time.monotonic() - begin, 3),
    )


def _write_down(
    manifest: Path, clips: Sequence[Clip], captions: Sequence[Written], captioner: Captioner
) -> tuple[int, Counter[str]]:
    """Put this captioner's good captions into the manifest; give their clips and the faults."""
    texts: dict[tuple[str, str], str] = {}
    faults: Counter[str] = Counter()
    current = {_digest(prompt) for prompt in PROMPTS}
    for caption in captions:
        if caption.captioner == captioner.name and caption.prompt in current:
            faults.update([caption.fault] if caption.fault else [])
            texts[caption.clip, caption.length] = "" if caption.fault else caption.text
    written = [_captioned(clip, texts, captioner.name) for clip in clips]
    write_manifest(manifest, written)
    return sum(bool(clip.short or clip.long) for clip in written), faults


def _captioned(clip: Clip, texts: dict[tuple[str, str], str], captioner: str) -> Clip:
    short, long = (texts.get((clip.path, length), "") for length in ("short", "detailed"))
    return replace(clip, short=short, long=long, captioner=captioner) if short or long else clip
