import torch

from contentv.data.batch import FeatureBatch
from contentv.data.source import StepFeatures
from contentv.models.cost import TransformerSize, model_flops
from contentv.recipes.sources import batch_flops, work_from
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
