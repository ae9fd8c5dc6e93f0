"""`contentv plan`: what a training needs on a cluster, as a table and as JSON."""

from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from contentv.base.config import load_yaml
from contentv.base.errors import UserError
from contentv.base.files import read_json, write_json
from contentv.models.cost import TransformerSize, lora_parameters, num_parameters
from contentv.planning.config import PlanConfig, PlanRecipe
from contentv.planning.devices import Device, find_device
from contentv.planning.memory import GIB, Memory
from contentv.planning.search import BucketResult, Job, StageResult, plan_stage

_PARTS = (
    *("parameters", "gradients", "optimizer", "ema", "gathered"),
    *("activations", "working", "exchange"),
)


@dataclass(frozen=True)
class PlanResult:
    """A planned training; its text is the table that the command prints."""

    recipe: PlanRecipe
    device: Device
    size: TransformerSize
    stages: tuple[StageResult, ...]

    @property
    def hours(self) -> float:
        """Hours of all stages."""
        return sum(stage.hours for stage in self.stages)

    def cost(self, hours: float) -> float | None:
        """What the cluster costs for so long, in the currency of the price; None without one."""
        price = self.recipe.price
        return None if price is None else hours * self.recipe.count * price

    def to_json(self) -> dict[str, Any]:
        """Everything that was assumed and computed, as plain data."""
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "device": asdict(self.device),
            "parameters": num_parameters(self.size),
            "stages": [self._stage_json(stage) for stage in self.stages],
            "hours": self.hours,
            "device_hours": self.hours * self.recipe.count,
            "cost": self.cost(self.hours),
        }

    def _stage_json(self, result: StageResult) -> dict[str, Any]:
        return {
            "name": result.stage.name,
            "layout": result.layout.model_dump(mode="json"),
            "recompute": result.recompute.model_dump(mode="json"),
            "step_seconds": result.step_seconds,
            "step_flops": result.step_flops,
            "mfu": result.mfu,
            "hours": result.hours,
            "cost": self.cost(result.hours),
            "buckets": [_bucket_json(bucket) for bucket in result.buckets],
        }

    def __str__(self) -> str:
        parts = [self._head(), *(self._stage_text(stage) for stage in self.stages)]
        if len(self.stages) > 1:
            parts.append(f"all stages: {self._time_and_cost(self.hours)}")
        return "\n\n".join(parts)

    def _head(self) -> str:
        recipe, method, device = self.recipe, self.recipe.method, self.device
        total = trained = num_parameters(self.size)
        if method.name == "lora":
            trained = lora_parameters(self.size, method.rank)
        usable = device.memory_gib * (1 - recipe.reserve)
        memory = f"{device.memory_gib:g} GiB ({usable:.1f} usable)"
        weights = f"{total / 1e9:.2f} billion parameters, {trained / 1e9:.3g} billion trained"
        return (
            f"{recipe.title}\n"
            f"{recipe.count} x {device.title}: {device.peak_tflops:g} TFLOP/s, {memory}\n"
            f"{weights} ({method.name}); MFU {recipe.mfu:.0%} assumed; nothing here was measured"
        )

    def _stage_text(self, result: StageResult) -> str:
        stage, layout, recompute = result.stage, result.layout, result.recompute
        every = f", one of {recompute.every} blocks" if recompute.every > 1 else ""
        degrees = f"replicate {layout.replicate} x shard {layout.shard} x sp {layout.sp}"
        columns = f"{'bucket':<14}{'share':>6}{'tokens':>8}{'at once':>9}{'rounds':>8}"
        work = f"{result.step_flops / 1e15:.1f} PFLOP, resulting MFU {result.mfu:.0%}"
        title = f"{stage.name}: {stage.steps} steps of {stage.batch} samples"
        lines = [
            f"{title}, {stage.text_tokens} text tokens",
            f"  layout     {degrees} x tp {layout.tp}, recompute {recompute.mode}{every}",
            f"  step       {result.step_seconds:.1f} s, {work}",
            f"  stage      {self._time_and_cost(result.hours)}",
            f"  {columns}{'TFLOP':>9}{'s/step':>8}{'GiB':>7}",
            *(_bucket_text(bucket) for bucket in result.buckets),
            f"  memory of the fullest bucket, GiB: {_memory_text(result.fullest.memory)}",
        ]
        return "\n".join(lines)

    def _time_and_cost(self, hours: float) -> str:
        text = (
            f"{hours:.1f} h ({hours / 24:.1f} days), {hours * self.recipe.count:.0f} device-hours"
        )
        cost = self.cost(hours)
        return text if cost is None else f"{text}, {cost:.0f} at {self.recipe.price:g} an hour"


def run(config: PlanConfig) -> PlanResult:
    """Plan every stage; with `out`, write the plan as JSON.

    Raises:
        UserError: no such plan, a stage that does not fit, a layout that does not divide.
    """
    recipe = _with_flags(_load(config.plan), config)
    device = find_device(recipe.device)
    if recipe.memory_gib is not None:
        device = replace(device, memory_gib=recipe.memory_gib)
    job = Job(
        size=_model_size(recipe.model),
        method=recipe.method,
        device=device,
        count=recipe.count,
        usable=device.memory_gib * (1 - recipe.reserve) * GIB,
        mfu=recipe.mfu,
    )
    stages = tuple(plan_stage(job, stage) for stage in recipe.stages)
    result = PlanResult(recipe, device, job.size, stages)
    if config.out is not None:
        write_json(config.out, result.to_json())
    return result


def shipped_plans() -> dict[str, Path]:
    """The plans that come with the package, by name."""
    folder = Path(str(files("contentv.planning"))) / "plans"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def _load(plan: str) -> PlanRecipe:
    shipped = shipped_plans()
    path = shipped.get(plan, Path(plan))
    if plan not in shipped and not path.is_file():
        raise UserError(f"plan={plan}: no such file or plan; shipped are {', '.join(shipped)}")
    return load_yaml(PlanRecipe, path)


def _with_flags(recipe: PlanRecipe, config: PlanConfig) -> PlanRecipe:
    given = config.model_dump(exclude={"plan", "out"}, exclude_none=True)
    return recipe.model_copy(update=given)


def _model_size(model: str) -> TransformerSize:
    if model == "8b":
        return TransformerSize()
    config = read_json(Path(model))
    if not isinstance(config, dict):
        raise UserError(f"model={model}: not a transformer's config; name its config.json")
    return TransformerSize.of(config)


def _bucket_text(result: BucketResult) -> str:
    bucket = result.bucket
    shape = f"{bucket.frames}x{bucket.height}x{bucket.width}"
    return (
        f"  {shape:<14}{bucket.share:>6.0%}{result.tokens:>8}{result.samples:>9}{result.rounds:>8}"
        f"{result.sample_flops / 1e12:>9.1f}{result.seconds:>8.1f}{result.memory.peak / GIB:>7.1f}"
    )


def _memory_text(memory: Memory) -> str:
    parts = ", ".join(f"{name} {getattr(memory, name) / GIB:.1f}" for name in _PARTS)
    return f"{memory.peak / GIB:.1f}\n    {parts}"


def _bucket_json(result: BucketResult) -> dict[str, Any]:
    return {
        **result.bucket.model_dump(mode="json"),
        "video_tokens": result.tokens,
        "samples_at_once": result.samples,
        "rounds": result.rounds,
        "sample_flops": result.sample_flops,
        "step_seconds": result.seconds,
        "peak_bytes": result.memory.peak,
        "memory_bytes": {name: getattr(result.memory, name) for name in _PARTS},
    }
