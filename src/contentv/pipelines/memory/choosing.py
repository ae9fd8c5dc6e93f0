"""Which mode a video is made in: the fastest that fits, decided before anything is loaded."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import inf, isfinite

from contentv.base.errors import UserError
from contentv.models.memory import chunk_tokens
from contentv.pipelines.config import Decoding, Quantization
from contentv.pipelines.memory.modes import Mode, modes, modes_alone, quantized_modes
from contentv.pipelines.memory.predicting import (
    GIB,
    HOST_OVERHEAD,
    OVERHEAD,
    Call,
    Prediction,
    gib,
    predict_all,
)
from contentv.pipelines.memory.sizes import ModelSizes

_DECODED: dict[Decoding, str] = {
    "float32": "",
    "bfloat16": "decoding rounds to bfloat16",
    "tiles": "tiles of the picture are blended where they meet",
}
_SMALLER = "ask for fewer frames or a smaller size"


@dataclass(frozen=True)
class Limits:
    """GiB that may be used of the card and of the host; no card: `vram` is None, no limit: inf."""

    vram: float | None
    host: float = inf

    def __post_init__(self) -> None:
        for name, limit in (("vram", self.vram), ("host", self.host)):
            if limit is not None and not limit > 0:
                raise UserError(f"{name}={limit:g}: must be a number of GB above 0")


def limits_within(vram: float | None, host: float | None, card: float | None) -> Limits:
    """What was asked for, on a machine whose card has `card` GiB; None: it has no card.

    Nothing asked for is the whole card, and any amount of main memory.

    Raises:
        UserError: a limit that is not above 0, or more than the card has.
    """
    limits = Limits(card if vram is None else vram, inf if host is None else host)
    if card is None:
        return replace(limits, vram=None)
    # Cards are named by round numbers, of which their drivers keep a little.
    if vram is not None and vram * 0.9 > card:
        raise UserError(f"vram={vram:g}: this machine's card has {card:.1f} GiB; ask for less")
    return limits


@dataclass(frozen=True)
class MemoryPlan:
    """A mode and what it is predicted to need; prints as a few lines.

    `chunk` tokens go through a feed-forward at a time, None: all.
    """

    mode: Mode
    prediction: Prediction
    limits: Limits
    chunk: int | None

    def __str__(self) -> str:
        return "\n".join([f"memory: {self.mode}", f"  {self._peak()}", f"  {self._results()}"])

    def _peak(self) -> str:
        found, limits = self.prediction, self.limits
        acts = (
            f"text {gib(found.text)}, denoising {gib(found.denoise)}, "
            f"decoding {gib(found.decode)} GiB"
        )
        if limits.vram is None:
            whole = f"with {gib(HOST_OVERHEAD)} for the program {gib(found.alone)}"
            return f"no card here; predicted in main memory: {acts}; {whole}{_of(limits.host)}"
        whole = f"with {gib(OVERHEAD)} for the device {gib(found.card)}{_of(limits.vram)}"
        return f"predicted on the card: {acts}; {whole}; host {gib(found.host)}{_of(limits.host)}"

    def _results(self) -> str:
        """What the mode does to the video."""
        mode = self.mode
        if mode.exact:
            return "the model's own weights and decoding: videos differ by rounding only"
        changes = [
            "" if mode.quantization is None else f"weights are rounded to {mode.quantization}",
            _DECODED[mode.decoding],
        ]
        return f"not exact: {', '.join(change for change in changes if change)}"


def choose(
    sizes: ModelSizes,
    calls: Sequence[Call],
    limits: Limits,
    *,
    quantization: Quantization | None = None,
    lazy: Collection[bool] = (False, True),
) -> MemoryPlan:
    """The first mode in the order of preference in which all `calls` fit.

    `quantization` is the kind of rounded weights that is allowed where exact ones do not fit.
    `lazy` says whether parts can be read from disk when they are needed.

    Raises:
        UserError: nothing fits; it names the least that would.
    """
    candidates = list(plans(sizes, calls, limits, quantization=quantization, lazy=lazy))
    for plan in candidates:
        if _fits(plan):
            return plan
    raise UserError(_refusal(candidates, limits, quantization))


def plans(
    sizes: ModelSizes,
    calls: Sequence[Call],
    limits: Limits,
    *,
    quantization: Quantization | None = None,
    lazy: Collection[bool] = (False, True),
) -> Iterable[MemoryPlan]:
    """All modes with their predictions, in the order of preference, whether they fit or not."""
    alone = limits.vram is None
    chunk = max(chunk_tokens(sizes.transformer, call.latent) for call in calls)
    listed = _listed(sizes, quantization, alone=alone)
    for mode in listed if alone else _then_lazy(listed):
        if mode.lazy in lazy:
            found = predict_all(sizes, calls, mode)
            yield MemoryPlan(mode, found, limits, chunk if mode.chunked else None)


def can_be_lazy(mode: Mode) -> bool:
    """Whether parts may come from disk: such parts are not taken apart into single layers."""
    return mode.offload != "sequential"


def _then_lazy(listed: Iterable[Mode]) -> Iterator[Mode]:
    """What gives the same videos with parts in main memory first, then with parts from disk."""
    for _, alike in groupby(listed, key=lambda mode: (mode.decoding, mode.quantization)):
        modes_alike = list(alike)
        yield from modes_alike
        yield from (replace(mode, lazy=True) for mode in modes_alike if can_be_lazy(mode))


def _listed(sizes: ModelSizes, quantization: Quantization | None, *, alone: bool) -> Iterable[Mode]:
    if sizes.kind is None:
        return modes_alone(quantization) if alone else modes(quantization)
    # Rounded weights stay so, and are not streamed block by block.
    listed = modes_alone(sizes.kind) if alone else quantized_modes(sizes.kind)
    return [mode for mode in listed if mode.quantization is not None]


def _fits(plan: MemoryPlan) -> bool:
    found, limits = plan.prediction, plan.limits
    if limits.vram is None:
        return found.alone <= limits.host * GIB
    return found.card <= limits.vram * GIB and found.host <= limits.host * GIB


def _refusal(
    candidates: list[MemoryPlan], limits: Limits, quantization: Quantization | None
) -> str:
    """One line: what is too small, the least that works, the way out."""
    way_out = _less_host(quantization, alone=limits.vram is None)
    if not any(plan.mode.lazy for plan in candidates):
        way_out = "open the pipeline with lazy=True, release=True: parts come from disk when needed"
    if limits.vram is None:
        least = min(candidates, key=lambda plan: plan.prediction.alone)
        return _too_small("host", limits.host, least.prediction.alone, least.mode, way_out)
    fitting = [plan for plan in candidates if plan.prediction.card <= limits.vram * GIB]
    if not fitting:
        least = min(candidates, key=lambda plan: plan.prediction.card)
        return _too_small("vram", limits.vram, least.prediction.card, least.mode, _SMALLER)
    least = min(fitting, key=lambda plan: plan.prediction.host)
    return _too_small("host", limits.host, least.prediction.host, least.mode, way_out)


def _less_host(quantization: Quantization | None, *, alone: bool) -> str:
    """What takes less main memory than weights of this kind."""
    if quantization is None:
        return "allow rounded weights (quantization=int8)"
    if alone:
        return _SMALLER
    half = quantization in ("int4", "nf4")
    return "use a machine with more" if half else "quantization=nf4 needs less"


def _too_small(name: str, limit: float, least: float, mode: Mode, way_out: str) -> str:
    return f"{name}={limit:g}: the least that works is {_up(least)} GiB ({mode}); {way_out}"


def _up(number: float) -> str:
    """Rounded up, so that whoever asks for it gets it."""
    return f"{-(-number * 10 // GIB) / 10:.1f}"


def _of(limit: float) -> str:
    return f" of {limit:g}" if isfinite(limit) else ""
