"""GPT-NeoX as modules: embedding, layers with rotary attention, final norm and head.

Parameters are named as in transformers' `GPTNeoXForCausalLM`, so state dicts go both ways. Left
out: generation, dropout, attention masks other than causal.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from halos.models.neox_size import Dimensions, Shape


class Rotary:
    """Cosines and sines of the angles by which positions rotate queries and keys (arXiv 2104.09864).

    No module, since it holds nothing that is trained or saved; one table per device, as long as the longest
    sequence seen.
    """

    def __init__(self, dimensions: int, base: float) -> None:
        self.dimensions = dimensions
        self.base = base
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def __call__(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Two fp32 tables [length, 1, 2 · pairs]: cos for both halves, then −sin for the first, sin for the second."""
        cos, sin = self._tables.get(device, (None, None))
        if cos is None or sin is None or len(cos) < length:
            with torch.inference_mode(False):  # tables made while evaluating must serve training too
                powers = torch.arange(0, self.dimensions, 2, dtype=torch.float32) / self.dimensions
                angles = torch.outer(torch.arange(length, dtype=torch.float32), 1.0 / self.base**powers)
                cos = torch.cat([angles.cos(), angles.cos()], dim=1)[:, None].to(device)
                sin = torch.cat([-angles.sin(), angles.sin()], dim=1)[:, None].to(device)
            if lasting(cos):
                self._tables[device] = cos, sin
        return cos[:length], sin[:length]


def lasting(tensor: Tensor) -> bool:
    """Whether a tensor can be kept: one made inside `torch.func.grad` or `vmap` is a wrapper that dies with it."""
    try:
        tensor.untyped_storage()
    except NotImplementedError:
        return False
    return True


class Linear(nn.Linear):
    """A linear layer that does not draw initial weights only for `build` to draw them again."""

    def reset_parameters(self) -> None:
        pass


class Embedding(nn.Embedding):
    """The same for an embedding."""

    def reset_parameters(self) -> None:
        pass


class Attention(nn.Module):
    """Causal self-attention with rotary positions."""

    def __init__(self, hidden_size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_size = hidden_size // heads
        self.query_key_value = Linear(hidden_size, 3 * hidden_size)  # per head: query, key, value
        self.dense = Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor, batch: int, cos: Tensor, sin: Tensor) -> Tensor:
        d, r = self.head_size, cos.shape[-1]  # of which r rotate
        qkv = self.query_key_value(x).view(batch, -1, self.heads, 3 * d)  # [batch, length, heads, 3 d]
        # One split by what becomes of each part, so that the gradient is put together once.
        q_turn, q_rest, k_turn, k_rest, v = qkv.split([r, d - r, r, d - r, d], dim=-1)
        turn = torch.stack([q_turn, k_turn])  # [2, batch, length, heads, r]
        turned = torch.addcmul(turn * cos, turn.roll(r // 2, -1), sin)  # fp32 at least, as the tables are
        q_turned, k_turned = turned.to(qkv.dtype).unbind()
        q = torch.cat([q_turned, q_rest], dim=-1).transpose(1, 2)  # [batch, heads, length, d]
        k = torch.cat([k_turned, k_rest], dim=-1).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True)
        mixed = mixed.transpose(1, 2).reshape(x.shape)  # [batch · length, hidden]
        return self.dense(mixed)  # type: ignore[no-any-return]


class MLP(nn.Module):
    """Two linear layers with a GELU between."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.dense_h_to_4h = Linear(hidden_size, intermediate_size)
        self.dense_4h_to_h = Linear(intermediate_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense_4h_to_h(F.gelu(self.dense_h_to_4h(x)))  # type: ignore[no-any-return]


class Layer(nn.Module):
    """Attention and MLP, each behind a layer norm, in parallel or one after the other."""

    def __init__(self, size: Dimensions, shape: Shape) -> None:
        super().__init__()
        self.parallel = shape.parallel_residual
        self.input_layernorm = nn.LayerNorm(size.hidden_size, shape.layer_norm_eps)
        self.post_attention_layernorm = nn.LayerNorm(size.hidden_size, shape.layer_norm_eps)
        self.attention = Attention(size.hidden_size, size.heads)
        self.mlp = MLP(size.hidden_size, size.intermediate_size)

    def forward(self, x: Tensor, batch: int, cos: Tensor, sin: Tensor) -> Tensor:
        attended = self.attention(self.input_layernorm(x), batch, cos, sin)
        if self.parallel:
            return self.mlp(self.post_attention_layernorm(x)) + attended + x  # type: ignore[no-any-return]
        x = attended + x
        return self.mlp(self.post_attention_layernorm(x)) + x  # type: ignore[no-any-return]


class Body(nn.Module):
    """Everything up to the final layer norm."""

    def __init__(self, size: Dimensions, shape: Shape) -> None:
        super().__init__()
        self.embed_in = Embedding(size.vocab_size, size.hidden_size)
        self.layers = nn.ModuleList(Layer(size, shape) for _ in range(size.layers))
        self.final_layer_norm = nn.LayerNorm(size.hidden_size, shape.layer_norm_eps)
        self.rotary = Rotary(int(size.hidden_size // size.heads * shape.rotary_pct), shape.rotary_base)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, length = tokens.shape
        cos, sin = self.rotary(length, tokens.device)
        x = self.embed_in(tokens).flatten(0, 1)  # [batch · length, hidden]: matrices are all a linear layer needs
        for layer in self.layers:
            x = layer(x, batch, cos, sin)
        return self.final_layer_norm(x)  # type: ignore[no-any-return]


class Network(nn.Module):
    """The language model itself; `GPTNeoX.build` makes one (its parameters are uninitialised before)."""

    def __init__(self, size: Dimensions, shape: Shape) -> None:
        super().__init__()
        self.gpt_neox = Body(size, shape)
        self.lm_head = Linear(size.hidden_size, size.vocab_size, bias=False)

    def logits(self, tokens: Tensor) -> Tensor:
        """int64 [batch, length] → [batch, length, vocabulary]: of each position's next token."""
        return self.lm_head(self.gpt_neox(tokens)).view(*tokens.shape, -1)  # type: ignore[no-any-return]

    def forward(self, batch: Tensor) -> Tensor:
        """int64 [batch, length + 1] → mean cross-entropy of its `length` next tokens, in nats, fp32 at least."""
        return self.loss(self.lm_head(self.gpt_neox(batch[:, :-1])), batch[:, 1:])

    def loss(self, logits: Tensor, tokens: Tensor) -> Tensor:
        """Logits of [batch, length] next tokens → their mean cross-entropy, in nats, fp32 at least."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), tokens.reshape(-1))
