"""Slow references of mixers, from their weights: one token, one head, one sum at a time."""

import torch
from torch import Tensor

from hybridlab.mixers.linear.linear import Linear
from hybridlab.mixers.ssm.mamba2 import Mamba2


def rotated(x: Tensor, base: float) -> Tensor:
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[1], dtype=x.dtype)[:, None] * base ** (-torch.arange(half, dtype=x.dtype) / half)
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), angle)
    return torch.cat([turned.real, turned.imag], dim=-1)


def linear(mixer: Linear, x: Tensor) -> Tensor:
    """Attend with a dense matrix of φ(q)·φ(k), its rows divided by their sums."""
    projections, each = mixer.projections, mixer.projections.head_width
    outputs = []
    for start in range(0, x.shape[-1], each):
        q, k, v = (
            x @ project.weight[start : start + each].mT
            for project in (projections.query, projections.key, projections.value)
        )
        weights = ((torch.nn.functional.elu(q) + 1) @ (torch.nn.functional.elu(k) + 1).mT).tril()
        outputs.append(weights / weights.sum(-1, keepdim=True) @ v)
    return torch.cat(outputs, dim=-1) @ mixer.out.weight.mT


def mamba2(mixer: Mamba2, x: Tensor) -> Tensor:
    """Step through the recurrence of each head."""
    width, n = mixer.out.weight.shape[1], mixer.state
    gate, mixed, step = (x @ mixer.in_projection.weight.mT).split(
        [width, width + 2 * mixer.groups * n, width // mixer.head_width], dim=-1
    )
    bias = mixer.convolution.bias
    assert bias is not None
    mixed = silu(convolved(mixed, mixer.convolution.weight) + bias)
    heads = step.shape[-1]
    outputs = []
    for head in range(heads):
        value = mixed[..., head * mixer.head_width : (head + 1) * mixer.head_width]
        group = head // (heads // mixer.groups)
        key = mixed[..., width + group * n :][..., :n]
        query = mixed[..., width + (mixer.groups + group) * n :][..., :n]
        delta = torch.log1p(torch.exp(step[..., head] + mixer.step_bias[head]))
        rate = -mixer.log_rate[head].exp()
        state = x.new_zeros(x.shape[0], n, mixer.head_width)
        for t in range(x.shape[1]):
            written = key[:, t, :, None] * value[:, t, None, :] * delta[:, t, None, None]
            state = state * torch.exp(delta[:, t] * rate)[:, None, None] + written
            outputs.append((query[:, t, :, None] * state).sum(1) + mixer.skip[head] * value[:, t])
    y = torch.stack(outputs, dim=1).unflatten(1, (heads, -1)).transpose(1, 2).flatten(2)
    y = (y * silu(gate)).unflatten(-1, (mixer.groups, -1))
    y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    return (y.flatten(2) * mixer.norm) @ mixer.out.weight.mT


def convolved(x: Tensor, weight: Tensor) -> Tensor:
    """Return Σ_i weight_{l-1-i} x_{t-i}, one token at a time."""
    taps = weight.shape[1]
    return torch.stack(
        [sum(weight[:, taps - 1 - i] * x[:, t - i] for i in range(min(taps, t + 1))) for t in range(x.shape[1])],  # type: ignore[misc]
        dim=1,
    )


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))
