"""Mamba-2 against the mixer of transformers; against its recurrence it is in `test_oracles`, its start in `test_settings`."""

from importlib.util import find_spec

import pytest
import torch

from hybridlab.mixers.mamba2 import Mamba2


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
