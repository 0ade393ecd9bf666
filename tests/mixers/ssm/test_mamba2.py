"""Mamba-2 against transformers (against its recurrence: test_oracles; start: test_settings)."""

from importlib.util import find_spec

import pytest
import torch
from torch.nn import functional as F

from hybridlab.mixers.parts.projections import split_heads
from hybridlab.mixers.ssm.mamba2 import Mamba2


@pytest.mark.skipif(find_spec("transformers") is None, reason="transformers comes with hybridlab[test]")
@pytest.mark.parametrize("groups", [1, 2])
def test_mixer_is_that_of_transformers(groups: int) -> None:
    from transformers.models.mamba2.configuration_mamba2 import Mamba2Config
    from transformers.models.mamba2.modeling_mamba2 import Mamba2Mixer

    torch.manual_seed(0)
    config = Mamba2Config(
        hidden_size=64, num_heads=8, head_dim=16, state_size=8, n_groups=groups, chunk_size=32, num_hidden_layers=1
    )
    theirs = Mamba2Mixer(config, layer_idx=0).eval()
    ours = Mamba2(width=64, head_width=16, state=8, groups=groups)
    assert ours.convolution.bias is not None
    with torch.no_grad():
        for each in (theirs.conv1d.bias, theirs.D, theirs.norm.weight):
            each.normal_()
        for mine, other in (
            (ours.in_projection.weight, theirs.in_proj.weight),
            (ours.convolution.weight, theirs.conv1d.weight[:, 0]),
            (ours.convolution.bias, theirs.conv1d.bias),
            (ours.log_rate, theirs.A_log),
            (ours.step_bias, theirs.dt_bias),
            (ours.skip, theirs.D),
            (ours.norm, theirs.norm.weight),
            (ours.out.weight, theirs.out_proj.weight),
        ):
            mine.copy_(other)
        x = torch.randn(2, 100, 64)
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_both_ways_a_token_reads_what_stands_before_it_after_it_and_itself() -> None:
    torch.manual_seed(0)
    mixer = Mamba2(width=8, head_width=4, state=3, groups=2, causal=False).double()
    x, heads = torch.randn(2, 9, 8, dtype=torch.float64), 4
    gate, mixed, step = mixer.in_projection(x).split([16, 40, 2 * heads], dim=-1)
    value, *shared = F.silu(mixer.convolution.centred(mixed)).split([16, 6, 6, 6, 6], dim=-1)
    value = split_heads(value, 4)
    step = F.softplus(step + mixer.step_bias).mT
    decay = (-step * mixer.log_rate.exp()[:, None]).exp()
    y = value * mixer.skip[:, None, None]
    for i, order in enumerate((range(9), reversed(range(9)))):
        key, query = (split_heads(each, 3).repeat_interleave(2, dim=1) for each in shared[2 * i : 2 * i + 2])
        state = torch.zeros(2, heads, 3, 4, dtype=torch.float64)
        left = torch.zeros(2, heads, 4, dtype=torch.float64)
        for t in order:
            y[:, :, t] += left
            of_head = slice(i * heads, (i + 1) * heads)
            driven = value[:, :, t] * step[:, of_head, t, None]
            state = decay[:, of_head, t, None, None] * state + key[:, :, t, :, None] * driven[:, :, None]
            left = (query[:, :, t, None] @ state)[:, :, 0]
    y = y.transpose(1, 2).flatten(2) * F.silu(gate)
    y = F.rms_norm(y.unflatten(-1, (2, -1)), (8,), eps=1e-5).flatten(-2) * mixer.norm
    torch.testing.assert_close(mixer(x), mixer.out(y), rtol=1e-10, atol=1e-10)
