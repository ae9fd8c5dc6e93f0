"""What the verbs that apply policies can be told. Imports nothing heavy."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from contentv.base.config import Argument, Config

_POLICY = "a built-in policy by its name, or a .yaml file"
_CLIP = "its id, or the beginning of it"


class CatalogueConfig(Config):
    """Which catalogue a question is about."""

    catalogue: Path = Field(Path("curated"), description="folder that `curate run` wrote")


class PolicyConfig(CatalogueConfig):
    """A question about a policy's decisions."""

    policy: str = Field("pretraining", description=_POLICY)


class SelectConfig(PolicyConfig):
    """Apply a policy to all clips: write which are kept, and why the others are not.

    Only the scores of the catalogue are read, so that this takes seconds. The decisions of each
    policy stand in a file of their own, with the policy beside it.
    """


class ExplainConfig(PolicyConfig):
    """Say all about one clip: every rule with its value, threshold and margin, and every score."""

    clip: Annotated[str, Argument(positional=True, metavar="CLIP")] = Field(
        min_length=1, description=_CLIP
    )


class FunnelConfig(PolicyConfig):
    """Count, rule by rule, the clips that are lost, and those that no other rule would lose."""


class WhatIfConfig(PolicyConfig):
    """Count what would be kept if a policy were changed, and which rules would lose the rest."""

    changes: Annotated[tuple[str, ...], Argument(flag="set", metavar="NAME=VALUE ...")] = Field(
        min_length=1,
        description="such as static.min=0.01, blur=off (no such rule), top.share=0.2, "
        "bucket.fps=16 or text.missing=pass",
    )
    show: int = Field(5, ge=0, le=1000, description="clips to name that change sides")


class DiffConfig(CatalogueConfig):
    """Compare what two policies keep."""

    first: Annotated[str, Argument(positional=True, metavar="A")] = Field(description=_POLICY)
    second: Annotated[str, Argument(positional=True, metavar="B")] = Field(description=_POLICY)
    show: int = Field(5, ge=0, le=1000, description="clips to name that change sides")


class ReportConfig(PolicyConfig):
    """Write one page about a policy: histograms, funnel, border-line clips, sources, failures.

    It is a single file without scripts: the pictures are in it.
    """

    thumbnails: int = Field(24, ge=0, le=200, description="border-line clips to show of each rule")
    out: Annotated[Path | None, Argument(default="CATALOGUE/report-POLICY.html")] = Field(
        None, description="file to write"
    )
