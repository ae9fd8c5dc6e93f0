from pathlib import Path

import pytest
import torch

from contentv.base.errors import UserError
from contentv.data.batch import FeatureBatch
from contentv.data.buckets import BucketConfig
from contentv.data.planned import SamplingConfig
from contentv.data.source import StepFeatures
from contentv.encoding.identity import ClipIdentity, StoreIdentity, write_identity
from contentv.models.cost import TransformerSize, model_flops
from contentv.recipes.sources import batch_flops, find_store, work_from
from contentv.video.shapes import LatentShape

BATCH = FeatureBatch(
    torch.zeros(3, 16, 2, 4, 6),
    torch.zeros(3, 16, 2, 4, 6),
    torch.zeros(3),
    torch.zeros(3, 21, 8),
    torch.zeros(3, 4),
    ("a", "b", "c"),
)


def test_the_operations_of_a_batch_are_those_of_its_samples() -> None:
    size = TransformerSize()
    expected = 3 * model_flops(size, LatentShape(2, 4, 6), 21)
    assert batch_flops(size, BATCH) == expected


def test_work_is_the_sources_step_counted_over_all_groups() -> None:
    work = work_from(lambda step: StepFeatures((BATCH,) * step, 99))(2)
    assert work.batches == (BATCH, BATCH)
    assert work.count == 99


def test_each_stage_finds_the_store_of_its_buckets(tmp_path: Path) -> None:
    small, large = BucketConfig(areas=(4096,)), BucketConfig(areas=(65536,), frames=(1, 29))
    stores = [tmp_path / "small", tmp_path / "large", tmp_path / "windows"]
    for store, buckets, windows in zip(stores, (small, large, large), (1, 1, 3), strict=True):
        clips = ClipIdentity(vae="v", dtype="d", build="b", buckets=buckets, windows=windows)
        write_identity(store, StoreIdentity(clips=clips, text=None, model="m", vae_files="f"))
    one, three = SamplingConfig(), SamplingConfig(windows=3)
    assert find_store("stage1", stores, small, one) == stores[0]
    assert find_store("stage2", stores, large, one) == stores[1]
    assert find_store("stage2", stores, large, three) == stores[2]
    way = r"--areas 65536 --frames 1 29 --fps 24 --max-crop 0.5 --windows 3`"
    with pytest.raises(UserError, match=rf"stage2: features=.*: made for other buckets.*{way}"):
        find_store("stage2", stores[:2], large, three)
