"""Which clips are near enough to which: compared block by block, with bounded memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from contentv.curation.duplicates.clusters import Half, Places
from contentv.curation.settings import DedupSettings

LEVELS = ("0", "A", "B")
"""Levels of de-duplication: a clip that is a duplicate by two of them is one by the first."""

Links: TypeAlias = NDArray[np.void]
"""Rows of `clip` and `other` (places), `level` (index in LEVELS) and `cosine`."""

_LINK = np.dtype(
    [("clip", np.intp), ("other", np.intp), ("level", np.int8), ("cosine", np.float64)]
)
_QUERIES, _MEMBERS = 1024, 4096  # compared at once: 16 MB
_SLACK = 1e-3  # more than a cosine errs whose vectors have 16 bits, and so not quite length 1
_DECIMALS = 9  # fewer than 64 bits hold: sums in another order round to the same


@dataclass(frozen=True)
class Pool:
    """Clips of one kind in their total order; a *place* is an index into all of these.

    `vectors` ``[n d]`` are unit vectors, `hashes` ``[n w]`` words of bits, `hashed` says which of
    them are known. `sources` number the videos, `taus` are the thresholds of level A. `near` are
    the groups in which a clip looks for duplicates; it is in the first of them itself.
    """

    vectors: Half
    hashes: NDArray[np.uint64]
    hashed: NDArray[np.bool_]
    sources: Places
    taus: NDArray[np.float64]
    near: Places


def links_of(pool: Pool, clips: Places, others: Places, config: DedupSettings) -> Links:
    """Find for `clips` those earlier `others` that they duplicate, best links first.

    Sorted by clip, then level, then falling cosine, then the other clip's place.
    """
    links = [_judged(pool, near, config) for near in _near(pool, clips, others, _floor(config))]
    return in_order(np.concatenate([np.empty(0, _LINK), *links]))


def in_order(links: Links) -> Links:
    """Sort links as `links_of` does."""
    keys = links["other"], -links["cosine"], links["level"], links["clip"]
    return links[np.lexsort(keys)]


def _floor(config: DedupSettings) -> float:
    hashed = config.hash_similarity, config.alike_similarity
    return min(*hashed, config.tau_lo, config.tau_inside) - _SLACK


def _near(pool: Pool, clips: Places, others: Places, floor: float) -> Iterator[Links]:
    """Yield pairs of clips and earlier others of the same groups, of cosine above `floor`.

    Their level is not known yet, and their cosine is rounded.
    """
    for some, members in _meetings(pool, clips, others):
        for start in range(0, len(members), _MEMBERS):
            part = members[start : start + _MEMBERS]
            right = pool.vectors[part].astype(np.float32).T
            for first in range(0, len(some), _QUERIES):
                asked = some[first : first + _QUERIES]
                cosines = pool.vectors[asked].astype(np.float32) @ right
                row, column = np.nonzero(cosines > floor)
                pairs = np.zeros(len(row), _LINK)
                pairs["clip"], pairs["other"] = asked[row], part[column]
                pairs["cosine"] = cosines[row, column]
                yield pairs[pairs["other"] < pairs["clip"]]


def _meetings(pool: Pool, clips: Places, others: Places) -> Iterator[tuple[Places, Places]]:
    """Yield for each group the clips that look into it, and the others that are in it."""
    wanted = pool.near[clips]
    asking = np.repeat(clips, wanted.shape[1])
    asked_groups, asked = _grouped(wanted.ravel(), asking)
    home_groups, home = _grouped(pool.near[others, 0], others)
    at_home = dict(zip(home_groups.tolist(), home, strict=True))
    for group, some in zip(asked_groups.tolist(), asked, strict=True):
        if group in at_home:
            yield some, at_home[group]


def _grouped(groups: Places, places: Places) -> tuple[Places, list[Places]]:
    order = np.argsort(groups, kind="stable")
    present, starts = np.unique(groups[order], return_index=True)
    return present, np.split(places[order], starts[1:]) if len(present) else []


def _judged(pool: Pool, pairs: Links, config: DedupSettings) -> Links:
    """Keep the pairs that are duplicates, with the level that says so."""
    clip, other = pairs["clip"], pairs["other"]
    apart = _bits_apart(pool, clip, other)
    same = pool.sources[clip] == pool.sources[other]
    least = np.where(apart < config.alike_distance, config.alike_similarity, np.inf)
    least = np.where(same, config.tau_inside, np.minimum(least, pool.taus[clip]))
    copy = np.where(apart < config.hash_distance, config.hash_similarity, np.inf)
    likely = pairs["cosine"] > np.minimum(least, copy) - _SLACK
    pairs, least, copy = pairs[likely], least[likely], copy[likely]
    pairs["cosine"] = _cosines(pool.vectors, pairs["clip"], pairs["other"])
    is_copy = pairs["cosine"] >= copy
    level = np.where(same[likely], LEVELS.index("B"), LEVELS.index("A"))
    pairs["level"] = np.where(is_copy, LEVELS.index("0"), level)
    return pairs[is_copy | (pairs["cosine"] > least)]


def _bits_apart(pool: Pool, clip: Places, other: Places) -> NDArray[np.float64]:
    """Part of the hash that differs, 0..1; infinite where a hash is not known."""
    differ = np.bitwise_count(pool.hashes[clip] ^ pool.hashes[other]).sum(1)
    known = pool.hashed[clip] & pool.hashed[other]
    return np.where(known, differ / max(64 * pool.hashes.shape[1], 1), np.inf)


def _cosines(vectors: Half, clips: Places, others: Places) -> NDArray[np.float64]:
    """Cosines that depend on the two vectors alone, not on what they were computed beside."""
    parts: list[NDArray[np.float64]] = [np.empty(0)]
    for start in range(0, len(clips), _MEMBERS):
        some = slice(start, start + _MEMBERS)
        one, other = (vectors[side[some]].astype(np.float64) for side in (clips, others))
        lengths = [np.einsum("nd,nd->n", side, side) for side in (one, other)]
        parts.append(np.einsum("nd,nd->n", one, other) / np.sqrt(lengths[0] * lengths[1]))
    cosines: NDArray[np.float64] = np.concatenate(parts)
    return cosines.round(_DECIMALS)
