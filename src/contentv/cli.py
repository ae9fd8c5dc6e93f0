"""The command line: a table of verbs, each a function of one configuration object.

Nothing heavy is imported before a verb runs: `contentv VERB --help` knows the configuration only.
"""

import atexit
import contextlib
import dataclasses
import difflib
import gc
import importlib
import inspect
import io
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

from contentv.base.interrupts import INTERRUPTED, ending_at_once, raising_between_imports
from contentv.base.log import quiet_libraries
from contentv.base.spared import QUANTIZERS, spare

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from contentv.base.config import Config

_TERMINATED = 143  # what shells expect of a program ended by SIGTERM: 128 + 15
_STOPPED = "interrupted; finished files are kept, nothing half-written is left"
_NOT_NEEDED = {"generate": ("peft", "scipy", "onnxruntime", *QUANTIZERS)}  # see base/spared.py
_METAVARS: dict[Any, str] = {int: "INT", float: "FLOAT", Path: "PATH", str: "TEXT"}


@dataclasses.dataclass(frozen=True)
class Verb:
    """A command: `run` and `config` are "module:name", imported when the verb is used."""

    run: str
    config: str
    summary: str


VERBS = {
    "generate": Verb(
        "contentv.pipelines.run:run",
        "contentv.pipelines.config:GenerateConfig",
        "make videos from prompts",
    ),
    "curate run": Verb(
        "contentv.recipes.curation:run",
        "contentv.curation.products:CurateConfig",
        "measure all clips of a folder of videos, and write a catalogue of them",
    ),
    "curate retry": Verb(
        "contentv.curation.engine.run:retry",
        "contentv.curation.config:RetryConfig",
        "try files again that failed",
    ),
    "curate teach": Verb(
        "contentv.curation.teaching.teach:run",
        "contentv.curation.config:TeachConfig",
        "teach a head to score clips as you do",
    ),
    "curate select": Verb(
        "contentv.curation.selection.select:run",
        "contentv.curation.selection.questions:SelectConfig",
        "apply a policy: which clips are kept, and why the others are not",
    ),
    "curate explain": Verb(
        "contentv.curation.selection.explain:run",
        "contentv.curation.selection.questions:ExplainConfig",
        "say all about one clip, and each rule that decides on it",
    ),
    "curate funnel": Verb(
        "contentv.curation.selection.funnel:run",
        "contentv.curation.selection.questions:FunnelConfig",
        "count the clips that each rule of a policy loses",
    ),
    "curate what-if": Verb(
        "contentv.curation.selection.compare:run_what_if",
        "contentv.curation.selection.questions:WhatIfConfig",
        "count what another threshold would keep",
    ),
    "curate diff": Verb(
        "contentv.curation.selection.compare:run_diff",
        "contentv.curation.selection.questions:DiffConfig",
        "compare what two policies keep",
    ),
    "curate report": Verb(
        "contentv.curation.selection.report:run",
        "contentv.curation.selection.questions:ReportConfig",
        "write a page with histograms, the funnel and border-line clips",
    ),
    "curate export": Verb(
        "contentv.curation.export.writing:run",
        "contentv.curation.products:ExportConfig",
        "write the clips that a policy keeps, cut to the frame",
    ),
    "curate caption": Verb(
        "contentv.curation.captions.caption:run",
        "contentv.curation.products:CaptionConfig",
        "write short and detailed captions of exported clips",
    ),
    "curate pack": Verb(
        "contentv.curation.export.pack:run",
        "contentv.curation.products:PackConfig",
        "copy captioned clips into the layout of another program",
    ),
    "encode": Verb(
        "contentv.recipes.encode:run",
        "contentv.encoding.config:EncodeConfig",
        "encode clips and captions before training, or prompts before generating",
    ),
    "serve": Verb(
        "contentv.recipes.serve:run",
        "contentv.encoding.config:ServeConfig",
        "encode for trainers elsewhere while they train",
    ),
    "serve certs": Verb(
        "contentv.encoding.certificates:run",
        "contentv.encoding.config:CertsConfig",
        "make certificates and a token for servers and trainers",
    ),
    "train": Verb(
        "contentv.recipes.run:run",
        "contentv.recipes.config:TrainConfig",
        "train a model by a recipe, or go on with a stopped run",
    ),
    "train contentv_8b": Verb(
        "contentv.recipes.pretraining:run",
        "contentv.recipes.config:ChainConfig",
        "train the paper's stages on your clips, on one device or on many",
    ),
    "train finetune": Verb(
        "contentv.recipes.finetune:run",
        "contentv.recipes.config:FinetuneConfig",
        "train a LoRA, or a whole model, on a folder of your own clips",
    ),
    "export": Verb(
        "contentv.recipes.export:run",
        "contentv.recipes.config:ExportConfig",
        "make a model folder of a training run's checkpoint",
    ),
    "evaluate": Verb(
        "contentv.evaluation.run:run",
        "contentv.evaluation.config:EvaluateConfig",
        "count how often a model's videos show what the prompt says",
    ),
    "plan": Verb(
        "contentv.planning.run:run",
        "contentv.planning.config:PlanConfig",
        "say what a training needs on a cluster: layout, memory, time, cost",
    ),
    "data check": Verb(
        "contentv.data.run:run",
        "contentv.data.config:CheckConfig",
        "say what training will do with every clip of a data set",
    ),
    "toyworld render": Verb(
        "contentv.data.toyclips:render",
        "contentv.data.config:RenderConfig",
        "write one captioned clip of the toy world",
    ),
    "toyworld read": Verb(
        "contentv.data.toyclips:read",
        "contentv.data.config:ReadConfig",
        "say which facts of the toy world a video shows",
    ),
    "doctor": Verb(
        "contentv.pipelines.doctor:run",
        "contentv.pipelines.config:DoctorConfig",
        "say what works on this machine, and what to do about the rest",
    ),
}


