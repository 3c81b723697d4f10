"""GPT-NeoX, the architecture of the Pythia models, in plain PyTorch: what is needed to train it.

Parameters are named as in transformers' `GPTNeoXForCausalLM`, so state dicts go both ways. Left
out: generation, dropout, attention masks other than causal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from halos.errors import ConfigError, did_you_mean, require, under
from halos.hookspecs import Register, hookimpl
from halos.models import weights
from halos.seeds import seed_for


@dataclass(frozen=True)
class Dimensions:
    """A network's size, once everything is decided."""

    hidden_size: int
    layers: int
    heads: int
    intermediate_size: int
    vocab_size: int


def pythia(hidden_size: int, layers: int, heads: int) -> Dimensions:
    return Dimensions(hidden_size, layers, heads, 4 * hidden_size, 50304)


SIZES = {  # arXiv 2304.01373, Table 1
    "pythia-14m": pythia(128, 6, 4),
    "pythia-31m": pythia(256, 6, 8),
    "pythia-70m": pythia(512, 6, 8),
    "pythia-160m": pythia(768, 12, 12),
    "pythia-410m": pythia(1024, 24, 16),
    "pythia-1b": pythia(2048, 16, 8),
}


DEEPEST = 10_000  # layers; to list the shapes of ever more would take for ever


@dataclass(frozen=True)
class GPTNeoX:
    """GPT-NeoX language model (arXiv 2204.06745): a Pythia `size`, dimensions of one's own, or both.

    Dimensions that are given override those of `size`; without a size, `hidden_size`, `layers` and
    `heads` are needed.
    """

    size: Optional[str] = None  # pythia-14m, -31m, -70m, -160m, -410m, -1b
    hidden_size: Optional[int] = None
    layers: Optional[int] = None
    heads: Optional[int] = None  # divides hidden_size
    intermediate_size: Optional[int] = None  # of the MLP; null: 4 · hidden_size
    vocab_size: Optional[int] = None  # null: the data's; unknown too: the size's own
    rotary_pct: float = 0.25  # of each head's dimensions, how many carry the position
    rotary_base: float = 10000.0
    layer_norm_eps: float = 1e-5
    parallel_residual: bool = True  # attention and MLP read the same input; false: one after the other
    initializer_range: float = 0.02  # standard deviation of initial matrices
    weights: Optional[str] = None  # to start from: a checkpoint folder, .safetensors, .pt, .bin or .npz
    wire_bytes: Optional[int] = None  # of the whole model in fp32; null: 4 per parameter

    def __post_init__(self) -> None:
        if self.size is not None and self.size not in SIZES:
            expected = "one of " + ", ".join(SIZES) + did_you_mean(self.size, SIZES)
            require(False, "size", self.size, expected)
        for key in ("hidden_size", "layers", "heads", "intermediate_size", "vocab_size", "wire_bytes"):
            value = getattr(self, key)
            require(value is None or value >= 1, key, value, "a positive number")
        hidden_size, heads = self._given("hidden_size"), self._given("heads")
        require(self._given("layers") <= DEEPEST, "layers", self.layers, f"at most {DEEPEST:,}")
        require(hidden_size % heads == 0, "heads", heads, f"a divisor of hidden_size ({hidden_size})")
        head_size = hidden_size // heads
        fits = 0 <= self.rotary_pct <= 1 and 2 * rotary_pairs(head_size, self.rotary_pct) <= head_size
        require(fits, "rotary_pct", self.rotary_pct, f"a fraction of a head that pairs up (a head has {head_size})")
        require(self.rotary_base > 0, "rotary_base", self.rotary_base, "a positive number")
        require(self.layer_norm_eps > 0, "layer_norm_eps", self.layer_norm_eps, "a positive number")
        require(self.initializer_range >= 0, "initializer_range", self.initializer_range, "a standard deviation")

    def dimensions(self, vocab_size: Optional[int] = None) -> Dimensions:
        """The size of the network for data of `vocab_size` different tokens (None: unknown)."""
        own = self.vocab_size if self.vocab_size is not None else vocab_size
        if own is None:
            if self.size is None:
                raise ConfigError("vocab_size", "needed: neither the data nor a size says how many tokens there are")
            own = SIZES[self.size].vocab_size
        enough = f"enough for the data's {vocab_size} tokens (leave it out to take the data's)"
        require(vocab_size is None or vocab_size <= own, "vocab_size", own, enough)
        hidden_size = self._given("hidden_size")
        inner = self.intermediate_size or 4 * hidden_size
        return Dimensions(hidden_size, self._given("layers"), self._given("heads"), inner, own)

    def shapes(self, vocab_size: Optional[int]) -> dict[str, tuple[int, ...]]:
        """Names and shapes in the module's order, written out: no module is built to know them."""
        size = self.dimensions(vocab_size)
        hidden, inner = size.hidden_size, size.intermediate_size
        shapes: dict[str, tuple[int, ...]] = {"gpt_neox.embed_in.weight": (size.vocab_size, hidden)}
        for layer in range(size.layers):
            prefix = f"gpt_neox.layers.{layer}."
            for norm in ("input_layernorm", "post_attention_layernorm"):
                shapes |= {f"{prefix}{norm}.weight": (hidden,), f"{prefix}{norm}.bias": (hidden,)}
            for name, outputs, inputs in (
                ("attention.query_key_value", 3 * hidden, hidden),
                ("attention.dense", hidden, hidden),
                ("mlp.dense_h_to_4h", inner, hidden),
                ("mlp.dense_4h_to_h", hidden, inner),
            ):
                shapes |= {f"{prefix}{name}.weight": (outputs, inputs), f"{prefix}{name}.bias": (outputs,)}
        shapes |= {"gpt_neox.final_layer_norm.weight": (hidden,), "gpt_neox.final_layer_norm.bias": (hidden,)}
        return shapes | {"lm_head.weight": (size.vocab_size, hidden)}

    def build(self, vocab_size: Optional[int], seed: int) -> Network:
        """The network with matrices from N(0, initializer_range²), biases 0, norms 1 and 0; then `weights`.

        The global random state is left alone. UserError if `weights` cannot be read or do not fit.
        """
        size = self.dimensions(vocab_size)
        network = Network(size, self)
        generator = torch.Generator().manual_seed(seed_for(seed, "initial weights"))
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if parameter.dim() >= 2:
                    parameter.normal_(0.0, self.initializer_range, generator=generator)
                elif name.endswith(".bias"):
                    parameter.zero_()
        if self.weights is not None:
            with under("weights"):
                theirs = weights.architecture(self.weights)
            self._check_architecture(size, theirs)
            with under("weights"):
                tensors = weights.load(self.weights)
                if "embed_out.weight" in tensors:  # its name before transformers 5
                    tensors["lm_head.weight"] = tensors.pop("embed_out.weight")
                weights.fill(network, tensors, self.weights)
        return network

    def _given(self, key: str) -> int:
        """A dimension as configured, or else as of `size`."""
        value: Optional[int] = getattr(self, key)
        if value is None and self.size is not None:
            value = getattr(SIZES[self.size], key)
        if value is None:
            raise ConfigError(key, "needed when there is no size (one of " + ", ".join(SIZES) + ")")
        return value

    def _check_architecture(self, size: Dimensions, theirs: dict[str, Any]) -> None:
        """Refuse what the shapes cannot show: other heads, rotation, activation than the checkpoint's."""
        rope = theirs.get("rope_parameters") or {}
        kind = theirs.get("model_type", "gpt_neox"), theirs.get("hidden_act", "gelu"), rope.get("rope_type", "default")
        plain = kind == ("gpt_neox", "gelu", "default") and not theirs.get("rope_scaling")
        require(plain, "weights", self.weights, f"a plain GPT-NeoX checkpoint, but {', '.join(map(str, kind))}")
        for key, ours, value in (
            ("vocab_size", size.vocab_size, theirs.get("vocab_size")),
            ("heads", size.heads, theirs.get("num_attention_heads")),
            ("rotary_pct", self.rotary_pct, rope.get("partial_rotary_factor", theirs.get("rotary_pct"))),
            ("rotary_base", self.rotary_base, rope.get("rope_theta", theirs.get("rotary_emb_base"))),
            ("layer_norm_eps", self.layer_norm_eps, theirs.get("layer_norm_eps")),
            ("parallel_residual", self.parallel_residual, theirs.get("use_parallel_residual")),
        ):
            require(value is None or ours == value, key, ours, f"that of the weights in {self.weights} ({value})")


