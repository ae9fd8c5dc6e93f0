"""The commands of the README and the docs are true: they exist, and the cheap ones are run.

A fenced block is run when the line before it is `<!-- run -->`. The blocks of one page run in
order in one fresh folder, so that a later one may use what an earlier one wrote.
"""

import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from contentv.cli import VERBS, main

ROOT = Path(__file__).resolve().parents[1]
README, README_ZH = ROOT / "README.md", ROOT / "README.zh-CN.md"
RUN_PAGES = [
    README,
    *(ROOT / "docs" / f"{name}.md" for name in ("usage", "data", "training", "curation")),
]
PAGES = [README, README_ZH, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(
    r"(?P<run><!-- run -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


class Block(NamedTuple):
    language: str
    code: str
    run: bool

    @property
    def commands(self) -> list[list[str]]:
        """The words of each shell command."""
        lines = self.code.replace("\\\n", " ").splitlines() if self.language == "bash" else []
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(page: Path) -> list[Block]:
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [Block(match["language"], match["code"], match["run"] is not None) for match in found]


def without_comments(code: str) -> list[str]:
    lines = (re.sub(r"\s*#.*", "", line).rstrip() for line in code.splitlines())
    return [line for line in lines if line]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    for words in (words for block in blocks(page) for words in block.commands):
        program, *arguments = [word for word in words if not re.match(r"[A-Z_]+=", word)]
        if program == "make":
            assert {word for word in arguments if "=" not in word} <= targets, words
        if program == "contentv":
            assert arguments[0] in VERBS or " ".join(arguments[:2]) in VERBS, words


def test_both_languages_say_the_same() -> None:
    english, chinese = blocks(README), blocks(README_ZH)
    kinds = [(block.language, block.run) for block in english]
    assert kinds == [(block.language, block.run) for block in chinese]
    for one, other in zip(english, chinese, strict=True):
        if one.language in ("bash", "python"):
            assert without_comments(one.code) == without_comments(other.code)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", RUN_PAGES, ids=lambda page: page.name)
def test_marked_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process: what a command costs is mostly the import of torch, which others test."""
    monkeypatch.chdir(tmp_path)
    marked = [block for block in blocks(page) if block.run]
    assert marked, f"{page.name} has no block marked to be run"
    for block in marked:
        for words in block.commands:
            assert words[0] == "contentv", words
            assert main(words[1:]) == 0, words
        if block.language == "python":
            exec(compile(block.code, page.name, "exec"), {"__name__": "example"})
