"""hybridlab's ops, eager and compiled, timed against the kernels of flash-linear-attention."""

import importlib
import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from hybridlab.bench.mixers import HEAD_WIDTH, Setting
from hybridlab.bench.timing import Timing, time_training
from hybridlab.mixers.linear.retention import log_decays
from hybridlab.ops.attention.block_attention import block_attention
from hybridlab.ops.attention.compressed_attention import choice_by_importance, compressed_attention
from hybridlab.ops.attention.fused_attention import fused_attention
from hybridlab.ops.attention.sliding_attention import sliding_attention
from hybridlab.ops.linear.channel_delta_rule import chunked_channel_delta_rule
from hybridlab.ops.linear.delta_rule import chunked_delta_rule
from hybridlab.ops.linear.diagonal_plus_low_rank import chunked_diagonal_plus_low_rank
from hybridlab.ops.linear.gated_linear_attention import chunked_gated_linear_attention
from hybridlab.ops.linear.linear_attention import chunked_linear_attention
from hybridlab.ops.linear.taylor_attention import chunked_taylor_attention
from hybridlab.ops.ssm.elementwise_scan import elementwise_scan
from hybridlab.training.compiler import compile_soundly

Inputs = dict[str, Tensor]
WINDOW = 256
# Of sparse attention: tokens per block, blocks per query, and how many of these are the latest
# ones.
BLOCK, SELECTED, LOCAL = 64, 16, 2


@dataclass(frozen=True)
class Peer:
    """An op of both libraries.

    Inputs are [b, h, t, ...] for `ours` and [b, t, h, ...] for `theirs`.
    """

    mixers: tuple[str, ...]  # that use the op
    draw: Callable[["Shape"], Inputs]
    ours: Callable[[Inputs], Tensor]
    module: str
    function: str
    theirs: Callable[[Any, Inputs], Tensor]


@dataclass(frozen=True)
class Shape:
    """The shape of the inputs."""

    batch: int
    heads: int
    length: int
    device: torch.device

    def vectors(self) -> Tensor:
        """Draw a Gaussian vector per head and token."""
        shape = (self.batch, self.heads, self.length, HEAD_WIDTH)
        return torch.randn(shape, device=self.device, dtype=torch.bfloat16)

    def units(self) -> Tensor:
        """Draw a unit vector per head and token."""
        return F.normalize(self.vectors(), dim=-1)

    def fractions(self) -> Tensor:
        """Draw a uniform value between 0 and 1 per head and token."""
        return torch.rand((self.batch, self.heads, self.length), device=self.device).to(torch.bfloat16)


def installed() -> bool:
    """Return whether flash-linear-attention is installed."""
    return importlib.util.find_spec("fla") is not None


def peer_table(console: Console, setting: Setting, names: Sequence[str] = ()) -> Table:
    """Time each op and its peer; for a peer that does not run, show the reason."""
    title = f"ops: hybridlab eager, hybridlab compiled / flash-linear-attention; {setting.title()}"
    table = Table(title=title)
    for column in ("mixers", *(f"t {length:,}" for length in setting.lengths), "first call, s", "relative difference"):
        table.add_column(column)
    _load_libraries(setting)
    for peer in PEERS:
        if names and not set(names) & set(peer.mixers):
            continue
        cells = [_compare(peer, Shape(setting.sequences(t), setting.heads, t, setting.device)) for t in setting.lengths]
        times = [f"{', '.join(map(_format_time, ours))} / {_format_time(theirs)}" for ours, theirs, _ in cells]
        ours, theirs, difference = cells[0]
        first = f"{ours[0].first:.1f} / {theirs.first:.1f}" if isinstance(theirs, Timing) else f"{ours[0].first:.1f}"
        table.add_row(", ".join(peer.mixers), *times, first, difference)
        console.print(f"{peer.function}: {'; '.join(times)}; first call {first}; {theirs if not difference else ''}")
    return table


def _load_libraries(setting: Setting) -> None:
    """Load what a process loads once, so that it does not count towards the first timed op."""
    x = Shape(1, setting.heads, setting.lengths[0], setting.device).vectors().requires_grad_()
    fused_attention(x @ x.mT @ x, x, x, causal=True).sum().backward()  # cuBLAS and cuDNN
    importlib.import_module("hybridlab.bench.empty_kernel").empty_kernel[(1,)]()  # Triton, used by both