def program() -> int:
    """Be the program `contentv`: `main` in a process that does nothing else."""
    atexit.register(gc.freeze)  # to look for garbage once more at the end would take a second
    spare(_NOT_NEEDED.get(" ".join(sys.argv[1:2]), ()))
    return main()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and give its exit code: 0, 1 (world), 2 (user) or 130 (Ctrl-C)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    signal.signal(signal.SIGTERM, _terminate)
    # Importing torch and diffusers makes millions of objects that stay: looking through them again
    # and again for garbage costs a second of every command.
    gc.set_threshold(100_000, 50, 100)
    try:
        with raising_between_imports():
            return _dispatch(arguments, debug=debug)
    except BaseException as error:  # noqa: BLE001 - the last stop: every fault becomes one line
        code, message = _explain(error)
        if debug and message:
            traceback.print_exc()
    if message:
        print(f"contentv: {_one_line(message)}", file=sys.stderr)
    return code


def _dispatch(arguments: list[str], *, debug: bool) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if arguments[0] in ("--version", "version"):
        print(f"contentv {importlib.import_module('contentv').__version__}")
        return 0
    name, rest = _find_verb(arguments)
    if name not in VERBS:
        print(_overview(name))
        return 0
    config = _parse(VERBS[name], f"contentv {name}", rest)
    quiet_libraries(debug=debug)
    with ending_at_once(f"contentv: {_STOPPED}"):
        run = _load(VERBS[name].run)
    result = run(config)
    if text := str(result):
        print(text)
    return int(getattr(result, "exit_code", 0))


def _find_verb(arguments: list[str]) -> tuple[str, list[str]]:
    first = arguments[0]
    pair = " ".join(arguments[:2])
    if pair in VERBS:
        return pair, arguments[2:]
    if first in VERBS:
        return first, arguments[1:]
    family = [name for name in VERBS if name.startswith(f"{first} ")]
    if family and all(argument in ("-h", "--help") for argument in arguments[1:]):
        return first, []
    raise _unknown_verb(pair if family else first, family or [n.split()[0] for n in VERBS])


def _unknown_verb(name: str, known: list[str]) -> Exception:
    from contentv.base.errors import UserError

    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(dict.fromkeys(known))}"
    return UserError(f"{name}: no such verb; {hint}")


def _overview(family: str = "") -> str:
    shown = {name: verb for name, verb in VERBS.items() if name.startswith(family)}
    width = max(len(name) for name in shown)
    lines = [f"  {name:<{width}}  {verb.summary}" for name, verb in shown.items()]
    return "\n".join(
        [
            f"usage: contentv {family or 'VERB'} ...",
            "",
            *lines,
            "",
            "`contentv VERB --help` explains a verb. `--debug` adds the traceback to an error,",
            "`--version` says which version this is.",
        ]
    )


