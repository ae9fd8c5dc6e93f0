from pathlib import Path

import pytest

from contentv.pipelines.config import DoctorConfig
from contentv.pipelines.doctor import DoctorReport, Finding, run


def findings(report: DoctorReport, name: str) -> list[Finding]:
    return [finding for finding in report.findings if finding.name == name]


def test_what_works_here_is_listed() -> None:
    report = run(DoctorConfig())
    for name in ("python", "torch", "diffusers", "device", "video", "memory", "here", "hub cache"):
        assert findings(report, name), name
    for name in ("torch", "av", "video", "device"):
        assert findings(report, name)[0].state == "ok"


def test_a_faulty_model_is_a_fault_with_a_remedy(tmp_path: Path) -> None:
    report = run(DoctorConfig(model=str(tmp_path)))
    fault = findings(report, "model")[-1]
    assert (fault.state, report.exit_code) == ("FAULT", 1)
    assert "model_index.json" in fault.text
    assert run(DoctorConfig(model="no-such")).exit_code == 1


def test_an_old_or_missing_package_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    needed = {"torch": "99.0", "no_such_package": "1.0"}
    monkeypatch.setattr("contentv.pipelines.doctor._NEEDED", needed)
    report = run(DoctorConfig())
    (old,), (missing,) = findings(report, "torch"), findings(report, "no_such_package")
    assert (old.state, old.remedy) == ("FAULT", "pip install 'torch>=99.0'")
    assert missing.state == "FAULT"
    assert report.exit_code == 1


def test_a_broken_accelerator_library_is_a_note_not_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sageattention.py").write_text("raise OSError('libcuda.so.1: cannot open')")
    monkeypatch.syspath_prepend(tmp_path)
    note = next(f for f in findings(run(DoctorConfig()), "attention") if "sageattention" in f.text)
    assert note.state == "note"
    assert "installed but broken (libcuda.so.1: cannot open)" in note.text
    assert "pip uninstall sageattention" in note.remedy


def test_a_cache_that_cannot_be_written_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/proc/nowhere")
    (note,) = findings(run(DoctorConfig()), "hub cache")
    assert (note.state, note.remedy) == ("note", "HF_HOME names another folder")


def test_the_report_reads_line_by_line() -> None:
    report = DoctorReport((Finding("ok", "a", "fine"), Finding("FAULT", "b", "bad", "mend it")))
    assert str(report).splitlines() == [
        "ok    a             fine",
        "FAULT b             bad",
        "                    -> mend it",
    ]
    assert report.exit_code == 1
    assert DoctorReport((Finding("note", "a", "x"),)).exit_code == 0
