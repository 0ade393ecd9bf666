import pytest
import torch
from torch.nn import functional as F

from hybridlab.config import mixer_files
from hybridlab.evaluation.kernels import kernels_of, without_kernels
from hybridlab.ops.op import kernel_serves, scan_kernel_serves
from hybridlab.stack.plan import expand, has_causal_form, single_layer


def test_a_kernel_of_ours_is_seen_where_it_is_written_for_the_widths():
    x = torch.zeros(1)
    with kernels_of() as kernels:
        assert not kernel_serves(x, 64)  # on a CPU nothing changes
    with kernels_of() as too_wide:
        kernel_serves(x, 129)
    with kernels_of() as scanned:
        assert not scan_kernel_serves(x, 13)
    with kernels_of() as too_large:
        scan_kernel_serves(x, 200)
    assert (kernels, too_wide, scanned, too_large) == (["Triton"], [], ["Triton"], [])


def test_pytorchs_attention_is_seen_on_any_device():
    q = torch.zeros(1, 1, 4, 16, device="meta")
    with kernels_of() as kernels:
        F.scaled_dot_product_attention(q, q, q)
    with kernels_of() as none:
        q @ q.mT
    assert (kernels, none) == (["PyTorch"], [])


@pytest.mark.parametrize("name", mixer_files())
def test_default_sizes_are_such_as_kernels_take(name: str):
    layer = single_layer(name, 256, {}, mixer_files())
    plan = expand({"width": 256, "groups": {"all": {"mixer": name}}}, {}, mixer_files(), causal=has_causal_form(layer))
    assert not without_kernels(plan, 300)


def test_a_gpu_run_hears_of_heads_that_no_kernel_takes(hybridlab, tiny):
    wide = [*tiny, "stack.width=256", "stack.groups={only:{mixer:delta}}", "mixers.delta.heads=1"]
    assert (
        "kernels: delta: none takes the widths of `mixers.delta`"
        in hybridlab("check", *wide, "trainer.accelerator=gpu").out
    )
    assert "kernels:" not in hybridlab("check", *wide, "trainer.accelerator=gpu", "mixers.delta.heads=2").out
    assert "kernels:" not in hybridlab("check", *wide).out
