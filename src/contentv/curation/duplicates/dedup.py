"""De-duplication: which clips show again what a better one shows, and which one that is.

One pass over all clips, the best first. A clip that is not a duplicate of a kept one is kept. So
every duplicate names a kept clip, and the order of the rows does not matter. Paper, section 3.1.

* Level 0, copies: hashes differ in less than `hash_distance` of their bits.
* Level A, between sources: similarity above the threshold of the clip's cluster, which is low where
  clips lie densely (`clusters.thresholds`); or hashes and embeddings both alike: less than
  `alike_distance` of the bits differ and similarity is above `alike_similarity`.
* Level B, inside a source: similarity above `tau_inside`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from contentv.base.errors import UserError
from contentv.curation.duplicates.clusters import Half, Places, cluster, thresholds
from contentv.curation.duplicates.links import LEVELS, Pool, in_order, links_of
from contentv.curation.scoring.hashes import DIGITS
from contentv.curation.settings import DedupSettings
from contentv.curation.step import Row
from contentv.data.manifest import Kind

COLUMNS = {"clip_id": str, "dup_of": str, "dup_sim": float, "dup_level": str}
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class ClipVector:
    """What de-duplication knows of a clip.

    `vector` is its embedding and `phash` its hash as the steps give them; "" where there is none.
    Of two duplicates the one of higher `quality` stays, or the one whose `clip_id` comes first.
    """

    clip_id: str
    video_id: str
    kind: Kind
    vector: NDArray[np.float16] | Sequence[float]
    phash: str
    quality: float


def duplicates(clips: Sequence[ClipVector], config: DedupSettings) -> list[Row]:
    """Give a row for each clip, sorted by `clip_id`; pictures and videos are never duplicates.

    `dup_of` names the kept clip that the clip repeats, `dup_sim` is their cosine, and `dup_level`
    is 0, A or B; "", None and "" for a clip that is kept. Up to `exact_up_to` clips of a kind every
    pair is compared; beyond, those whose clusters are near. UserError: two clips of one name,
    vectors or hashes of different lengths, numbers that are none.
    """
    ordered = sorted(clips, key=lambda clip: (-clip.quality, clip.clip_id))
    _check(ordered)
    rows: list[Row] = []
    for kind in ("video", "picture"):
        alike = [clip for clip in ordered if clip.kind == kind]
        rows += _rows(alike, config) if alike else []
    return sorted(rows, key=lambda row: str(row["clip_id"]))


def _check(clips: Sequence[ClipVector]) -> None:
    seen: set[str] = set()
    for clip in clips:
        if clip.clip_id in seen:
            raise UserError(f"clip {clip.clip_id}: is given twice; give each clip once")
        seen.add(clip.clip_id)
        if not np.isfinite(clip.quality):
            raise UserError(f"clip {clip.clip_id}: quality={clip.quality}: must be a number")
        if len(clip.vector) != len(clips[0].vector):
            both = f"{len(clip.vector)} and {len(clips[0].vector)}"
            raise UserError(f"embeddings of {both} numbers: must come from one network")
    lengths = {len(clip.phash) for clip in clips if clip.phash}
    if len(lengths) > 1 or any(length % DIGITS for length in lengths):
        said = " and ".join(map(str, sorted(lengths)))
        raise UserError(f"hashes of {said} digits: must all have the same multiple of {DIGITS}")


@dataclass(frozen=True, slots=True)
class _Repeats:
    """What a clip repeats: the place of a kept one, their cosine, and its level in LEVELS."""

    level: int
    other: int
    cosine: float


_Found = list[_Repeats | None]


def _rows(clips: Sequence[ClipVector], config: DedupSettings) -> list[Row]:
    vectors = _unit([clip.vector for clip in clips])
    groups = cluster(vectors, config)
    pool = Pool(
        vectors=vectors,
        hashes=_bits([clip.phash for clip in clips]),
        hashed=np.array([bool(clip.phash) for clip in clips]),
        sources=np.unique([clip.video_id for clip in clips], return_inverse=True)[1],
        taus=thresholds(groups, config)[groups.near[:, 0]],
        near=groups.near if len(clips) > config.exact_up_to else np.zeros_like(groups.near[:, :1]),
    )
    found = _greedy(pool, config)
    _give_back(found, pool.sources, config.keep_per_source)
    return [_row(clips, clip, link) for clip, link in zip(clips, found, strict=True)]


def _greedy(pool: Pool, config: DedupSettings) -> _Found:
    """Keep each clip that repeats no kept one before it: block by block, and the same as at once.

    In a block, only clips that repeat none kept before it can be kept, and be repeated.
    """
    found: _Found = []
    kept = np.zeros(len(pool.vectors), np.bool_)
    for start in range(0, len(pool.vectors), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(pool.vectors)))
        before = links_of(pool, block, np.flatnonzero(kept), config)
        free = np.setdiff1d(block, before["clip"])
        links = in_order(np.concatenate([before, links_of(pool, block, free, config)]))
        edges = np.searchsorted(links["clip"], [*block, block[-1] + 1])
        for place, first, last in zip(block.tolist(), edges[:-1], edges[1:], strict=True):
            mine = links[first:last]
            mine = mine[kept[mine["other"]]]
            kept[place] = not len(mine)
            found.append(_repeats(mine[0]) if len(mine) else None)
    return found


def _repeats(link: np.void) -> _Repeats:
    return _Repeats(int(link["level"]), int(link["other"]), float(link["cosine"]))


def _give_back(found: _Found, sources: Places, least: int) -> None:
    """Keep the best clips that only repeat their own source, until it has `least` kept ones."""
    have = np.bincount(sources[[link is None for link in found]], minlength=int(sources.max()) + 1)
    for place, link in enumerate(found):
        if link and LEVELS[link.level] == "B" and have[sources[place]] < least:
            found[place] = None
            have[sources[place]] += 1


def _row(clips: Sequence[ClipVector], clip: ClipVector, link: _Repeats | None) -> Row:
    if link is None:
        return {"clip_id": clip.clip_id, "dup_of": "", "dup_sim": None, "dup_level": ""}
    return {
        "clip_id": clip.clip_id,
        "dup_of": clips[link.other].clip_id,
        "dup_sim": round(link.cosine, 4),
        "dup_level": LEVELS[link.level],
    }


def _unit(vectors: Sequence[NDArray[np.float16] | Sequence[float]]) -> Half:
    """Unit vectors ``[n d]`` in 16 bits: 2.6 GB for a million of 1280 numbers."""
    units = np.empty((len(vectors), len(vectors[0])), np.float16)
    for place, vector in enumerate(vectors):
        row = np.asarray(vector, np.float32)
        length = float(np.linalg.norm(row))
        if not np.isfinite(length):
            raise UserError("embedding: has a number that is none; remove its part and run again")
        units[place] = row / (length or 1.0)
    return units


def _bits(hashes: Sequence[str]) -> NDArray[np.uint64]:
    """Hashes as words ``[n w]``, zeros where one is not known; w is 0 if none is."""
    digits = max(map(len, hashes))
    words = np.zeros((len(hashes), digits // DIGITS), np.uint64)
    for place, text in enumerate(hashes):
        for word in range(len(text) // DIGITS):
            words[place, word] = int(text[word * DIGITS : (word + 1) * DIGITS], 16)
    return words
