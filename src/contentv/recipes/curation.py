"""`contentv curate run`: from folders of footage to a catalogue and, if asked, captioned clips."""

from dataclasses import dataclass

from contentv.base.errors import UserError
from contentv.curation.captions.caption import check_captioner
from contentv.curation.engine import run as measuring
from contentv.curation.engine.working import Summary
from contentv.curation.products import CaptionConfig, CurateConfig, ExportConfig
from contentv.curation.selection.policy import load_policy
from contentv.curation.selection.questions import SelectConfig


@dataclass(frozen=True)
class CurateResult:
    """What each part of the way says of itself, in their order."""

    summary: Summary
    parts: tuple[object, ...]

    def __str__(self) -> str:
        return "\n\n".join(str(part) for part in (self.summary, *self.parts))


def run(config: CurateConfig) -> CurateResult:
    """Measure what is new; then select, export and caption as far as the configuration says.

    Each part goes on where it was stopped, so the same command does.

    Raises:
        UserError: clips are asked for without a policy, captions without clips, or there is no such
            policy or captioner.
    """
    if config.clips and not config.policy:
        raise UserError(f"clips={config.clips}: needs --policy, which says which clips to keep")
    if config.captioner and not config.clips:
        raise UserError(f"captioner={config.captioner}: needs --clips, the folder to export to")
    if config.policy:  # before hours of measuring, not after
        load_policy(config.policy)
    if config.captioner:
        check_captioner(config.captioner)
    summary = measuring.run(config)
    return CurateResult(summary, tuple(_products(config)))


def _products(config: CurateConfig) -> list[object]:
    # Only here: a catalogue alone is made without what these import.
    from contentv.curation.captions import caption
    from contentv.curation.export import writing
    from contentv.curation.selection import select

    parts: list[object] = []
    if config.policy:
        chosen = select.run(SelectConfig(catalogue=config.out, policy=config.policy))
        parts.append(chosen)
        if config.clips and chosen.selection.kept:
            asked = ExportConfig(
                catalogue=config.out,
                policy=config.policy,
                out=config.clips,
                workers=config.workers,
            )
            parts.append(writing.run(asked))
            if config.captioner:
                parts.append(caption.run(_caption_config(config, config.captioner)))
    return parts


def _caption_config(config: CurateConfig, captioner: str) -> CaptionConfig:
    assert config.clips is not None
    return CaptionConfig(
        clips=config.clips,
        captioner=captioner,
        caption_model=config.caption_model,
        token_file=config.token_file,
        device=config.device,
    )
