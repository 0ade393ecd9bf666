"""Sequences of several documents: every mixer treats each document as if it were alone."""

import torch

from hybridlab.stack.packing import Packing
from tests.mixers.subject import WIDTH, Subject, tokens


def test_each_document_comes_out_as_if_it_stood_alone(subject: Subject) -> None:
    mixer, x = subject.build(), tokens(2, 60)
    lengths = [[7, 33, 1, 15, 4], [20, 40]]
    numbers = torch.tensor([[3] * 7 + [9] * 33 + [4] * 1 + [5] * 15 + [-1] * 4, [0] * 20 + [1] * 40])
    x.requires_grad_()
    y = Packing.of(numbers).mix(mixer, x)
    for i, (sizes, found) in enumerate(zip(lengths, y, strict=True)):
        for document, mixed in zip(x[i].split(sizes), found.split(sizes), strict=True):
            if i == 0 and len(document) == 4:  # padding
                assert not mixed.any()
            else:
                torch.testing.assert_close(mixed, mixer(document[None])[0], rtol=1e-9, atol=1e-9)


def test_no_document_sees_another(subject: Subject) -> None:
    mixer, x = subject.build(), tokens(1, 64)
    packing = Packing.of(torch.tensor([[0] * 17 + [1] * 30 + [2] * 17]))
    other = torch.cat([x[:, :17], 3 * tokens(1, 30, seed=2), x[:, 47:]], dim=1)
    moved = (packing.mix(mixer, other) - packing.mix(mixer, x)).abs().amax(-1)[0]
    assert moved[:17].max() < 1e-9
    assert moved[47:].max() < 1e-9
    assert (moved[17:47].max() > 1e-9) == (subject.cls.kind != "none")


def test_gradients_stay_within_a_document(subject: Subject) -> None:
    mixer, x = subject.build(), tokens(1, 50).requires_grad_()
    y = Packing.of(torch.tensor([[0] * 20 + [1] * 30])).mix(mixer, x)
    (gradient,) = torch.autograd.grad(y[0, 20:].square().sum(), x)
    assert gradient.shape == (1, 50, WIDTH)
    assert not gradient[0, :20].any()
