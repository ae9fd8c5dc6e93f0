"""What a server has to give, and which tickets it therefore refuses."""

from collections.abc import Callable
from dataclasses import dataclass

from contentv.data.batch import FeatureBatch
from contentv.encoding.admission import RefusedError
from contentv.encoding.wire import Ticket


@dataclass(frozen=True)
class Offer:
    """A stage whose batches are served: `batch_of` is a pure function of the ticket.

    Tickets of another plan, build or seed are refused, and steps and micro-batches that the stage
    does not have. It has `micro_batches` a step, over all groups.
    """

    plan: str
    build: str
    seed: int
    stage: str
    steps: int
    micro_batches: int
    batch_of: Callable[[Ticket], FeatureBatch]

    def check(self, ticket: Ticket) -> None:
        """Refuse a ticket that is not of this offer, with the reason."""
        for name in ("plan", "seed", "build"):
            ours, theirs = getattr(self, name), getattr(ticket, name)
            if ours != theirs:
                raise refused(f"{name}={theirs}: this server has {name} {ours} of {self.stage}")
        if ticket.step >= self.steps:
            raise refused(f"step={ticket.step}: {self.stage} has {self.steps} steps")
        if self.micro_batches % ticket.groups:
            raise refused(f"groups={ticket.groups}: must divide {self.micro_batches}")
        if ticket.micro_batch >= self.micro_batches // ticket.groups:
            raise refused(
                f"micro_batch={ticket.micro_batch}: each of {ticket.groups} groups has "
                f"{self.micro_batches // ticket.groups} a step"
            )


def refused(reason: str) -> RefusedError:
    """A refusal that asking again will not change."""
    return RefusedError("refused", reason)
