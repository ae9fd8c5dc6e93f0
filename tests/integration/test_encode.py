"""`contentv encode`: from clips or prompts to features, broken off at any moment."""

import json
import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from builders import build_random_pipeline
from contentv.base.errors import UserError, WorldError
from contentv.cli import main
from contentv.data.buckets import Buckets, Fit
from contentv.data.manifest import MANIFEST_NAME, Clip, read_manifest, write_manifest
from contentv.data.run import load_dataset
from contentv.data.standins import UnreadableClipError
from contentv.encoding import views, workers
from contentv.encoding.captions import CaptionEncoder
from contentv.encoding.clips import ClipEncoder
from contentv.encoding.config import EncodeConfig
from contentv.encoding.encoder import FeatureEncoder
from contentv.encoding.identity import StoreIdentity, read_identity
from contentv.encoding.run import EncodeResult
from contentv.encoding.stored import StoredCaptions, StoredClips
from contentv.pipelines.parts import load_towers, load_vae
from contentv.pipelines.studio import load_pipeline
from contentv.recipes.encode import run
from contentv.toyworld.dataset import sample
from contentv.video.io import write_video

CPU = torch.device("cpu")
VAE = Path("vae/diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_random_pipeline(tmp_path_factory.mktemp("model") / "random", blocks=1)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five measured clips of which one broke since, and one that was broken already."""
    folder = tmp_path_factory.mktemp("data") / "films"
    folder.mkdir()
    for number in range(5):
        clip = sample(0, number)
        write_video(folder / f"{number}.mp4", clip.frames(9), fps=8)
        texts = {"caption": clip.short.text, "long_caption": clip.long.text}
        (folder / f"{number}.json").write_text(json.dumps(texts))
    (folder / "junk.mp4").write_bytes(b"nothing")
    (folder / "junk.txt").write_text("junk")
    listing = load_dataset(folder, None, cache=folder.parent / "measured", workers=1)
    write_manifest(folder / MANIFEST_NAME, listing.clips)
    broken = folder / "3.mp4"
    state = broken.stat()
    broken.write_bytes(bytes(state.st_size))
    os.utime(broken, ns=(state.st_atime_ns, state.st_mtime_ns))
    return folder


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MOST_VIEWS", 3)


def encode(films: Path, model: Path, out: Path, **more: object) -> EncodeResult:
    config = {"clips": films, "model": str(model), "out": out, "frames": (1, 5), "windows": 2}
    result = run(EncodeConfig(**{**config, "device": "cpu", **more}))
    assert isinstance(result, EncodeResult)
    return result


@pytest.fixture(scope="module")
def whole(films: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that was never broken off."""
    out = tmp_path_factory.mktemp("store") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "MOST_VIEWS", 3)
        result = encode(films, model, out)
    assert (result.clips, result.views, result.decoded, result.failed) == (5, 10, 10, 2)
    assert result.dropped == Counter({"faulty": 1})
    assert result.captions == result.embedded == 11
    return out


def contents(store: Path) -> dict[str, bytes]:
    found = (path for path in store.rglob("*") if path.is_file())
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in found}


def clips_of(store: Path) -> list[tuple[Clip, Fit]]:
    identity = read_identity(store)
    assert identity is not None
    buckets = Buckets(identity.clips.buckets)
    fits = (
        (clip, buckets.fit(clip.size))
        for clip in read_manifest(store / MANIFEST_NAME)
        if not clip.fault
    )
    return [(clip, fit) for clip, fit in fits if isinstance(fit, Fit)]


def identity_of(store: Path) -> StoreIdentity:
    identity = read_identity(store)
    assert identity is not None
    assert identity.text is not None
    return identity


# ---- what is in a store


def test_the_bits_are_those_of_encoding_when_needed(
    whole: Path, films: Path, model: Path, tmp_path: Path
) -> None:
    vae, identity = load_vae(model, CPU), identity_of(whole)
    inline = ClipEncoder(FeatureEncoder(vae), films, tmp_path)
    stored = StoredClips(whole, vae, identity.clips.buckets, 2)
    for clip, fit in clips_of(whole):
        for start in (0.25, 0.75):
            one, two = (torch.Generator().manual_seed(3) for _ in range(2))
            if clip.path == "3.mp4":
                for source in (inline, stored):
                    with pytest.raises(UnreadableClipError, match=r"^3.mp4: "):
                        source(clip, fit, start, one)
            else:
                assert torch.equal(inline(clip, fit, start, one), stored(clip, fit, start, two))


def test_captions_have_the_bits_of_embedding_when_needed_whatever_is_dropped(
    whole: Path, model: Path
) -> None:
    towers, text = load_towers(model, torch.float32, CPU), identity_of(whole).text
    assert text is not None
    inline = CaptionEncoder(FeatureEncoder(towers=towers), text_lengths=text.lengths)
    stored = StoredCaptions(whole, text, CPU)
    short, long = (sample(0, 1).short.text, sample(0, 2).long.text)
    lengths = set()
    for batch in (
        [(short, short, short)],
        [("", short, short), (short, "", short), (short, short, "")],
        [("", "", "")],
        [(long, long, long), (short, "", "")],
        [(short, long, short)],
    ):
        columns = [list(column) for column in zip(*batch, strict=True)]
        ours, theirs = stored(*columns), inline(*columns)
        assert torch.equal(ours.sequence, theirs.sequence)
        assert torch.equal(ours.pooled, theirs.pooled)
        lengths.add(ours.sequence.shape[1])
    assert len(lengths) == 2


def test_the_parts_are_loaded_as_the_pipeline_loads_them(model: Path) -> None:
    pipe, vae = load_pipeline(model, torch.float32), load_vae(model, CPU)
    towers = load_towers(model, torch.float32, CPU)
    pairs = [(pipe.vae, vae), (pipe.text_encoder, towers.text_encoder)]
    pairs += [(pipe.text_encoder_3, towers.text_encoder_3)]
    for one, two in pairs:
        ours, theirs = one.state_dict(), two.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert not two.training
    assert type(pipe.tokenizer_3) is type(towers.tokenizer_3)
    assert towers.sequence_width == pipe.text_towers().sequence_width


def test_what_could_not_be_read_is_a_row_with_a_reason(whole: Path) -> None:
    (line,) = map(json.loads, (whole / "failures.jsonl").read_text().splitlines())
    assert line["clip"] == "3.mp4"
    assert line["reason"].startswith("3.mp4: ")


def test_what_is_not_in_the_store_says_what_to_run(whole: Path, model: Path) -> None:
    identity = identity_of(whole)
    stored = StoredClips(whole, load_vae(model, CPU), identity.clips.buckets, 2)
    clip, fit = clips_of(whole)[0]
    with pytest.raises(UserError, match=r"0.mp4: its features are not in .* run `contentv encode"):
        stored(clip, fit, 0.0, torch.Generator())
    assert identity.text is not None
    captions = StoredCaptions(whole, identity.text, CPU)
    with pytest.raises(UserError, match="'unheard of': is not in"):
        captions(["", ""], ["", ""], ["", "unheard of"])
    with pytest.raises(UserError, match="is no store of features"):
        StoredClips(whole / "clips", load_vae(model, CPU), identity.clips.buckets, 2)


# ---- again, and after a kill


def test_the_second_time_nothing_is_decoded_or_written(
    whole: Path, films: Path, model: Path
) -> None:
    before = contents(whole)
    result = encode(films, model, whole)
    assert (result.decoded, result.embedded, result.failed) == (0, 0, 2)
    assert contents(whole) == before


@pytest.mark.parametrize("moment", [2, 5, 9])
def test_killed_and_run_again_the_store_is_the_same_to_the_byte(
    whole: Path, films: Path, model: Path, tmp_path: Path, moment: int
) -> None:
    """Killed within the first shard, within a later one, and before the last."""

    def die(real: Iterator[bool]) -> Iterator[bool]:
        for number, readable in enumerate(real):
            if number == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            yield readable

    real = workers.encode_views
    out = tmp_path / "store"
    assert in_a_child(lambda: dying_encode(films, model, out, lambda *a: die(real(*a)))) == (
        -signal.SIGKILL
    )
    assert not (out / "clips/index.parquet").exists()
    result = encode(films, model, out)
    assert result.decoded == 10 - moment // 3 * 3
    assert contents(out) == contents(whole)


def dying_encode(
    films: Path, model: Path, out: Path, encode_views: Callable[..., Iterator[bool]]
) -> None:
    workers.encode_views = encode_views  # in the child only
    encode(films, model, out)


def in_a_child(work: Callable[[], None]) -> int:
    """Exit code of a copy of this process that does `work`; negative: the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_shard_cut_short_is_made_again(
    whole: Path, films: Path, model: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(whole, tmp_path / "store")
    shards = sorted((out / "clips").glob("*.safetensors")), sorted((out / "captions").glob("*.s*"))
    for path in (shards[0][0], shards[1][0]):
        path.write_bytes(path.read_bytes()[:-3])
    result = encode(films, model, out)
    assert result.decoded in (1, 3)  # the last shard has one view
    assert result.embedded == 11
    assert contents(out) == contents(whole)


def test_verify_names_what_is_damaged_and_removes_it_only_when_asked(
    whole: Path, films: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(whole, tmp_path / "store")
    assert main(["encode", "--verify", "--out", str(out)]) == 0
    assert "5 shards are whole" in capsys.readouterr().out
    path = min((out / "clips").glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert encode(films, model, out).decoded == 0  # of the right size: only a reader sees it
    before = contents(out)
    assert main(["encode", "--verify", "--out", str(out)]) == 1
    said = capsys.readouterr().out
    assert f"{path}: its bytes are not those that were written" in said
    assert "1 of 5 shards damaged; nothing was removed" in said
    assert contents(out) == before
    assert main(["encode", "--verify", "--remove", "--out", str(out)]) == 1
    assert encode(films, model, out).decoded > 0
    assert contents(out) == contents(whole)


def test_new_clips_are_added_and_a_repaired_one_is_tried_again(
    whole: Path, films: Path, model: Path, tmp_path: Path
) -> None:
    out, data = shutil.copytree(whole, tmp_path / "store"), tmp_path / "films"
    shutil.copytree(films, data)
    write_video(data / "3.mp4", sample(0, 3).frames(9), fps=8)
    write_video(data / "7.mp4", sample(0, 7).frames(9), fps=8)
    clips = read_manifest(data / MANIFEST_NAME)
    more = replace(clips[0], id="7", path="7.mp4", short="the seventh", long="", stamp="")
    write_manifest(data / MANIFEST_NAME, [*clips, more])
    result = encode(data, model, out)
    assert (result.decoded, result.failed, result.embedded) == (4, 0, 1)
    again = encode(films, model, out, retry=True)
    assert (again.decoded, again.failed) == (2, 2)


# ---- what is refused


def test_another_autoencoder_is_refused_and_nothing_is_touched(
    whole: Path, films: Path, model: Path, tmp_path: Path
) -> None:
    another = shutil.copytree(model, tmp_path / "another")
    tensors = load_file(another / VAE)
    tensors["quant_conv.bias"] = tensors["quant_conv.bias"] + 1
    save_file(tensors, another / VAE, {"format": "pt"})
    before = contents(whole)
    with pytest.raises(UserError, match=r"stale \(autoencoder: vae=\w{16}, now \w{16}\)"):
        encode(films, another, whole)
    with pytest.raises(UserError, match="autoencoder: vae="):
        StoredClips(whole, load_vae(another, CPU), identity_of(whole).clips.buckets, 2)
    assert contents(whole) == before


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--windows", "3"], "frame rule: windows=2, now 3"),
        (["--frames", "5"], "frame rule: frames=[1, 5], now [5]"),
        (["--areas", "1024"], "resolution: areas=[4096], now [1024]"),
        (["--prompts", "p.txt"], "give one of --clips, --prompts and --verify"),
        (["--remove"], "goes with --verify alone"),
        (["--clips", "absent"], "absent: no such file or folder"),
        (["--frames", "6"], "frames=6: must be 4k+1; use 5 or 9"),
    ],
)
def test_what_cannot_be_encoded_is_one_line(
    whole: Path,
    films: Path,
    model: Path,
    *,
    more: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = contents(whole)
    line = ["--clips", str(films), "--model", str(model), "--out", str(whole), "--windows", "2"]
    assert main(["encode", *line, "--frames", "1", "5", "--device", "cpu", *more]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert words in said
    assert contents(whole) == before


def test_without_text_there_are_no_captions_until_they_are_asked_for(
    films: Path, model: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "store"
    assert encode(films, model, out, text=False).captions == 0
    assert not (out / "captions").exists()
    text = identity_of(whole).text
    assert text is not None
    with pytest.raises(UserError, match="made with --no-text"):
        StoredCaptions(out, text, CPU)
    result = encode(films, model, out)
    assert (result.decoded, result.embedded) == (0, 11)
    assert contents(out) == contents(whole)


def test_a_full_disk_is_one_error_and_no_half_written_file(
    films: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "store"
    out.mkdir()
    (out / "clips").write_text("in the way")
    with pytest.raises(WorldError, match="clips"):
        encode(films, model, out)
