"""The fastest exact way to denoise on this machine, found by trying with the loaded weights.

What is tried differs by rounding only: attention back-ends, guidance passes one by one or together,
weights in the CPU's order, compiled blocks. Each is a row of the report, those that do not run here
with the reason.
"""

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from contentv.base.allocator import keep_freed_memory
from contentv.base.errors import UserError
from contentv.models.attention import usable_backends
from contentv.models.packing import can_pack, pack, unpack
from contentv.models.transformer import ContentVTransformer3DModel
from contentv.pipelines.speed.guidance import PASSES, Inputs, Predict
from contentv.pipelines.speed.tuned import (
    Trial,
    TuningReport,
    Way,
    conditions_of,
    fastest,
    recall,
    remember,
)

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 4e-3}
"""Largest |difference| of the two velocities from the plain way's, over their norm, by dtype."""

PLAIN = Way(backend="native", passes="sequential", layers="plain")

# Attention by plain products keeps all scores. Where memory is overcommitted, asking for too much
# ends the process, not the trial.
_LARGEST_SCORES = 2**30

# Short steps are timed until this long has passed: other programs disturb them.
_LEAST_SECONDS = 1.0

# A way this many times slower than the fastest is not timed again.
_HOPELESS = 1.5


def tune(
    transformer: ContentVTransformer3DModel,
    predict: Predict,
    *,
    device: torch.device,
    latents: tuple[int, ...],
    text_tokens: int,
    repeats: int,
    may_compile: bool,
    file: Path | None,
) -> TuningReport:
    """Tries, chooses and applies; or applies what `file` says about the same conditions.

    Raises:
        UserError: the transformer is compiled already or has a step cache, or `file` holds
            something else.
    """
    _check_plain(transformer)
    if device.type == "cpu":
        keep_freed_memory()
    now = conditions_of(
        transformer, device, latents=latents, text_tokens=text_tokens, compiling=may_compile
    )
    known = None if file is None else recall(file, now)
    if known is not None:
        apply_way(transformer, known.chosen)
        return known
    inputs = example_inputs(transformer, device, latents, text_tokens)
    tuner = Tuner(transformer, predict, inputs, repeats)
    try:
        tuner.search(may_compile=may_compile)
    finally:
        apply_way(transformer, tuner.best)
    report = TuningReport(conditions=now, trials=tuple(tuner.trials))
    if file is not None:
        remember(file, report)
    return report


