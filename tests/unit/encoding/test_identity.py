from pathlib import Path

import pytest

from contentv.base.errors import UserError
from contentv.data.buckets import BucketConfig
from contentv.encoding.identity import (
    ClipIdentity,
    StoreIdentity,
    TextIdentity,
    encoder_build,
    read_identity,
    refuse_stale,
    write_identity,
)

BUCKETS = BucketConfig(areas=(4096,), frames=(1, 5), fps=8)
CLIPS = ClipIdentity(
    vae="ab", dtype="torch.float32", build=encoder_build(), buckets=BUCKETS, windows=1
)
TEXT = TextIdentity(towers="cd", dtype="torch.float32", lengths=(16, 128))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_identity(tmp_path) is None
    identity = StoreIdentity(clips=CLIPS, text=TEXT, model="tiny", vae_files="ef")
    write_identity(tmp_path, identity)
    assert read_identity(tmp_path) == identity
    refuse_stale(tmp_path, CLIPS, CLIPS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vae": "xy"}, "autoencoder: vae=ab, now xy"),
        ({"dtype": "torch.bfloat16"}, "number format: dtype=torch.float32, now torch.bfloat16"),
        ({"build": "0"}, f"encoder build: build={encoder_build()}, now 0"),
        ({"windows": 2}, "frame rule: windows=1, now 2"),
        (
            {"buckets": BUCKETS.model_copy(update={"areas": (8192,)})},
            "resolution: areas=[4096], now [8192]",
        ),
        (
            {"buckets": BUCKETS.model_copy(update={"frames": (5,), "fps": 24.0})},
            "frame rule: frames=[1, 5], now [5], frame rule: fps=8.0, now 24.0",
        ),
    ],
)
def test_the_one_line_names_what_differs_and_nothing_else(
    tmp_path: Path, change: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError) as caught:
        refuse_stale(tmp_path, CLIPS, CLIPS.model_copy(update=change))
    assert f"its features are stale ({words});" in str(caught.value)


def test_other_text_encoders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="text encoders: towers=cd, now zz"):
        refuse_stale(tmp_path, TEXT, TEXT.model_copy(update={"towers": "zz"}))