def _compare(peer: Peer, shape: Shape) -> tuple[list[Timing], Timing | str, str]:
    """Time both ops on the same inputs.

    Return the times of ours, eager and compiled, then the time of the peer or why it does not run,
    and the relative difference of the outputs.

    Ours runs eagerly before it is compiled, so that the first call includes all set-up.
    """
    torch.manual_seed(0)
    inputs = {name: x.requires_grad_() for name, x in peer.draw(shape).items()}
    peer_inputs = {name: x.detach().transpose(1, 2).contiguous().requires_grad_() for name, x in inputs.items()}
    torch.compiler.reset()
    compiled = compile_soundly(peer.ours, dynamic=False)
    forms = (peer.ours, compiled)
    ours = [time_training(lambda form=form: form(inputs), list(inputs.values()), shape.device) for form in forms]
    try:
        function = getattr(importlib.import_module(peer.module), peer.function)
        theirs = time_training(lambda: peer.theirs(function, peer_inputs), list(peer_inputs.values()), shape.device)
        expected, found = peer.theirs(function, peer_inputs).transpose(1, 2).float(), compiled(inputs).float()
        return ours, theirs, f"{(found - expected).norm() / expected.norm():.1e}"
    except Exception as reason:  # a kernel library can reject this machine, or fail on it, in any way
        return ours, (str(reason).strip().splitlines() or [type(reason).__name__])[0][:60], ""


def _native_sparse_attention(x: Inputs) -> Tensor:
    """Attend to block means and to the blocks with the largest weights, as the peer does."""
    q, k, v = x["q"], x["k"], x["v"]
    mean_keys, mean_values = (each.unflatten(2, (-1, BLOCK)).mean(3) for each in (k, v))
    chosen = choice_by_importance(q, mean_keys, 0, BLOCK, BLOCK, BLOCK, LOCAL, SELECTED - LOCAL - 1)
    compressed = compressed_attention(q, mean_keys, mean_values, 0, BLOCK, BLOCK)
    selected = block_attention(q, k, v, chosen, BLOCK, local=LOCAL, first=True)
    return x["compressed"][..., None] * compressed + x["selected"][..., None] * selected


def _retention_log_decay(v: Tensor) -> Tensor:
    log_decay = log_decays(v.shape[1], torch.float32, v.device)
    return log_decay[None, :, None].expand(v.shape[:3])


def _format_time(timing: Timing | str) -> str:
    return timing if isinstance(timing, str) else f"{timing.milliseconds:.2f}"


def _qkv_inputs(shape: Shape) -> Inputs:
    return {"q": shape.vectors(), "k": shape.vectors(), "v": shape.vectors()}


def _decay_inputs(shape: Shape) -> Inputs:
    return {**_qkv_inputs(shape), "g": F.logsigmoid(4 + 4 * shape.fractions())}


def _delta_inputs(shape: Shape) -> Inputs:
    return {"q": shape.units(), "k": shape.units(), "v": shape.vectors(), "beta": shape.fractions()}


def _gated_delta_inputs(shape: Shape) -> Inputs:
    return {**_delta_inputs(shape), "g": F.logsigmoid(4 + 4 * shape.fractions()).float()}


def _channel_decay_inputs(shape: Shape) -> Inputs:
    return {**_qkv_inputs(shape), "g": F.logsigmoid(shape.vectors().float()) / 16}


def _channel_delta_inputs(shape: Shape) -> Inputs:
    return {**_delta_inputs(shape), "g": F.logsigmoid(4 + shape.vectors().float())}


def _rwkv7_inputs(shape: Shape) -> Inputs:
    direction, rate = shape.units(), shape.vectors().sigmoid()
    decay = -math.exp(-0.5) * shape.vectors().sigmoid()
    return {**_qkv_inputs(shape), "a": -direction, "b": direction * rate, "g": decay}


def _taylor_inputs(shape: Shape) -> Inputs:
    qkv = _qkv_inputs(shape)
    return {name: x if name == "v" else x[..., :16].contiguous() for name, x in qkv.items()}


def _sparse_inputs(shape: Shape) -> Inputs:
    k, v = (shape.vectors()[:, :1].contiguous() for _ in range(2))
    return {"q": shape.vectors(), "k": k, "v": v, "compressed": shape.fractions(), "selected": shape.fractions()}


def _scan_inputs(shape: Shape) -> Inputs:
    return {"x": shape.vectors().float(), "g": F.logsigmoid(4 + shape.vectors().float())}


