"""Which settings of a run changed since its checkpoint, and which of them may."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contentv.base.errors import UserError

# How a run is watched and stored: never a reason to refuse.
_FREE = ("log_every", "checkpoint_every", "validate_every", "keep")
# What keys the data, or decides which tensors there are: not even with --accept.
_FIXED = ("name", "seed", "optimizer.name")


def changed_settings(
    path: Path, before: Mapping[str, Any], now: Mapping[str, Any], *, accept: bool
) -> list[str]:
    """Say which settings changed, one text each; `path` is of the checkpoint.

    UserError when they touch data or network, or may be accepted and were not.
    """
    flat_before, flat_now = _flat(before), _flat(now)
    changed = {
        name: f"{name}={flat_before.get(name)}, now {flat_now.get(name)}"
        for name in sorted(flat_before.keys() | flat_now.keys())
        if name not in _FREE and flat_before.get(name) != flat_now.get(name)
    }
    if fixed := [text for name, text in changed.items() if name in _FIXED]:
        raise UserError(
            f"{path}: made with other data or another network ({', '.join(fixed)}); "
            "restore them or choose another --out"
        )
    if changed and not accept:
        raise UserError(
            f"{path}: made with other settings ({', '.join(changed.values())}); "
            "restore them, go on with --accept or choose another --out"
        )
    return list(changed.values())


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values under dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": leaf for inner, leaf in _flat(value).items()}
        else:
            flat[name] = value
    return flat
