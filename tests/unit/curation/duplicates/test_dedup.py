from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contentv.base.errors import UserError
from contentv.curation.duplicates import dedup, links
from contentv.curation.duplicates.clusters import cluster, thresholds
from contentv.curation.duplicates.dedup import ClipVector, duplicates
from contentv.curation.settings import DedupSettings
from contentv.curation.step import Row
from contentv.data.manifest import Kind

SETTINGS = DedupSettings()
WIDTH = 32
ANOTHER = "0123456789abcdef" * 4


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def moved(rng: np.random.Generator, vector: np.ndarray, cosine: float) -> np.ndarray:
    """A vector of this cosine to a unit vector."""
    aside = rng.standard_normal(len(vector))
    aside = unit(aside - (aside @ vector) * vector)
    return cosine * vector + np.sqrt(1 - cosine**2) * aside


def flipped_bits(rng: np.random.Generator, text: str, count: int) -> str:
    bits = int(text, 16)
    for place in rng.permutation(4 * len(text))[:count].tolist():
        bits ^= 1 << place
    return f"{bits:0{len(text)}x}"


def clip(
    name: str, vector: np.ndarray, *, source: str = "", kind: Kind = "video", phash: str = "",
    quality: float = 0.0,
) -> ClipVector:  # fmt: skip
    return ClipVector(name, source or name, kind, vector.astype(np.float16), phash, quality)


def world(seed: int, scenes: int = 12, most: int = 6) -> list[ClipVector]:
    """Scenes that come several times, alike to any degree, in a few sources and both kinds."""
    rng = np.random.default_rng(seed)
    clips = []
    for scene in range(scenes):
        middle, phash = unit(rng.standard_normal(WIDTH)), rng.bytes(32).hex()
        for _ in range(int(rng.integers(1, most))):
            hashed = flipped_bits(rng, phash, int(rng.integers(0, 60)))
            clips.append(
                clip(
                    rng.bytes(4).hex(),
                    moved(rng, middle, float(rng.uniform(0.6, 1.0))),
                    source=f"v{scene * 3 // 4 + rng.integers(3)}",
                    kind="picture" if rng.random() < 0.2 else "video",
                    phash=hashed if rng.random() < 0.9 else "",
                    quality=float(rng.integers(3)),
                )
            )
    return clips


def by_hand(clips: list[ClipVector], config: DedupSettings) -> dict[str, tuple[str, str]]:
    """What the rules say, clip by clip: `dup_of` and `dup_level`."""
    result = {}
    for kind in ("video", "picture"):
        order = sorted((-c.quality, c.clip_id, c) for c in clips if c.kind == kind)
        alike = [c for *_, c in order]
        vectors = np.array([unit(np.asarray(c.vector, np.float32)) for c in alike], np.float16)
        groups = cluster(vectors, config)
        taus = thresholds(groups, config)[groups.near[:, 0]]
        kept: list[int] = []
        for place, mine in enumerate(alike):
            found = []
            for other in kept:
                cosine = float(
                    unit(vectors[place].astype(float)) @ unit(vectors[other].astype(float))
                )
                level = level_by_hand(mine, alike[other], cosine, taus[place], config)
                if level:
                    found.append((level, -cosine, alike[other].clip_id))
            best = min(found, default=("", 0.0, ""))
            result[mine.clip_id] = best[2], best[0]
            kept += [] if found else [place]
    return result


def level_by_hand(
    one: ClipVector, other: ClipVector, cosine: float, tau: float, config: DedupSettings
) -> str:
    apart = 1.0
    if one.phash and other.phash:
        apart = (int(one.phash, 16) ^ int(other.phash, 16)).bit_count() / 256
    if apart < config.hash_distance and cosine >= config.hash_similarity:
        return "0"
    if one.video_id == other.video_id:
        return "B" if cosine > config.tau_inside else ""
    alike = apart < config.alike_distance and cosine > config.alike_similarity
    return "A" if cosine > tau or alike else ""


def summary(rows: list[Row]) -> dict[str, tuple[str, str]]:
    return {str(row["clip_id"]): (str(row["dup_of"]), str(row["dup_level"])) for row in rows}


@pytest.mark.parametrize("seed", range(8))
def test_it_does_what_the_rules_say_in_blocks_of_any_size(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = world(seed, scenes=24, most=9)
    expected = by_hand(clips, SETTINGS)
    assert summary(duplicates(clips, SETTINGS)) == expected
    monkeypatch.setattr(dedup, "_BLOCK", 7)
    monkeypatch.setattr(links, "_QUERIES", 3)
    monkeypatch.setattr(links, "_MEMBERS", 5)
    assert summary(duplicates(clips, SETTINGS)) == expected
    levels = {level for _, level in expected.values()}
    assert levels == {"", "0", "A", "B"}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.randoms(use_true_random=False), st.integers(0, 2))
def test_laws(seed: int, random: Random, keep: int) -> None:
    clips = world(seed, scenes=6)
    config = DedupSettings(keep_per_source=keep)
    rows = duplicates(clips, config)
    shuffled = list(clips)
    random.shuffle(shuffled)
    assert duplicates(shuffled, config) == rows
    assert [row["clip_id"] for row in rows] == sorted(c.clip_id for c in clips)
    kept = {row["clip_id"] for row in rows if not row["dup_of"]}
    known = {c.clip_id: c for c in clips}
    for row in rows:
        assert bool(row["dup_of"]) == bool(row["dup_level"]) == (row["dup_sim"] is not None)
        if row["dup_of"]:
            mine, other = known[str(row["clip_id"])], known[str(row["dup_of"])]
            assert other.clip_id in kept - {mine.clip_id}
            assert other.kind == mine.kind
            assert (-other.quality, other.clip_id) < (-mine.quality, mine.clip_id)