def rotary_pairs(head_size: int, fraction: float) -> int:
    """How many pairs of a head's dimensions are rotated."""
    return math.ceil(int(head_size * fraction) / 2)


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

    def __init__(self, size: Dimensions, eps: float, parallel: bool) -> None:
        super().__init__()
        self.parallel = parallel
        self.input_layernorm = nn.LayerNorm(size.hidden_size, eps)
        self.post_attention_layernorm = nn.LayerNorm(size.hidden_size, eps)
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

    def __init__(self, size: Dimensions, config: GPTNeoX) -> None:
        super().__init__()
        self.embed_in = Embedding(size.vocab_size, size.hidden_size)
        self.layers = nn.ModuleList(
            Layer(size, config.layer_norm_eps, config.parallel_residual) for _ in range(size.layers)
        )
        self.final_layer_norm = nn.LayerNorm(size.hidden_size, config.layer_norm_eps)
        self.rotary = Rotary(int(size.hidden_size // size.heads * config.rotary_pct), config.rotary_base)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, length = tokens.shape
        cos, sin = self.rotary(length, tokens.device)
        x = self.embed_in(tokens).flatten(0, 1)  # [batch · length, hidden]: matrices are all a linear layer needs
        for layer in self.layers:
            x = layer(x, batch, cos, sin)
        return self.final_layer_norm(x)  # type: ignore[no-any-return]


class Network(nn.Module):
    """The language model itself; `GPTNeoX.build` makes one (its parameters are uninitialised before)."""

    def __init__(self, size: Dimensions, config: GPTNeoX) -> None:
        super().__init__()
        self.gpt_neox = Body(size, config)
        self.lm_head = Linear(size.hidden_size, size.vocab_size, bias=False)

    def logits(self, tokens: Tensor) -> Tensor:
        """int64 [batch, length] → [batch, length, vocabulary]: of each position's next token."""
        return self.lm_head(self.gpt_neox(tokens)).view(*tokens.shape, -1)  # type: ignore[no-any-return]

    def forward(self, batch: Tensor) -> Tensor:
        """int64 [batch, length + 1] → mean cross-entropy of its `length` next tokens, in nats, fp32 at least."""
        logits = self.lm_head(self.gpt_neox(batch[:, :-1]))  # [batch · length, vocabulary]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(logits, batch[:, 1:].reshape(-1))


@hookimpl
def register_models(register: Register) -> None:
    register("gpt_neox", GPTNeoX)
