from typing import Any

import pytest
import torch
from torch.nn import functional as F

from hybridlab.config import mixer_files
from hybridlab.evaluation.cost.kernels import kernels_of, without_kernels
from hybridlab.ops.kernels.dispatch import can_use_kernel, can_use_scan_kernel, record_kernel_use
from hybridlab.ops.linear.linear_attention import chunked_linear_attention
from hybridlab.stack.plan import expand, has_causal_form, single_layer


def test_a_kernel_of_ours_is_found_for_the_widths_it_takes():
    x = torch.zeros(1)
    with kernels_of() as kernels:
        assert not can_use_kernel(x, 64, 7)  # on a CPU nothing changes
    with kernels_of() as too_wide:
        can_use_kernel(x, 129)
    with kernels_of() as scanned:
        assert not can_use_scan_kernel(x, 13)
    with kernels_of() as too_large:
        can_use_scan_kernel(x, 200)
    assert (kernels, too_wide, scanned, too_large) == (["Triton"], [], ["Triton"], [])


def test_pytorchs_attention_is_found_on_any_device():
    q = torch.zeros(1, 1, 4, 16, device="meta")
    with kernels_of() as kernels:
        F.scaled_dot_product_attention(q, q, q)
    with kernels_of() as none:
        q @ q.mT
    assert (kernels, none) == (["PyTorch"], [])


@pytest.mark.parametrize("name", mixer_files())
def test_kernels_take_the_default_sizes(name: str):
    layer = single_layer(name, 256, {}, mixer_files())
    plan = expand({"width": 256, "groups": {"all": {"mixer": name}}}, {}, mixer_files(), causal=has_causal_form(layer))
    assert not without_kernels(plan, 300)


@pytest.mark.parametrize(
    ("mixer", "too_large"),
    [
        ({"name": "kda", "heads": 1}, ["kda: no kernel takes the sizes of `a.mixer` (head width: 256, at most 128)"]),
        ({"name": "gla", "heads": 1}, []),  # its keys are split
        (
            {"name": "bigbird", "block": 32},
            ["bigbird: no kernel takes the sizes of `a.mixer` (block length modulo 64: 32, at most 0)"],
        ),
        (
            {"name": "nsa", "kv_heads": 1, "heads": 128},
            ["nsa: no kernel takes the sizes of `a.mixer` (heads that share a choice: 128, at most 64)"],
        ),
        (
            {"name": "short_conv", "conv_size": 65},
            ["short_conv: no kernel takes the sizes of `a.mixer` (taps: 65, at most 64)"],
        ),
        (
            {"name": "mamba", "state": 200},
            ["mamba: no kernel takes the sizes of `a.mixer` (state size: 200, at most 128)"],
        ),
        (
            {"name": "based", "feature_width": 80},
            ["based: no kernel takes the sizes of `a.mixer` (query width: 80, at most 64)"],
        ),
        (
            {"parallel": [{"name": "delta", "heads": 1}, "kda"]},
            ["delta: no kernel takes the sizes of `a.mixer.parallel` (head width: 256, at most 128)"],
        ),
    ],
    ids=str,
)
def test_sizes_that_are_too_large_for_a_kernel_are_named(mixer: Any, too_large: list[str]):
    plan = expand({"width": 256, "groups": {"a": {"mixer": mixer}}}, {}, mixer_files(), causal=True)
    printed = [line.replace("stack.groups.", "").split("; PyTorch's")[0] for line in without_kernels(plan, 300)]
    assert printed == too_large


def test_a_gpu_launches_a_limited_number_of_heads_of_all_sequences():
    with record_kernel_use() as noted:
        chunked_linear_attention(*(torch.empty(600, 16, 64, 900, device="meta") for _ in range(3)))
        chunked_linear_attention(*(torch.empty(512, 15, 64, 900, device="meta") for _ in range(3)))
    assert noted == [["batch x heads: 76800, at most 65535"], []]


@pytest.mark.slow
def test_a_gpu_run_prints_heads_that_no_kernel_takes(hybridlab, tiny):
    on_gpu = [*tiny, "trainer.accelerator=gpu", "trainer.precision=bf16-mixed"]
    wide = ["stack.width=256", "stack.groups={only:{mixer:delta}}", "mixers.delta.heads=1"]
    assert (
        "kernels: delta: no kernel takes the sizes of `mixers.delta` (head width"
        in hybridlab("check", *on_gpu, *wide).out
    )
    assert "kernels:" not in hybridlab("check", *on_gpu, *wide, "mixers.delta.heads=2").out
    assert "kernels:" not in hybridlab("check", *on_gpu, *wide, "trainer.precision=32-true").out
    assert "kernels:" not in hybridlab("check", *tiny, *wide).out
