import sys

import faiss
import numpy as np
import pytest

from contentv.base.errors import UserError
from contentv.curation.duplicates.clusters import Clusters, Half, cluster, thresholds
from contentv.curation.settings import DedupSettings

SETTINGS = DedupSettings()


def clumps(seed: int, spreads: list[float], each: int, width: int = 64) -> Half:
    """Unit vectors around random centres; a spread of 0 puts them all on the centre."""
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((len(spreads), 1, width)))
    noise = unit(rng.standard_normal((len(spreads), each, width)))
    vectors = unit(centres + np.array(spreads)[:, None, None] * noise)
    return vectors.reshape(-1, width).astype(np.float16)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_closeness_is_the_mean_cosine_of_two_members() -> None:
    vectors = clumps(0, [0.3, 0.6, 1.0], each=60)
    found = cluster(vectors, SETTINGS)
    exact = vectors.astype(np.float64)
    for number, size in enumerate(found.sizes):
        members = exact[found.near[:, 0] == number]
        assert len(members) == size
        pairs = (members @ members.T)[np.triu_indices(size, 1)]
        assert found.closeness[number] == pytest.approx(pairs.mean() if size > 1 else 0, abs=1e-3)


def test_the_number_of_clusters_is_the_root_of_half() -> None:
    for count, expected in [(1, 1), (2, 1), (8, 2), (72, 6)]:
        vectors = clumps(0, [1.0] * count, each=1)
        assert len(cluster(vectors, SETTINGS).sizes) == expected


def test_clumps_are_told_apart_and_the_nearest_comes_first() -> None:
    found = cluster(clumps(1, [0.2] * 3, each=40), SETTINGS)
    homes = [set(found.near[start : start + 40, 0].tolist()) for start in (0, 40, 80)]
    assert not homes[0] & homes[1]
    assert not homes[1] & homes[2]
    assert found.near.shape == (120, 3)
    assert all(len(set(row)) == 3 for row in found.near.tolist())


def test_threads_do_not_change_the_result() -> None:
    vectors = clumps(2, [0.8] * 8, each=50)
    results = []
    before = faiss.omp_get_max_threads()
    for threads in (1, 2):
        faiss.omp_set_num_threads(threads)
        results.append(cluster(vectors, SETTINGS))
    faiss.omp_set_num_threads(before)
    assert np.array_equal(results[0].near, results[1].near)
    assert np.array_equal(results[0].closeness, results[1].closeness)


def known(sizes: list[int], closeness: list[float]) -> Clusters:
    return Clusters(np.zeros((1, 1), np.intp), np.array(sizes), np.array(closeness))


def test_the_denser_a_cluster_the_lower_its_threshold() -> None:
    found = thresholds(known([30, 30, 30, 30], [0.5, 0.1, 0.9, 0.3]), SETTINGS)
    steps = np.array([5 / 8, 1 / 8, 7 / 8, 3 / 8])
    assert np.allclose(found, SETTINGS.tau_hi - (SETTINGS.tau_hi - SETTINGS.tau_lo) * steps)


def test_big_clusters_count_more_in_the_rank() -> None:
    found = thresholds(known([1, 2, 1024], [0.0, 0.9, 0.5]), SETTINGS)
    rank = (SETTINGS.tau_hi - found) / (SETTINGS.tau_hi - SETTINGS.tau_lo)
    assert np.allclose(rank, [0, 10.5 / 11, 5 / 11])


def test_lonely_clips_have_the_highest_threshold() -> None:
    assert thresholds(known([1, 1], [0.0, 0.0]), SETTINGS).tolist() == [SETTINGS.tau_hi] * 2


def test_thresholds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match=r"tau_lo=0\.9: must be at most tau_hi=0\.8"):
        DedupSettings(tau_lo=0.9, tau_hi=0.8)


def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r"contentv\[curate\]"):
        cluster(clumps(0, [1.0], each=2), SETTINGS)
