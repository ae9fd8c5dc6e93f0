"""Policies over small catalogues, and what comes of them."""

import json
from pathlib import Path
from typing import Any

from contentv.curation.database import opened
from contentv.curation.selection.policy import Policy
from contentv.curation.selection.select import catalogue, decide, decisions

SCORES = {"blur_p50": 100.0, "motion": 1.0, "motion_weighted": 1.0, "aes": 10.0}
RULES = [
    {"rule": "duplicate", "column": "dup_of", "equals": "", "missing": "pass"},
    {"rule": "text", "column": "crop_fault", "equals": ""},
    {"rule": "blur", "column": "blur_p50", "min": 15},
    {"rule": "speed", "column": "motion", "min": 0.05, "max": 0.8, "kind": "video"},
]


def policy_of(**content: object) -> Policy:
    return Policy.model_validate({"name": "mine", "rules": RULES, **content})


def decided(folder: Path, policy: Policy) -> list[dict[str, Any]]:
    with catalogue(folder) as database:
        return database.rows(decisions(decide(database, policy, "chosen")))


def clips_of(folder: Path) -> list[dict[str, Any]]:
    with opened({"clips": folder / "clips.parquet"}) as database:
        return database.rows("SELECT * FROM clips ORDER BY clip_id")


WHOLE = {
    "kind": "video",
    "bucket": {"areas": [82944], "frames": [1, 29, 53, 77, 101, 125]},
    "top": {"columns": ["aes", "motion_weighted"], "share": 0.5},
    "quota": {"most": 1},
}


def written(folder: Path, policy: Policy) -> Path:
    path = folder / "policy.yaml"
    path.write_text(json.dumps(policy.model_dump(mode="json")), encoding="utf-8")
    return path
