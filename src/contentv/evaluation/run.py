"""`contentv evaluate`: a model in, a report out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from contentv.base.files import atomic_path
from contentv.evaluation.config import EvaluateConfig
from contentv.evaluation.report import Report, build_model_report, build_report
from contentv.pipelines.batches import Plan, make_plan
from contentv.pipelines.config import GenerateConfig
from contentv.pipelines.jobs import slug

if TYPE_CHECKING:
    from contentv.evaluation.measure import Measured

_GALLERY = 24
_SAMPLES = 60


def run(config: EvaluateConfig) -> Report:
    """Measure one model, or two on the same questions, and write report.json, .md and .html."""
    names = [config.model, *([] if config.compare is None else [config.compare])]
    plans = [_plan(name, config) for name in names]
    out = config.out or Path(f"{config.suite}_{slug(Path(config.model).name)}")
    # Only here: what is wrong with the request is said before seconds of imports.
    from contentv.evaluation.measure import measure

    measured = [measure(config, *pair, out) for pair in zip(names, plans, strict=True)]
    sheets = [_write_sheets(result) for result in measured]
    report = build_report(
        [build_model_report(m.name, m.sha256, m.settings, m.rows) for m in measured],
        [result.rows for result in measured],
        suite=config.suite,
        seed=config.seed,
        place=str(out / "report.html"),
    )
    write_report(report, sheets, out)
    return report


def write_report(report: Report, sheets: Sequence[Sequence[Path]], out: Path) -> None:
    """Write a report in its three forms; `sheets` are the pictures of each model, under `out`."""
    from contentv.evaluation.render import to_html, to_markdown

    texts = {
        "json": report.model_dump_json(indent=2) + "\n",
        "md": to_markdown(report, sheets, beside=out),
        "html": to_html(report, sheets),
    }
    for suffix, text in texts.items():
        with atomic_path(out / f"report.{suffix}") as part:
            part.write_text(text, encoding="utf-8")


def _plan(name: str, config: EvaluateConfig) -> Plan:
    """Plan one video as `contentv generate` would: all others are made with its settings."""
    return make_plan(
        GenerateConfig(
            prompt="any",
            model=name,
            num_inference_steps=config.num_inference_steps,
            guidance_scale=config.guidance_scale,
            flow_shift=config.flow_shift,
            speed=config.speed,
            device=config.device,
            dtype=config.dtype,
            offline=config.offline,
        )
    )


def _write_sheets(measured: "Measured") -> list[Path]:
    """Draw the first clips whatever they are, and the worst ones if any is wrong."""
    from contentv.evaluation.sheet import Cell, write_sheet

    wrong = [row for row in measured.rows if not row.all_right]
    worst = sorted(wrong, key=lambda row: sum(row.right.values()) / len(row.right))
    sheets = []
    for name, rows in (("samples", measured.rows[:_SAMPLES]), ("failures", worst[:_GALLERY])):
        store = measured.store
        cells = [Cell(store.strip(r.name), r.prompt, r.fault or r.mistakes) for r in rows]
        if cells:
            sheets.append(write_sheet(store.folder / f"{name}.png", cells))
    return sheets
