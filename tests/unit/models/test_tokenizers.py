from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer, CLIPTokenizer, PreTrainedTokenizerBase, T5TokenizerFast

from contentv.models.tokenizers import clip_tokenizer, t5_tokenizer
from contentv.toyworld.captions import MAX_SHORT_WORDS, vocabulary
from contentv.toyworld.dataset import sample

WORDS = vocabulary()
SHORT, LONG = 16, 128
MAKERS: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "clip": lambda: clip_tokenizer(WORDS, max_length=SHORT, pad_token="<|endoftext|>"),
    "clip_2": lambda: clip_tokenizer(WORDS, max_length=SHORT, pad_token="!"),
    "t5": lambda: t5_tokenizer(WORDS, max_length=LONG),
}
TEXTS = (
    "a red circle moves right",
    "A Red CIRCLE, moves right!",
    "unknownish zebra-words: don't (42%) ~quickly~",
    "ünïcode 日本 😀",
    "  two   spaces\nand a line ",
    "",
)


@pytest.fixture(scope="module", params=list(MAKERS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def tokenizer(name: str) -> PreTrainedTokenizerBase:
    return MAKERS[name]()


def bare(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    return ids


def test_every_word_is_one_token_of_its_own(tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = {word: bare(tokenizer, word) for word in WORDS}
    assert {word: ids for word, ids in tokens.items() if len(ids) != 1} == {}
    assert len({ids[0] for ids in tokens.values()}) == len(WORDS)
    sentence = " ".join(sorted(WORDS))
    assert bare(tokenizer, sentence) == [tokens[word][0] for word in sorted(WORDS)]


def test_ends_are_marked_as_the_towers_expect(
    name: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    ids = tokenizer("a red circle").input_ids
    assert ids[-1] == tokenizer.eos_token_id
    assert len(ids) == (4 if name == "t5" else 5)
    padded = tokenizer("a", padding="max_length", max_length=8).input_ids
    assert padded[-1] == tokenizer.pad_token_id
    if name != "t5":
        assert ids[0] == tokenizer.bos_token_id
    cut = tokenizer("a " * 200, truncation=True, max_length=8).input_ids
    assert len(cut) == 8
    assert cut[-1] == tokenizer.eos_token_id


def test_upper_case_reads_as_lower_case(tokenizer: PreTrainedTokenizerBase) -> None:
    everything = " ".join(sorted(WORDS))
    assert bare(tokenizer, everything.upper()) == bare(tokenizer, everything)
    assert bare(tokenizer, "A Red Circle") == bare(tokenizer, "a red circle")


def test_unknown_words_fall_apart_into_letters_and_come_back(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    text = "a zebra with quick xylophones"
    ids = bare(tokenizer, text)
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == text
    assert len(ids) > len(text.split())


def test_punctuation_is_apart_from_the_word_it_follows(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    plain, pointed = bare(tokenizer, "red circle"), bare(tokenizer, "red, circle.")
    assert [token for token in pointed if token in plain] == plain
    assert len(pointed) == 4


def test_letters_of_other_alphabets_do_no_harm(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = bare(tokenizer, "red 日本 circle")
    assert ids[0] == bare(tokenizer, "red")[0]
    assert ids[-1] == bare(tokenizer, "circle")[0]


def test_making_one_again_gives_the_same(name: str, tokenizer: PreTrainedTokenizerBase) -> None:
    again = MAKERS[name]()
    assert again.get_vocab() == tokenizer.get_vocab()
    assert [bare(again, text) for text in TEXTS] == [bare(tokenizer, text) for text in TEXTS]


@pytest.mark.parametrize("through", ["own class", "AutoTokenizer"])
def test_saving_changes_nothing(
    name: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path, through: str
) -> None:
    tokenizer.save_pretrained(tmp_path)
    own = T5TokenizerFast if name == "t5" else CLIPTokenizer
    loaded = (AutoTokenizer if through == "AutoTokenizer" else own).from_pretrained(tmp_path)
    assert type(loaded) is type(tokenizer)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    for text in (*TEXTS, " ".join(sorted(WORDS)).upper()):
        settings = {"padding": "max_length", "max_length": 24, "truncation": True}
        assert loaded(text, **settings).input_ids == tokenizer(text, **settings).input_ids, text
    for attribute in ("model_max_length", "pad_token_id", "eos_token_id", "unk_token_id"):
        assert getattr(loaded, attribute) == getattr(tokenizer, attribute)


def test_captions_fit_the_lengths_of_the_towers(
    name: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    samples = [sample(0, index) for index in range(1000)]
    short = max(len(tokenizer(s.short.text).input_ids) for s in samples)
    assert MAX_SHORT_WORDS < short <= SHORT
    # The longest there can be: as many words as captions may have, with marks at the ends.
    longest = " ".join(sorted(WORDS)[:MAX_SHORT_WORDS])
    assert len(tokenizer(longest).input_ids) <= SHORT
    if name == "t5":
        long = max(len(tokenizer(s.long.text).input_ids) for s in samples)
        assert 60 < long <= LONG
        dots = max(s.long.text.count(".") for s in samples)
        assert 100 + dots + 1 <= LONG  # 100 words at most
