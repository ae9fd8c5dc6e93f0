"""Word tokenizers in the formats of CLIP and T5, made from a list of words without any training."""

import json
import string
import struct
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import CLIPTokenizer, PreTrainedTokenizerBase, T5TokenizerFast

_END = "</w>"
_START_OF_TEXT, _END_OF_TEXT = "<|startoftext|>", "<|endoftext|>"


def clip_tokenizer(
    vocabulary: frozenset[str], *, max_length: int, pad_token: str
) -> PreTrainedTokenizerBase:
    """Byte-pair tokenizer in which each word is one token; other text falls apart into letters."""
    merges = _merges(sorted(vocabulary))
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *(letter + _END for letter in letters), *("".join(pair) for pair in merges)]
    pieces = [*dict.fromkeys(pieces), _START_OF_TEXT, _END_OF_TEXT]
    with tempfile.TemporaryDirectory() as folder:
        vocab, merged = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        ids = {piece: index for index, piece in enumerate(pieces)}
        vocab.write_text(json.dumps(ids, ensure_ascii=False), "utf-8")
        merged.write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), "utf-8")
        return CLIPTokenizer.from_pretrained(
            folder, bos_token=_START_OF_TEXT, eos_token=_END_OF_TEXT, unk_token=_END_OF_TEXT,
            pad_token=pad_token, model_max_length=max_length,
        )  # fmt: skip


def t5_tokenizer(vocabulary: frozenset[str], *, max_length: int) -> PreTrainedTokenizerBase:
    """Unigram tokenizer in which each word is one token; other text falls apart into letters."""
    letters = [chr(code) for code in range(33, 127)]
    # A word must score better than any row of its letters; letters with their space come last.
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"▁{word}", -1.0) for word in sorted(vocabulary)]
    pieces += [("▁", -10.0)] + [(letter, -10.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    # Of all normalisers only this kind survives saving: T5's class makes the others anew.
    tokenizer.normalizer = normalizers.Precompiled(_lower_case_map())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return T5TokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        extra_ids=0, model_max_length=max_length,
    )  # fmt: skip


def _lower_case_map() -> bytes:
    """A-Z to a-z in SentencePiece's format: a double-array trie, then the texts it points to."""
    units = [0] * 256
    for index, letter in enumerate(string.ascii_uppercase.encode()):
        units[letter] = letter | 1 << 8 | 128 << 10  # its label, "has a leaf", the leaf's distance
        units[letter ^ 128] = 1 << 31 | 2 * index  # the leaf: where the text begins
    texts = "".join(f"{letter}\0" for letter in string.ascii_lowercase)
    return struct.pack("<I256I", 4 * len(units), *units) + texts.encode()


def _merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges until each word is one piece: the commonest pair first, then by alphabet."""
    pieces = {word: (*word[:-1], word[-1] + _END) for word in words}
    merges: list[tuple[str, str]] = []
    while any(len(parts) > 1 for parts in pieces.values()):
        counts = Counter(pair for parts in pieces.values() for pair in pairwise(parts))
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        pieces = {word: _merge(parts, best) for word, parts in pieces.items()}
    return merges


def _merge(parts: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    index = 0
    while index < len(parts):
        if parts[index : index + 2] == pair:
            merged.append("".join(pair))
            index += 2
        else:
            merged.append(parts[index])
            index += 1
    return tuple(merged)
