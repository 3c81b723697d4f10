"""GPT-NeoX of several workers at once: the network next door as a function, its parameters along a worker axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from halos.models.neox_network import Network


class Gather(torch.autograd.Function):
    """Rows of each worker's table: [workers, rows, width] and int64 [workers, n] → [workers, n, width].

    Beside indexing, of which this is the forward half, the backward half of an embedding: several times as fast.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.rows = table.shape[1]
        return table[torch.arange(len(table), device=rows.device)[:, None], rows]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        workers, count = len(rows), ctx.rows
        rows = rows + count * torch.arange(workers, device=rows.device)[:, None]
        one = torch.ops.aten.embedding_dense_backward(grad.flatten(0, 1), rows.flatten(), workers * count, -1, False)
        return one.view(workers, count, -1), None


class StackedNetwork:
    """What `Network.forward` is of one set of parameters, of several at once, by batched matrix products."""

    def __init__(self, network: Network) -> None:
        """Of the shape of `network`, whose own parameters play no part."""
        body = network.gpt_neox
        self._layers = len(body.layers)
        self._rotary = body.rotary
        layer: Any = body.layers[0]
        self._parallel: bool = layer.parallel
        self._heads: int = layer.attention.heads
        self._head_size: int = layer.attention.head_size
        self._eps: float = body.final_layer_norm.eps

    def __call__(self, tensors: Mapping[str, Tensor], batch: Tensor) -> Tensor:
        """Parameters by name, [workers, *shape], and int64 [workers, batch, length + 1] → a loss each, [workers]."""
        workers, size, length = batch.shape[0], batch.shape[1], batch.shape[2] - 1
        cos, sin = self._rotary(length, batch.device)
        x: Tensor = Gather.apply(  # type: ignore[no-untyped-call]
            tensors["gpt_neox.embed_in.weight"], batch[:, :, :-1].flatten(1)
        )  # [workers, n, hidden]
        for layer in range(self._layers):
            part = {
                name: tensors[f"gpt_neox.layers.{layer}.{name}"]
                for name in (f"{module}.{tensor}" for module in PARTS for tensor in ("weight", "bias"))
            }
            attended = self._attention(self._norm(x, part, "input_layernorm"), part, workers * size, cos, sin)
            if self._parallel:
                x = self._mlp(x, part) + attended + x
            else:
                x = attended + x
                x = self._mlp(x, part) + x
        x = self._norm(x, tensors, "gpt_neox.final_layer_norm")
        head, tokens = tensors["lm_head.weight"], batch[:, :, 1:].flatten(1)
        each = workers  # whose logits are there at once
        if x.device.type == "cpu":
            each = max(1, CACHED // (x.shape[1] * head.shape[1]))
        pieces = range(0, workers, each)
        return torch.cat([_losses(x[i : i + each], head[i : i + each], tokens[i : i + each]) for i in pieces])

    def _attention(self, x: Tensor, part: Mapping[str, Tensor], several: int, cos: Tensor, sin: Tensor) -> Tensor:
        """As `Attention`, of `several` sequences: each worker's batch."""
        d, r = self._head_size, cos.shape[-1]
        qkv: Tensor = _linear(x, part, "attention.query_key_value").view(several, -1, self._heads, 3 * d)
        q_turn, q_rest, k_turn, k_rest, v = torch.split(qkv, [r, d - r, r, d - r, d], dim=-1)
        turn = torch.stack([q_turn, k_turn])  # [2, several, length, heads, r]
        turned = torch.addcmul(turn * cos, turn.roll(r // 2, -1), sin)
        q_turned, k_turned = turned.to(qkv.dtype).unbind()
        q = torch.cat([q_turned, q_rest], dim=-1).transpose(1, 2)  # [several, heads, length, d]
        k = torch.cat([k_turned, k_rest], dim=-1).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True)
        return _linear(mixed.transpose(1, 2).reshape(x.shape), part, "attention.dense")

    def _mlp(self, x: Tensor, part: Mapping[str, Tensor]) -> Tensor:
        inner = _linear(self._norm(x, part, "post_attention_layernorm"), part, "mlp.dense_h_to_4h")
        return _linear(F.gelu(inner), part, "mlp.dense_4h_to_h")

    def _norm(self, x: Tensor, part: Mapping[str, Tensor], name: str) -> Tensor:
        """Layer norm of [workers, n, hidden], with each worker's own scale and shift."""
        weight, bias = part[f"{name}.weight"], part[f"{name}.bias"]
        return torch.addcmul(bias[:, None], F.layer_norm(x, weight.shape[-1:], eps=self._eps), weight[:, None])


CACHED = 1 << 18  # logits that stay in a processor's cache
PARTS = (
    "input_layernorm",
    "post_attention_layernorm",
    "attention.query_key_value",
    "attention.dense",
    "mlp.dense_h_to_4h",
    "mlp.dense_4h_to_h",
)


def _losses(x: Tensor, head: Tensor, tokens: Tensor) -> Tensor:
    """[workers, n, hidden], each worker's head and next tokens [workers, n] → mean cross-entropies [workers]."""
    logits = torch.bmm(x, head.transpose(1, 2))  # [workers, n, vocabulary]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none")
    return losses.view(tokens.shape).mean(1)


def _linear(x: Tensor, part: Mapping[str, Tensor], name: str) -> Tensor:
    """Each worker's own linear layer: [workers, n, in] → [workers, n, out]."""
    return torch.baddbmm(part[f"{name}.bias"][:, None], x, part[f"{name}.weight"].transpose(1, 2))
