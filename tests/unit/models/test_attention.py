import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

from builders import random_transformer
from contentv.base.errors import UserError
from contentv.models.attention import BACKENDS, find_backend, usable_backends


def test_every_name_is_one_of_diffusers() -> None:
    assert set(BACKENDS) <= {name.value for name in AttentionBackendName}
    registered = {AttentionBackendName(name).value for name in _AttentionBackendRegistry._backends}
    assert set(BACKENDS) <= registered


def test_a_back_end_changes_one_model_only() -> None:
    model, other = random_transformer(), random_transformer()
    active = _AttentionBackendRegistry.get_active_backend()
    model.set_attention_backend("_native_math")
    assert model.transformer_blocks[0].attn.processor._attention_backend == "_native_math"
    assert other.transformer_blocks[0].attn.processor._attention_backend is None
    assert _AttentionBackendRegistry.get_active_backend() == active


def test_native_is_everywhere_and_exact() -> None:
    assert {"native", "_native_math"} <= set(usable_backends(exact=True))
    assert not set(usable_backends(exact=True)) & set(usable_backends(exact=False))
    assert not any(BACKENDS[name].fetched for name in usable_backends(exact=True))


@pytest.mark.skipif(torch.accelerator.is_available(), reason="a CPU has few back-ends")
def test_a_cpu_has_no_approximate_back_end() -> None:
    assert usable_backends(exact=False) == []
    for name in ("sage", "_flash_3", "_native_npu", "flash_hub"):
        with pytest.raises(UserError, match=f"backend {name}: is for .* devices; this machine has"):
            find_backend(name)


def test_what_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with the right device, but without the package."""
    accelerator = torch.device(BACKENDS["sage"].device)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: accelerator)
    with pytest.raises(UserError, match=r"backend sage: is not installed \(.*install"):
        find_backend("sage")
