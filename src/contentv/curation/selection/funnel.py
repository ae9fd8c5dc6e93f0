"""Where clips are lost: rule by rule, in the policy's order."""

from dataclasses import dataclass

from contentv.curation.database import Database
from contentv.curation.selection.policy import load_policy
from contentv.curation.selection.questions import FunnelConfig
from contentv.curation.selection.select import Selection, catalogue, decide


@dataclass(frozen=True)
class Loss:
    """What a rule does to the clips that reach it.

    `lost` are those whose first reason it is. Of all clips that it was asked about, `any` are lost
    by it, and `alone` by no other rule. `top` and the quota are asked about what passes the rules.
    """

    rule: str
    lost: int
    any: int
    alone: int


@dataclass(frozen=True)
class Funnel:
    """All losses of a policy in order: `total` less every `lost` is `kept`."""

    policy: str
    total: int
    kept: int
    losses: tuple[Loss, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        width = max(len("all clips"), *(len(loss.rule) for loss in self.losses))
        lines = [f"{self.policy}: keeps {self.kept} of {self.total} clips", ""]
        lines += [f"{'rule':<{width}} {'lost':>10} {'left':>10} {'by it at all':>13} {'alone':>10}"]
        left = self.total
        lines.append(f"{'all clips':<{width}} {'':>10} {left:>10}")
        for loss in self.losses:
            left -= loss.lost
            numbers = f"{loss.lost:>10} {left:>10} {loss.any:>13} {loss.alone:>10}"
            lines.append(f"{loss.rule:<{width}} {numbers}")
        return "\n".join([*lines, *self.notes])


def run(config: FunnelConfig) -> Funnel:
    """Apply a policy and count its losses; nothing is written."""
    policy = load_policy(config.policy)
    with catalogue(config.catalogue) as database:
        return funnel(database, decide(database, policy, "chosen"))


def funnel(database: Database, chosen: Selection) -> Funnel:
    """Count the losses of a selection."""
    counts = [
        f"count(*) FILTER (first = {i}) AS first_{i}, count(*) FILTER (lost_{i}) AS any_{i}, "
        f"count(*) FILTER (lost_{i} AND losses = 1) AS alone_{i}"
        for i in range(len(chosen.checks))
    ]
    (row,) = database.rows(f"SELECT {', '.join(['1', *counts])} FROM {chosen.table}")  # noqa: S608
    losses = tuple(
        Loss(check.rule, row[f"first_{i}"], row[f"any_{i}"], row[f"alone_{i}"])
        for i, check in enumerate(chosen.checks)
    )
    notes = tuple(chosen.best.lines()) if chosen.best else ()
    return Funnel(chosen.policy.name, chosen.total, chosen.kept, losses, notes)