PEERS = (
    Peer(
        ("linear",),
        _qkv_inputs,
        lambda x: chunked_linear_attention(x["q"], x["k"], x["v"])[0],
        "fla.ops.linear_attn",
        "chunk_linear_attn",
        lambda f, x: f(x["q"], x["k"], x["v"], scale=1.0, normalize=False)[0],
    ),
    Peer(
        ("mamba2",),
        _decay_inputs,
        lambda x: chunked_linear_attention(x["q"], x["k"], x["v"], x["g"])[0],
        "fla.ops.simple_gla",
        "chunk_simple_gla",
        lambda f, x: f(x["q"], x["k"], x["v"], g=x["g"], scale=1.0)[0],
    ),
    Peer(
        ("retention",),
        _qkv_inputs,
        lambda x: chunked_linear_attention(x["q"], x["k"], x["v"], _retention_log_decay(x["v"]))[0],
        "fla.ops.retention",
        "chunk_retention",
        lambda f, x: f(x["q"], x["k"], x["v"], scale=1.0)[0],
    ),
    Peer(
        ("gla",),
        _channel_decay_inputs,
        lambda x: chunked_gated_linear_attention(x["q"], x["k"], x["v"], x["g"])[0],
        "fla.ops.gla",
        "chunk_gla",
        lambda f, x: f(x["q"], x["k"], x["v"], x["g"], scale=1.0)[0],
    ),
    Peer(
        ("based",),
        _taylor_inputs,
        lambda x: chunked_taylor_attention(x["q"], x["k"], x["v"])[0],
        "fla.ops.based",
        "parallel_based",
        lambda f, x: f(x["q"], x["k"], x["v"]),
    ),
    Peer(
        ("delta",),
        _delta_inputs,
        lambda x: chunked_delta_rule(x["q"], x["k"], x["v"], x["beta"])[0],
        "fla.ops.delta_rule",
        "chunk_delta_rule",
        lambda f, x: f(x["q"], x["k"], x["v"], x["beta"], scale=1.0)[0],
    ),
    Peer(
        ("gated_delta",),
        _gated_delta_inputs,
        lambda x: chunked_delta_rule(x["q"], x["k"], x["v"], x["beta"], x["g"])[0],
        "fla.ops.gated_delta_rule",
        "chunk_gated_delta_rule",
        lambda f, x: f(x["q"], x["k"], x["v"], g=x["g"], beta=x["beta"], scale=1.0)[0],
    ),
    Peer(
        ("kda",),
        _channel_delta_inputs,
        lambda x: chunked_channel_delta_rule(x["q"], x["k"], x["v"], x["beta"], x["g"])[0],
        "fla.ops.kda",
        "chunk_kda",
        lambda f, x: f(x["q"], x["k"], x["v"], x["g"], x["beta"], scale=1.0)[0],
    ),
    Peer(
        ("rwkv7",),
        _rwkv7_inputs,
        lambda x: chunked_diagonal_plus_low_rank(x["q"], x["k"], x["v"], x["a"], x["b"], x["g"], safe_block=64)[0],
        "fla.ops.rwkv7",
        "chunk_rwkv7",
        lambda f, x: f(x["q"], x["g"], x["k"], x["v"], x["a"], x["b"])[0],
    ),
    Peer(
        ("rglru",),
        _scan_inputs,
        lambda x: elementwise_scan(x["x"].flatten(0, 1), x["g"].flatten(0, 1))[0].view_as(x["x"]),
        "fla.ops.hgrn",
        "chunk_hgrn",
        lambda f, x: f(x["x"].flatten(2), x["g"].flatten(2))[0].view_as(x["x"]),
    ),
    Peer(
        ("full",),
        _qkv_inputs,
        lambda x: fused_attention(x["q"], x["k"], x["v"], causal=True),
        "fla.ops.attn",
        "parallel_attn",
        lambda f, x: f(x["q"], x["k"], x["v"]),
    ),
    Peer(
        ("sliding",),
        _qkv_inputs,
        lambda x: sliding_attention(x["q"], x["k"], x["v"], WINDOW),
        "fla.ops.attn",
        "parallel_attn",
        lambda f, x: f(x["q"], x["k"], x["v"], window_size=WINDOW),
    ),
    # Without its window branch on both sides: that needs flash-attn, which is compared above.
    Peer(
        ("nsa",),
        _sparse_inputs,
        _native_sparse_attention,
        "fla.ops.nsa",
        "parallel_nsa",
        lambda f, x: f(x["q"], x["k"], x["v"], x["compressed"], x["selected"], block_counts=SELECTED, block_size=BLOCK),
    ),
)
