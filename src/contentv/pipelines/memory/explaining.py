"""`--explain-memory`: what a video needs in every mode, as a table for people."""

from dataclasses import dataclass, replace

from contentv.pipelines.config import Quantization
from contentv.pipelines.memory.choosing import Limits, MemoryPlan, can_be_lazy, plans
from contentv.pipelines.memory.predicting import (
    GIB,
    HOST_OVERHEAD,
    OVERHEAD,
    Call,
    gib,
    predict_all,
)
from contentv.pipelines.memory.sizes import ModelSizes

# Memory of graphics cards that are sold, GB.
_CARDS = (4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 141, 192, 288)


@dataclass(frozen=True)
class MemoryTable:
    """Modes of some calls with what they need.

    `chosen` is the one for the limits asked for, or says why there is none; nothing asked: "".
    """

    model: str
    sizes: ModelSizes
    calls: tuple[Call, ...]
    limits: Limits
    quantization: Quantization | None
    chosen: MemoryPlan | str

    def __str__(self) -> str:
        alone = self.limits.vram is None
        # Without a kind to show it is int8, which most devices compute.
        kind = self.quantization or "int8"
        listed = plans(self.sizes, self.calls, self.limits, quantization=kind, lazy=(alone, False))
        lines = [self._head(), "", *(_columns(alone=alone), *(self._row(plan) for plan in listed))]
        return "\n".join([*lines, *(["", str(self.chosen)] if self.chosen else [])])

    def _head(self) -> str:
        videos = {
            f"{call.videos} x {call.video.frames} frames of {call.video.height} x "
            f"{call.video.width}, {call.text_tokens} text tokens, {8 * call.itemsize} bit"
            for call in self.calls
        }
        where = "in main memory" if self.limits.vram is None else "on the card"
        rest = (
            f"the program itself takes {gib(HOST_OVERHEAD)} more"
            if self.limits.vram is None
            else f"a card needs {gib(OVERHEAD)} more, main memory {gib(HOST_OVERHEAD)} "
            "more than the parts (both included below)"
        )
        return "\n".join([self.model, *sorted(videos), f"GiB {where} in each act; {rest}"])

    def _row(self, plan: MemoryPlan) -> str:
        found, mode = plan.prediction, plan.mode
        acts = "".join(f"{gib(act):>8}" for act in (found.text, found.denoise, found.decode))
        mark = " <-" if self._is_chosen(plan) else ""
        if self.limits.vram is None:
            return f"{acts}{gib(found.alone):>8}  {mode}{mark}"
        lazy = replace(mode, lazy=True)
        from_disk = (
            gib(predict_all(self.sizes, self.calls, lazy).host) if can_be_lazy(mode) else "-"
        )
        card = next((f"{size}" for size in _CARDS if size * GIB >= found.card), "-")
        peak = f"{gib(found.peak):>8}{card:>7}"
        return f"{acts}{peak}{gib(found.host):>8}{from_disk:>11}  {mode}{mark}"

    def _is_chosen(self, plan: MemoryPlan) -> bool:
        if isinstance(self.chosen, str):
            return False
        # With a card, parts from disk are no row of their own but a column.
        lazy = plan.mode.lazy if self.limits.vram is None else self.chosen.mode.lazy
        return self.chosen.mode == replace(plan.mode, lazy=lazy)


def _columns(*, alone: bool) -> str:
    acts = f"{'text':>8}{'denoise':>8}{'decode':>8}"
    if alone:
        return f"{acts}{'needs':>8}  mode"
    return f"{acts}{'peak':>8}{'card':>7}{'host':>8}{'from disk':>11}  mode"
