"""Layers that the language and speech models share."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812


class Attention(nn.Module):
    """Multi-head attention with separate projections.

    Args:
        dim: Width of the tokens.
        heads: Number of heads.
        causal: Tokens see only earlier ones and themselves.
        key_bias: Whether the key projection has a bias; Whisper's has none.
    """

    def __init__(self, dim: int, heads: int, causal: bool = False, key_bias: bool = True) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=key_bias)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, memory: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """Attends from `x` to `memory`, or to `x` itself.

        Args:
            x: [batch, tokens, dim].
            memory: [batch, sources, dim].
            mask: What is added to the scores, broadcastable to [batch, heads, tokens, sources].
        """
        memory = x if memory is None else memory
        q, k = self._split(self.query(x)), self._split(self.key(memory))
        v = self._split(self.value(memory))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=self.causal)
        return self.out(y.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        """[batch, tokens, dim] to [batch, heads, tokens, dim / heads]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Mlp(nn.Sequential):
    """Two linear layers with GELU; `approximate` is "none" (erf) or "tanh"."""

    def __init__(self, dim: int, hidden: int, approximate: str = "none") -> None:
        super().__init__(nn.Linear(dim, hidden), nn.GELU(approximate), nn.Linear(hidden, dim))