def test_the_better_clip_stays() -> None:
    rng = np.random.default_rng(0)
    vector = unit(rng.standard_normal(WIDTH))
    clips = [clip("a", vector), clip("b", vector, quality=1.0), clip("c", vector, quality=-1.0)]
    rows = duplicates(clips, SETTINGS)
    assert [row["dup_of"] for row in rows] == ["b", "", "b"]
    assert [row["dup_sim"] for row in rows] == [1.0, None, 1.0]


def test_a_picture_of_a_clip_is_no_duplicate_of_it() -> None:
    vector = unit(np.random.default_rng(0).standard_normal(WIDTH))
    rows = duplicates([clip("a", vector), clip("b", vector, kind="picture")], SETTINGS)
    assert [row["dup_of"] for row in rows] == ["", ""]


def test_hashes_alone_prove_nothing() -> None:
    """Black pictures with other words on them have the same hash."""
    rng = np.random.default_rng(0)
    vector = unit(rng.standard_normal(WIDTH))
    pair = [clip("a", vector, phash=ANOTHER), clip("b", moved(rng, vector, 0.5), phash=ANOTHER)]
    assert [row["dup_level"] for row in duplicates(pair, SETTINGS)] == ["", ""]
    pair[1] = clip("b", moved(rng, vector, 0.62), phash=ANOTHER)
    assert [row["dup_level"] for row in duplicates(pair, SETTINGS)] == ["", "0"]
    pair[1] = replace(pair[1], phash="")
    assert [row["dup_level"] for row in duplicates(pair, SETTINGS)] == ["", ""]


@pytest.mark.parametrize(("cosine", "level"), [(0.827, ""), (0.833, "B")])
def test_inside_a_source_the_threshold_is_sharp(cosine: float, level: str) -> None:
    rng = np.random.default_rng(0)
    vector = unit(rng.standard_normal(WIDTH))
    pair = [clip("a", vector, source="v"), clip("b", moved(rng, vector, cosine), source="v")]
    assert [row["dup_level"] for row in duplicates(pair, SETTINGS)] == ["", level]


def test_a_source_keeps_its_share_of_its_own_repetitions_only() -> None:
    rng = np.random.default_rng(0)
    still, elsewhere = unit(rng.standard_normal((2, WIDTH)))
    clips = [clip(f"a{n}", moved(rng, still, 0.97), source="a", quality=-n) for n in range(6)]
    clips += [clip("b0", elsewhere, quality=9.0)]
    clips += [clip(f"c{n}", elsewhere, source="c", quality=-n) for n in range(3)]
    for least, expected in [(0, 1), (1, 1), (3, 3), (9, 6)]:
        rows = duplicates(clips, DedupSettings(keep_per_source=least))
        kept = [str(row["clip_id"]) for row in rows if not row["dup_of"]]
        assert kept == [*(f"a{n}" for n in range(expected)), "b0"]


@pytest.mark.parametrize("seed", range(3))
def test_dense_clusters_lose_more(seed: int) -> None:
    """Copies of any cosine between .80 and .92, as many among alike clips as among others."""
    rng = np.random.default_rng([seed, 1])
    clips = []
    for region, closeness in (("dense", 0.6), ("sparse", 0.0)):
        centre = unit(rng.standard_normal(256))
        for number in range(150):
            aside = unit(rng.standard_normal(256))
            vector = unit(closeness**0.5 * centre + (1 - closeness) ** 0.5 * aside)
            copy = moved(rng, vector, float(rng.uniform(0.80, 0.92)))
            clips += [clip(f"{region}-{number}", vector, quality=1.0)]
            clips += [clip(f"{region}-{number}-again", copy)]
    lost = [str(row["clip_id"]) for row in duplicates(clips, SETTINGS) if row["dup_of"]]
    assert all(name.endswith("again") for name in lost)
    dense = sum(name.startswith("dense") for name in lost)
    assert dense >= 1.5 * (len(lost) - dense) > 0


def test_looking_into_near_clusters_finds_what_comparing_all_finds() -> None:
    rng = np.random.default_rng(0)
    clips = []
    for number in range(1500):
        vector = unit(rng.standard_normal(64))
        clips += [clip(f"{number}", vector, quality=1.0)]
        clips += [clip(f"{number}-again", moved(rng, vector, 0.95))] if number % 3 == 0 else []
    every = summary(duplicates(clips, SETTINGS))
    near = summary(duplicates(clips, DedupSettings(exact_up_to=0)))
    found = [name for name in every if every[name][0]]
    assert len(found) == 500
    assert sum(near[name] == every[name] for name in found) >= 0.98 * len(found)
    assert all(near[name] in (every[name], ("", "")) for name in every)


def test_nothing_gives_nothing() -> None:
    assert duplicates([], SETTINGS) == []
    alone = duplicates([clip("a", np.ones(WIDTH))], SETTINGS)
    assert alone == [{"clip_id": "a", "dup_of": "", "dup_sim": None, "dup_level": ""}]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"clip_id": "a"}, "clip a: is given twice"),
        ({"quality": float("nan")}, "quality=nan: must be a number"),
        ({"vector": np.ones(5, np.float16)}, "must come from one network"),
        ({"vector": np.full(WIDTH, np.nan, np.float16)}, "a number that is none"),
        ({"phash": "0" * 16}, "same multiple of 16"),
        ({"phash": "0" * 63}, "same multiple of 16"),
    ],
)
def test_what_makes_no_sense_is_refused(other: dict[str, object], message: str) -> None:
    one = clip("a", np.ones(WIDTH), phash=ANOTHER)
    two = clip("b", np.ones(WIDTH), phash=ANOTHER)
    with pytest.raises(UserError, match=message):
        duplicates([one, replace(two, **other)], SETTINGS)
