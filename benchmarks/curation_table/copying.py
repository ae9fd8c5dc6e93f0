"""Duplicates: are the seven kinds of copies found, and nothing else?"""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from curation_table.workshop import Line, Workshop, at_least, look, share

from composites import played
from contentv.curation.duplicates.dedup import ClipVector, duplicates
from contentv.curation.scoring.embedding import EmbeddingStep
from contentv.curation.scoring.hashes import HashStep
from contentv.curation.settings import DedupSettings, EmbeddingSettings, HashSettings
from contentv.curation.step import Row
from copies import CHANGES, write_copies
from footage import Take

_FPS, _FRAMES = 24, 108  # 4 seconds, and half a second that the shifted copy shows
_SIZE = (640, 360)


def copying(shop: Workshop) -> Iterator[Line]:
    """Each shot and its copies, every file a source of its own."""
    embed, hashing = EmbeddingStep(EmbeddingSettings()), HashStep(HashSettings())
    clips, takes = [], _takes(shop)
    for number, take in enumerate(takes):
        shown = played(take, 0, _FRAMES, _SIZE)
        for name, path in write_copies(shop.folder, f"dup-{number}", shown, fps=_FPS).items():
            clips.append(_vector(f"{number}-{name}", path, embed, hashing))
            path.unlink()
    rows = duplicates(clips, DedupSettings())
    yield from _lines(rows, len(takes))


def _takes(shop: Workshop) -> list[Take]:
    every = shop.pool
    return every[:: max(1, round(1 / shop.effort))]


def _vector(name: str, path: Path, embed: EmbeddingStep, hashing: HashStep) -> ClipVector:
    seen = look(path, [embed, hashing])
    vector, digits = seen.row(embed)["embedding"], seen.row(hashing)["phash"]
    assert isinstance(vector, list)
    return ClipVector(name, name, "video", vector, str(digits), 0.0)


def _lines(rows: list[Row], groups: int) -> Iterator[Line]:
    alone: defaultdict[str, list[str]] = defaultdict(list)
    right = said = 0
    for row in rows:
        group, _, name = str(row["clip_id"]).partition("-")
        other = str(row["dup_of"]).partition("-")[0]
        said += bool(other)
        right += other == group
        if other != group:
            alone[group].append(name)
    # One of each group is kept, whichever it is; each further one was missed.
    kept = ["/".join(names) for names in alone.values() if len(names) > 1]
    note = f"kept side by side: {', '.join(kept)}" if kept else ""
    wanted = len(CHANGES) * groups
    yield at_least("duplicates: recall", share(min(right, wanted), wanted), 0.98, wanted, note)
    yield at_least("duplicates: precision", share(right, said), 0.98, said)
