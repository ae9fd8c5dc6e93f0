"""The commands of the README and the docs are true: they exist, and the cheap ones are run.

A fenced block is run when the line before it is `<!-- run -->`. The blocks of one page run in
order in one fresh folder, so that a later one may use what an earlier one wrote.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from contentv.cli import VERBS

ROOT = Path(__file__).resolve().parents[1]
README, README_ZH = ROOT / "README.md", ROOT / "README.zh-CN.md"
PAGES = [README, README_ZH, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(
    r"(?P<run><!-- run -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)
LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
SHIM = """#!/bin/sh
exec "{python}" -c 'import sys; from contentv.cli import main; sys.exit(main())' "$@"
"""


class Block(NamedTuple):
    language: str
    code: str
    run: bool


def blocks(page: Path) -> list[Block]:
    found = FENCE.finditer(page.read_text(encoding="utf-8"))
    return [Block(match["language"], match["code"], match["run"] is not None) for match in found]


def commands(page: Path) -> list[str]:
    """Give the shell commands of a page, one string each, comments and continuations removed."""
    text = "".join(block.code for block in blocks(page) if block.language == "bash")
    lines = text.replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#")]


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
    for command in commands(page):
        if made := re.match(r"(?:\w+=\S+ )*make ([a-z-]+)", command):
            assert made[1] in targets, command
        if asked := re.match(r"(?:\S*/)?contentv (\w+)(?: (\w+))?", command):
            assert asked[1] in VERBS or f"{asked[1]} {asked[2]}" in VERBS, command


def test_both_languages_say_the_same() -> None:
    english, chinese = blocks(README), blocks(README_ZH)
    assert [(block.language, block.run) for block in english] == [
        (block.language, block.run) for block in chinese
    ]
    for one, other in zip(english, chinese, strict=True):
        if one.language in ("bash", "python"):
            assert without_comments(one.code) == without_comments(other.code)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", [README, ROOT / "docs" / "usage.md"], ids=lambda page: page.name)
def test_marked_blocks_run(page: Path, tmp_path: Path) -> None:
    shim = tmp_path / "bin" / "contentv"
    shim.parent.mkdir()
    shim.write_text(SHIM.format(python=sys.executable))
    shim.chmod(0o755)
    environment = {**os.environ, "PATH": f"{shim.parent}:{os.environ['PATH']}"}
    marked = [block for block in blocks(page) if block.run]
    assert marked, f"{page.name} has no block marked to be run"
    for block in marked:
        command = ["bash", "-euc"] if block.language == "bash" else [sys.executable, "-c"]
        result = subprocess.run(
            [*command, block.code],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, f"{block.code}\n{result.stdout}\n{result.stderr}"