def _load(address: str) -> Any:  # noqa: ANN401 - a function or a class
    module, name = address.split(":")
    return getattr(importlib.import_module(module), name)


def _parse(verb: Verb, program: str, arguments: list[str]) -> "Config":
    """Read the flags with tyro into plain values, and let the configuration judge them."""
    import tyro
    from pydantic import ValidationError

    from contentv.base.config import describe_validation_error
    from contentv.base.errors import UserError

    cls: type[Config] = _load(verb.config)
    fields = [_form_field(name, field) for name, field in cls.model_fields.items()]
    form = dataclasses.make_dataclass(cls.__name__, fields)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            values: object = tyro.cli(
                form,
                prog=program,
                description=inspect.cleandoc(cls.__doc__ or verb.summary),
                args=arguments,
                config=(tyro.conf.FlagCreatePairsOff,),
            )
        return cls.model_validate(vars(values))
    except SystemExit as stop:
        if not stop.code:
            raise
        raise UserError(_content_of_box(said.getvalue())) from None
    except ValidationError as error:
        raise UserError(describe_validation_error(error)) from error


def _form_field(name: str, field: "FieldInfo") -> tuple[str, Any, Any]:
    # Numbers and choices stay text in the form: one place, the configuration, words all faults.
    import tyro

    from contentv.base.config import Argument

    hints = next((item for item in field.metadata if isinstance(item, Argument)), Argument())
    kinds = _kinds(field)
    text = any(kind in (int, float) or get_origin(kind) is Literal for kind in kinds)
    required = field.is_required()
    default = None if required else field.get_default(call_default_factory=True)
    who = "" if default in (None, ()) else None  # None: tyro shows the default itself
    flag = tyro.conf.arg(
        name=hints.flag,
        metavar=hints.metavar or _metavar(kinds),
        help=field.description,
        help_behavior_hint=f"(default: {hints.default})" if hints.default else who,
    )
    markers = (flag, tyro.conf.Positional) if hints.positional else (flag,)
    annotation = Annotated[(str | None if text else field.annotation, *markers)]  # type: ignore[valid-type]
    if required:
        return name, annotation, dataclasses.field(kw_only=True)
    default = str(default) if text and default is not None else default
    return name, annotation, dataclasses.field(default_factory=lambda: default, kw_only=True)


def _kinds(field: "FieldInfo") -> list[Any]:
    """The alternatives of a field's type, None left out."""
    union = get_origin(field.annotation) in (Union, UnionType)
    kinds = get_args(field.annotation) if union else (field.annotation,)
    return [kind for kind in kinds if kind is not type(None)]


def _metavar(kinds: list[Any]) -> str | None:
    """What stands for the value in the help; None leaves it to tyro."""
    if get_origin(kinds[0]) is Literal:
        return f"{{{','.join(get_args(kinds[0]))}}}"
    return _METAVARS.get(kinds[0])


def _explain(error: BaseException) -> tuple[int, str]:
    """Give the exit code and what to say."""
    from contentv.base.errors import ContentVError
    from contentv.base.files import describe_os_error

    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 0, ""
    if any(isinstance(link, KeyboardInterrupt) for link in _chain(error)):
        return INTERRUPTED, _STOPPED
    if isinstance(error, ContentVError):
        return error.exit_code, str(error)
    match error:
        case BrokenPipeError():  # the reader of our output has seen enough
            message = ""
        case MemoryError():
            message = "not enough memory; ask for fewer frames, a smaller size or a smaller batch"
        case OSError():
            message = f"{error.filename or 'the system'}: {describe_os_error(error)}"
        case _:
            kind = type(error).__name__
            message = f"unexpected {kind}: {error} (a fault of ours; `--debug` shows where)"
    return 1, message


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    # A library may turn the KeyboardInterrupt that hits it while it is imported into its own error.
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _terminate(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    sys.exit(_TERMINATED)


def _content_of_box(text: str) -> str:
    """Give the first paragraph inside the frame that tyro draws around an error."""
    lines = [line.strip("│ ") for line in text.splitlines()[1:]]
    end = next((i for i, line in enumerate(lines) if line.startswith(("─", "╰", "Got errors"))), 0)
    return " ".join(" ".join(lines[:end]).split()) or text


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))


if __name__ == "__main__":
    sys.exit(program())
