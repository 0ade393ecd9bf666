"""Routing attention: each token sees the tokens of its own cluster."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from hybridlab.mixers.base import Mixer, tag
from hybridlab.mixers.parts.projections import QueryKeyValue, join_heads, split_heads
from hybridlab.ops.attention.attention_weights import attention_weights
from hybridlab.ops.attention.rotary import rotary_turns, rotate
from hybridlab.ops.attention.routed_attention import routed_attention, routed_mask
from hybridlab.ops.precision import accumulation_dtype, autocast_off
from hybridlab.validate import whole

# Smallest margin between a token's two nearest clusters, so that its weight has a logarithm.
LEAST_MARGIN = 1e-6


class RoutingState(NamedTuple):
    """The last l = window-1 members of each cluster c, in order: later tokens see no others.

    Rotated keys, values and log margins; the number of filled entries; the number of past tokens.
    """

    keys: Float[Tensor, "b h c l k"]
    values: Float[Tensor, "b h c l k"]
    log_margins: Float[Tensor, "b h c l"]
    filled: Int[Tensor, "b h c"]
    position: Int[Tensor, "b 1"]


class Routing(Mixer):
    """o_t = m_t Σ_j m_j exp(q_t·k_j / √k) v_j / Σ_j m_j exp(q_t·k_j / √k), j in t's cluster.

    The sum is over the last `window` tokens j ≤ t with c_j = c_t, including t. In each head, the
    cluster of a token is c_t = argmax_c s_{t,c} with s_{t,c} = k cos(μ_c, k_t) and k_t before its
    rotation. Its margin is m_t = tanh((s_{t,c} - s_{t,c'}) / 2), with c' the second best cluster.

    A causal form of the paper's attention. There, each cluster takes the nearest tokens of the
    whole sequence, so that later tokens displace earlier ones; here, each token takes its own
    cluster, independently of the others. There, the centroids μ follow the tokens by a moving
    average over batches; here, they are parameters that receive their gradient through the margins,
    as an expert router does through its gate, and the forward pass changes no buffers. A token
    halfway between two clusters neither reads nor is read, so that the output is continuous where
    the cluster changes, and stable in lower precision. Queries are not tied to the keys that choose
    clusters: a token with tied ones would mostly see itself.
    """

    kind = "sparse"
    paper = "Roy et al. 2020, 2003.05997"
    bounded_state = True
    free_sizes = ("window",)

    def __init__(
        self, *, width: int, heads: int = 4, clusters: int = 16, window: int = 128, rope: float | None = 10000.0
    ) -> None:
        super().__init__()
        whole(least=2, clusters=clusters)  # one alone is a sliding window
        whole(window=window)
        self.window = window
        self.projections = QueryKeyValue(width=width, heads=heads, rope=rope)
        # Only their directions matter: weight decay would only make their steps larger.
        self.centroids = tag(nn.Parameter(torch.randn(heads, clusters, width // heads)), decay=False, initialise=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Attend from each token within its cluster."""
        q, k, v, margins, clusters = self._project(x, 0)
        return self._attend(q, k, v, margins, _log(margins), clusters)

    def attention(self, x: Float[Tensor, "b t d"], at: Int[Tensor, " n"]) -> Float[Tensor, "b h n t"]:
        """Return the weights with which the tokens at some positions read all tokens."""
        q, k, _, margins, clusters = self._project(x, 0)
        visible = routed_mask(at, clusters, self.window)
        return attention_weights(q[:, :, at], k, visible, _log(margins)[:, :, None])

    def initial_state(self, batch: int, like: Tensor) -> RoutingState:
        """Return clusters without members at position 0."""
        heads, clusters, each = self.centroids.shape
        members = like.new_zeros(batch, heads, clusters, self.window - 1, each)
        log_margins = torch.zeros_like(members[..., 0], dtype=accumulation_dtype(like))
        filled = torch.zeros(batch, heads, clusters, dtype=torch.long, device=like.device)
        return RoutingState(members, members.clone(), log_margins, filled, filled.new_zeros(batch, 1))

    def extend(self, x: Float[Tensor, "b n d"], state: RoutingState) -> tuple[Float[Tensor, "b n d"], RoutingState]:
        """Attend from each new token to the latest members of its cluster up to itself."""
        q, k, v, margins, clusters = self._project(x, state.position)
        num_clusters, kept = state.keys.shape[2:4]
        keys, values, log_margins = (
            torch.cat([old.flatten(2, 3), new.to(old.dtype)], dim=2)
            for old, new in zip(state[:3], (k, v, _log(margins)), strict=True)
        )
        entries = torch.arange(kept, device=x.device)
        owners = torch.arange(num_clusters, device=x.device).repeat_interleave(kept)
        owners = torch.cat([owners.expand(*clusters.shape[:2], -1), clusters], dim=2)
        # An unfilled entry belongs to cluster -1, which no query is in.
        empty = (entries < kept - state.filled[..., None]).flatten(2)
        visible = owners.masked_fill(F.pad(empty, (0, x.shape[1])), -1)
        y = self._attend(q, keys.to(q.dtype), values.to(q.dtype), margins, log_margins, visible)
        # Sorted by cluster and then by time, the members to keep are the last ones of each cluster.
        counts = F.one_hot(clusters, num_clusters).sum(2)
        ends = (kept + counts).cumsum(-1)[..., None]
        latest = owners.argsort(dim=-1, stable=True).gather(-1, (ends - kept + entries).flatten(2))
        members = latest[..., None].expand(*latest.shape, k.shape[-1])
        return y, RoutingState(
            keys.gather(2, members).unflatten(2, (num_clusters, kept)),
            values.gather(2, members).unflatten(2, (num_clusters, kept)),
            log_margins.gather(2, latest).unflatten(2, (num_clusters, kept)),
            (state.filled + counts).clamp(max=kept),
            state.position + x.shape[1],
        )

    def _project(self, x: Tensor, past: int | Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return queries, keys and values, and the margin and cluster of each token."""
        maps = self.projections
        q, k, v = (split_heads(project(x), maps.head_width) for project in (maps.query, maps.key, maps.value))
        with autocast_off(k):
            dtype = accumulation_dtype(k)
            cosines = F.normalize(k.to(dtype), dim=-1) @ F.normalize(self.centroids.to(dtype), dim=-1).mT
            nearest, clusters = cosines.topk(2, dim=-1)
            margins = (maps.head_width / 2 * (nearest[..., 0] - nearest[..., 1])).tanh()
        if maps.rope is not None:
            turns = rotary_turns(past + torch.arange(x.shape[1], device=x.device), q, maps.rope)
            q, k = rotate(q, turns), rotate(k, turns)
        return q, k, v, margins, clusters[..., 0]

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, margins: Tensor, log_margins: Tensor, clusters: Tensor
    ) -> Tensor:
        o = routed_attention(q, k, v, log_margins, clusters, self.window)
        return self.out(join_heads(margins[..., None].to(o.dtype) * o))


def _log(margins: Tensor) -> Tensor:
    return margins.clamp(min=LEAST_MARGIN).log()
