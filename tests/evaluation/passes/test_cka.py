"""Linear CKA against its definition by kernels of samples."""

import numpy as np
import pytest
import torch

from hybridlab.evaluation.passes.cka import LinearCKA


def test_it_is_computed_from_all_samples_however_they_are_split():
    generator = torch.Generator().manual_seed(0)
    x, noise = (torch.randn(90, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    y = 3 + x @ torch.randn(8, 5, generator=generator, dtype=torch.float64) + noise[:, :5]
    cka = LinearCKA()
    for some in torch.arange(90).split(32):
        cka.add({"x": x[some], "y": y[some]})
    (pair, value), *_ = cka.pairs()
    centre = np.eye(90) - 1 / 90
    first, second = (centre @ (a @ a.T).numpy() @ centre for a in (x, y))
    assert pair == ("x", "y")
    assert value == pytest.approx(np.sum(first * second) / np.linalg.norm(first) / np.linalg.norm(second))


def test_it_ignores_rotation_scale_and_offset_and_is_near_zero_for_unrelated_features():
    generator = torch.Generator().manual_seed(0)
    x, other = (torch.randn(5000, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator, dtype=torch.float64))[0]
    cka = LinearCKA()
    cka.add({"x": x, "turned": 7 * x @ turn + 2, "other": other})
    found = dict(cka.pairs())
    assert found["x", "turned"] == pytest.approx(1)
    assert found["x", "other"] < 0.01
