import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import pytest
from pydantic import Field

from contentv import cli
from contentv.base.config import Argument, Config
from contentv.base.errors import UserError, WorldError


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Runner = Callable[..., Outcome]


@pytest.fixture
def contentv(capsys: pytest.CaptureFixture[str]) -> Runner:
    def run(*arguments: str) -> Outcome:
        code = cli.main(arguments)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


class ProbeConfig(Config):
    """Say what was understood."""

    words: Annotated[tuple[str, ...], Argument(positional=True, metavar="WORD")] = ()
    num_steps: int = Field(3, ge=1, description="how many")
    scale: float | None = Field(None, description="how large")
    mode: Literal["fast", "slow"] = "fast"
    folder: Annotated[Path | None, Argument(flag="out", default="here")] = None
    sizes: tuple[int, int] = (1, 2)
    strict: bool = Field(default=False, description="be strict")
    fail: str = ""


class Result(NamedTuple):
    text: str
    exit_code: int = 0

    def __str__(self) -> str:
        return self.text


def probe(config: ProbeConfig) -> Result:
    failures: dict[str, BaseException] = {
        "user": UserError("num=3: must be even; use 2 or 4"),
        "world": WorldError("cannot write x: the disk is full"),
        "ctrl-c": KeyboardInterrupt(),
        "os": FileNotFoundError(2, "No such file or directory", "weights.bin"),
        "memory": MemoryError(),
        "bug": ZeroDivisionError("division\nby zero\x1b[31m"),
    }
    if config.fail == "wrapped ctrl-c":
        raise ImportError("cannot import a C extension") from KeyboardInterrupt()
    if config.fail == "partly":
        return Result("one of two", exit_code=1)
    if config.fail:
        raise failures[config.fail]
    return Result(config.model_dump_json())


@pytest.fixture(autouse=True)
def _probe_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    verb = cli.Verb("test_cli_probe:probe", "test_cli_probe:ProbeConfig", "test the command line")
    monkeypatch.setitem(cli.VERBS, "probe", verb)
    monkeypatch.setitem(sys.modules, "test_cli_probe", sys.modules[__name__])


def test_flags_take_dashes_and_underscores_alike(contentv: Runner) -> None:
    dashes = contentv("probe", "a", "b", "--num-steps", "5", "--scale=0.5")
    underscores = contentv("probe", "--num_steps", "5", "--scale", "0.5", "a", "b")
    assert dashes == underscores
    understood = json.loads(dashes.out)
    assert (understood["words"], understood["num_steps"], understood["scale"]) == (
        ["a", "b"],
        5,
        0.5,
    )


def test_every_kind_of_value_arrives(contentv: Runner) -> None:
    line = "probe --out a/b --mode slow --sizes 3 4 --strict -- -x --y"
    outcome = contentv(*line.split())
    assert json.loads(outcome.out) == {
        "words": ["-x", "--y"],
        "num_steps": 3,
        "scale": None,
        "mode": "slow",
        "folder": "a/b",
        "sizes": [3, 4],
        "strict": True,
        "fail": "",
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--num-steps 0", "num_steps=0: input should be greater than or equal to 1"),
        ("--num-steps 2.5", "num_steps=2.5: input should be a valid integer"),
        ("--scale nan", "scale=nan: input should be a finite number"),
        ("--scale inf", "scale=inf: input should be a finite number"),
        ("--scale x", "scale=x: input should be a valid number"),
        ("--mode medium", "mode=medium: input should be 'fast' or 'slow'"),
        ("--no-such-flag 1", "--no-such-flag"),
        ("--scale", "Missing value for argument '--scale'"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_2(contentv: Runner, line: str, message: str) -> None:
    outcome = contentv("probe", *line.split())
    assert outcome.code == 2
    assert message in outcome.err
    assert outcome.err.startswith("contentv: ")
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""


@pytest.mark.parametrize(
    ("fail", "code", "message"),
    [
        ("user", 2, "num=3: must be even; use 2 or 4"),
        ("world", 1, "cannot write x: the disk is full"),
        ("ctrl-c", 130, "interrupted; finished files are kept"),
        ("wrapped ctrl-c", 130, "interrupted; finished files are kept"),
        ("os", 1, "weights.bin: no such file or folder"),
        ("memory", 1, "not enough memory"),
        ("bug", 1, "unexpected ZeroDivisionError: division by zero"),
    ],
)
def test_every_failure_is_one_line_with_its_exit_code(
    contentv: Runner, fail: str, code: int, message: str
) -> None:
    outcome = contentv("probe", "--fail", fail)
    assert outcome.code == code
    assert outcome.err.startswith(f"contentv: {message}")
    assert outcome.err.count("\n") == 1
    assert outcome.err[:-1].isprintable()
    assert outcome.out == ""


@pytest.mark.parametrize("place", [0, 1, 3])
def test_debug_adds_the_traceback_wherever_it_stands(contentv: Runner, place: int) -> None:
    arguments = ["probe", "--fail", "world"]
    outcome = contentv(*arguments[:place], "--debug", *arguments[place:])
    assert outcome.code == 1
    assert "Traceback" in outcome.err
    assert outcome.err.splitlines()[-1] == "contentv: cannot write x: the disk is full"


def test_a_result_can_tell_of_partial_failure(contentv: Runner) -> None:
    assert contentv("probe", "--fail", "partly") == Outcome(1, "one of two\n", "")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("generat", "generat: no such verb; did you mean generate?"),
        ("xyzzy", "xyzzy: no such verb; there are: generate, "),
        ("toyworld raed", "toyworld raed: no such verb; did you mean toyworld read?"),
    ],
)
def test_an_unknown_verb_gets_a_hint(contentv: Runner, line: str, hint: str) -> None:
    outcome = contentv(*line.split())
    assert outcome.code == 2
    assert outcome.err.startswith(f"contentv: {hint}")


def test_a_family_of_verbs_explains_itself(contentv: Runner) -> None:
    outcome = contentv("toyworld")
    assert outcome.code == 0
    assert "toyworld render" in outcome.out
    assert "doctor" not in outcome.out


def test_version(contentv: Runner) -> None:
    from contentv import __version__

    assert contentv("--version").out == f"contentv {__version__}\n"


def test_help_names_flags_values_and_defaults(contentv: Runner) -> None:
    text = " ".join(contentv("probe", "--help").out.replace("│", "").split())
    for part in [
        "Say what was understood.",
        "WORD",
        "--num-steps INT how many (default: 3)",
        "--scale FLOAT how large",
        "--mode {fast,slow} (default: fast)",
        "--out PATH (default: here)",
        "--strict be strict",
    ]:
        assert part in text
    assert "None" not in text


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )


@pytest.mark.parametrize("line", [[], ["--help"], ["--version"], ["generate", "--help"]])
def test_asking_for_help_costs_no_torch(line: Sequence[str]) -> None:
    code = (
        "import sys; from contentv.cli import main; "
        f"code = main({list(line)!r}); "
        "assert not {'torch', 'diffusers', 'transformers', 'av', 'numpy'} & set(sys.modules); "
        "sys.exit(code)"
    )
    result = python(code)
    assert result.returncode == 0, result.stderr


def test_a_reader_who_leaves_early_gets_no_traceback() -> None:
    command = f"{sys.executable} -m contentv.cli toyworld | true"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", cli.VERBS)
def test_every_verb_has_what_it_runs(name: str) -> None:
    """`--help` would work without."""
    verb = cli.VERBS[name]
    assert callable(cli._load(verb.run))
    assert issubclass(cli._load(verb.config), Config)