class Tuner:
    """Tries ways to compute the two passes of a guided step; the last way tried stays applied."""

    def __init__(
        self,
        transformer: ContentVTransformer3DModel,
        predict: Predict,
        inputs: tuple[Inputs, Inputs],
        repeats: int,
    ) -> None:
        self._transformer = transformer
        self._predict = predict
        self._inputs = inputs
        self._repeats = repeats
        self._expected: Tensor | None = None
        self._least = math.inf  # seconds of the fastest step so far
        self.trials: list[Trial] = []

    def search(self, *, may_compile: bool) -> None:
        """The plain way first, then one choice after another, each beside the best so far."""
        self.try_way(PLAIN)
        # Flex attention without compilation keeps all scores, as plain products do.
        names = [name for name in usable_backends(exact=True) if name not in ("native", "flex")]
        for name in names:
            self.try_way(PLAIN.model_copy(update={"backend": name}))
        if self._inputs[0].latents.device.type == "cpu" and can_pack(self._transformer):
            self.try_way(self.best.model_copy(update={"layers": "packed"}))
        self.try_way(self.best.model_copy(update={"passes": "batched"}))
        if may_compile:
            self.try_way(self.best.model_copy(update={"layers": "compiled"}))

    @property
    def best(self) -> Way:
        """The fastest way so far."""
        return fastest(tuple(self.trials)) if self.trials else PLAIN

    def try_way(self, way: Way) -> None:
        """Adds a row for `way` to the trials."""
        reason = self._obstacle(way)
        if reason is not None:
            self.trials.append(Trial(way=way, obstacle=reason))
            return
        try:
            apply_way(self._transformer, way)
            velocities, seconds = self._measure(way)
        except (RuntimeError, NotImplementedError, TypeError, ValueError) as error:
            if way == PLAIN:
                raise
            reason = " ".join(str(error).split())[:100] or type(error).__name__
            self.trials.append(Trial(way=way, obstacle=f"does not run: {reason}"))
            return
        if self._expected is None:
            self._expected = velocities
        difference = float((velocities - self._expected).norm() / self._expected.norm())
        limit = TOLERANCES.get(self._transformer.dtype, 1e-4)
        self.trials.append(
            Trial(
                way=way,
                seconds=seconds,
                difference=difference if math.isfinite(difference) else None,
                obstacle="" if difference <= limit else f"differs by more than {limit:g}",
            )
        )

    def _obstacle(self, way: Way) -> str | None:
        latents, text = self._inputs[0].latents, self._inputs[0].prompt_embeds
        patch = self._transformer.config.patch_size
        tokens = latents[0, 0].numel() // patch**2 + text.shape[1]
        heads = self._transformer.config.num_attention_heads
        scores = heads * tokens**2 * latents.element_size()
        if way.backend == "_native_math" and scores > _LARGEST_SCORES:
            return f"its scores would take {scores / 2**30:.0f} GiB"
        return None

    def _measure(self, way: Way) -> tuple[Tensor, float]:
        """Both velocities [2b c t h w] in float32, and the seconds of the fastest of some steps."""
        passes = PASSES[way.passes]
        velocities = torch.cat(passes(self._predict, *self._inputs)).float()  # compiles also

        def step() -> object:
            return passes(self._predict, *self._inputs)

        times: list[float] = []
        while sum(times) < _LEAST_SECONDS or len(times) < self._repeats:
            times.append(_seconds(step))
            if sum(times) >= _LEAST_SECONDS and min(times) > _HOPELESS * self._least:
                break
        self._least = min(self._least, *times)
        return velocities, min(times)


def apply_way(transformer: ContentVTransformer3DModel, way: Way) -> None:
    """Sets attention back-end and the form of the layers; the passes are the caller's."""
    transformer.set_attention_backend(way.backend)
    if way.layers == "packed":
        pack(transformer)
    else:
        unpack(transformer)
    if way.layers == "compiled":
        transformer.compile_repeated_blocks(fullgraph=True)
    else:
        for block in transformer.transformer_blocks:
            block._compiled_call_impl = None  # noqa: SLF001 - torch knows no other way back


def is_compiled(transformer: ContentVTransformer3DModel) -> bool:
    """Whether the blocks are compiled, or the whole."""
    modules = [transformer, *transformer.transformer_blocks]
    return any(module._compiled_call_impl is not None for module in modules)  # noqa: SLF001


def _check_plain(transformer: ContentVTransformer3DModel) -> None:
    if is_compiled(transformer):
        raise UserError(
            "tune: the transformer is compiled already, which would count for every way; load it "
            "anew, then tune with may_compile=True"
        )
    if transformer.is_cache_enabled:
        raise UserError(
            "tune: a step cache is on, and steps differ in what they leave out; tune first, then "
            "switch it on"
        )


def example_inputs(
    transformer: ContentVTransformer3DModel,
    device: torch.device,
    latents: tuple[int, ...],
    text_tokens: int,
) -> tuple[Inputs, Inputs]:
    """Random inputs of the two passes of one video: latents [c t h w] of this size."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(1, *shape, generator=generator).to(device, transformer.dtype)

    config = transformer.config
    noise, timestep = random(*latents), torch.full((1,), 500.0, device=device)
    cond, uncond = (
        Inputs(
            noise,
            timestep,
            random(text_tokens, config.joint_attention_dim),
            random(config.pooled_projection_dim),
        )
        for _ in range(2)
    )
    return cond, uncond


def _seconds(step: Callable[[], object]) -> float:
    """Seconds of one call, once all that was asked of an accelerator is done."""
    _wait()
    start = time.perf_counter()
    step()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
