"""GPT-NeoX, the architecture of the Pythia models: sizes, shapes, initial weights (the network is next door)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Optional

import torch

from halos.errors import ConfigError, did_you_mean, from_here, require, shown, under
from halos.hooks import Register, hookimpl
from halos.models import weights
from halos.models.neox_size import Dimensions, rotary_pairs
from halos.seeds import seed_for

if TYPE_CHECKING:
    from halos.models.neox_network import Network
    from halos.models.neox_stacked import StackedNetwork


def pythia(hidden_size: int, layers: int, heads: int) -> Dimensions:
    return Dimensions(hidden_size, layers, heads, 4 * hidden_size, 50304)


logger = logging.getLogger(__name__)

SIZES = {  # arXiv 2304.01373, Table 1
    "pythia-14m": pythia(128, 6, 4),
    "pythia-31m": pythia(256, 6, 8),
    "pythia-70m": pythia(512, 6, 8),
    "pythia-160m": pythia(768, 12, 12),
    "pythia-410m": pythia(1024, 24, 16),
    "pythia-1b": pythia(2048, 16, 8),
}


MOST_LAYERS = 10_000  # layers; to list the shapes of ever more would take for ever
WIDEST = 1_000_000_000  # any dimension: the elements of a matrix are counted in 63 bits


@dataclass(frozen=True)
class GPTNeoX:
    """GPT-NeoX language model (arXiv 2204.06745): a Pythia `size`, dimensions of one's own, or both.

    Dimensions that are given override those of `size`; without a size, `hidden_size`, `layers` and
    `heads` are needed.
    """

    language_model: ClassVar[bool] = True

    size: Optional[str] = None  # pythia-14m, pythia-31m, pythia-70m, pythia-160m, pythia-410m or pythia-1b
    hidden_size: Optional[int] = None  # the width of the residual stream
    layers: Optional[int] = None  # how many
    heads: Optional[int] = None  # attention heads; divides `hidden_size`
    intermediate_size: Optional[int] = None  # of the MLP; null: 4 · `hidden_size`
    vocab_size: Optional[int] = None  # null: the data's, and if that is unknown too, the size's own (50304)
    rotary_pct: float = 0.25  # fraction of each head's dimensions that carry the position
    rotary_base: float = 10000.0  # of the angles' wavelengths
    layer_norm_eps: float = 1e-5  # added to variances
    parallel_residual: bool = True  # attention and MLP read the same input; false: one after the other
    initializer_range: float = 0.02  # standard deviation of the initial matrices; biases are 0
    # To start from: a Hugging Face checkpoint folder, a run folder, or a `.safetensors`, `.pt`, `.bin` or `.npz` file.
    # Nothing is downloaded.
    weights: Optional[Path] = None
    wire_bytes: Optional[int] = None  # of the whole model in fp32, on the wire; null: 4 per parameter
    seed: Optional[int] = None  # of the initial weights; null: the run's

    def __post_init__(self) -> None:
        if self.size is not None and self.size not in SIZES:
            near = did_you_mean(self.size, SIZES)
            raise ConfigError(
                "size", f"{shown(self.size)} is not one that is known{near}; there are: {', '.join(SIZES)}"
            )
        for key in ("hidden_size", "layers", "heads", "intermediate_size", "vocab_size", "wire_bytes"):
            value = getattr(self, key)
            require(value is None or value >= 1, key, value, "a positive number")
            fits = key in ("layers", "wire_bytes") or value is None or value <= WIDEST
            require(fits, key, value, f"at most {WIDEST:,}")
        hidden_size, heads = self._given("hidden_size"), self._given("heads")
        require(self._given("layers") <= MOST_LAYERS, "layers", self.layers, f"at most {MOST_LAYERS:,}")
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
        require(own <= WIDEST, "vocab_size", own, f"at most {WIDEST:,}")
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
        from halos.models.neox_network import Network  # loads PyTorch, for its classes

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
            self._check_architecture(size, theirs, from_here(self.weights))
            with under("weights"):
                tensors = weights.load_tensors(self.weights)
                if "embed_out.weight" in tensors:  # its name before transformers 5
                    tensors["lm_head.weight"] = tensors.pop("embed_out.weight")
                if theirs.get("tie_word_embeddings") and "gpt_neox.embed_in.weight" in tensors:
                    tensors["lm_head.weight"] = tensors["gpt_neox.embed_in.weight"]
                    logger.info("weights: the checkpoint's head is its embedding; here it begins as a copy of that")
                weights.fill(network, tensors, self.weights)
        return network

    def stacked(self, module: torch.nn.Module) -> StackedNetwork:
        """Return the network of several workers, by batched matrix products."""
        from halos.models.neox_stacked import StackedNetwork

        network: Any = module
        return StackedNetwork(network)

    def logits(self, module: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        """Return the logits of every next token, [batch, length, vocabulary]."""
        network: Any = module
        logits: torch.Tensor = network.logits(batch[:, :-1])
        return logits

    def metrics(self, module: torch.nn.Module, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the loss, and the accuracy: the fraction of tokens that are the likeliest ones."""
        network: Any = module  # what `build` has built
        logits, tokens = network.logits(batch[:, :-1]), batch[:, 1:]
        loss: torch.Tensor = network.loss(logits, tokens)
        return {"loss": loss, "accuracy": (logits.argmax(-1) == tokens).double().mean()}

    def hugging_face(
        self, tensors: dict[str, torch.Tensor], sequence_length: int
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """As `GPTNeoXForCausalLM`, in the names of transformers before version 5, which later ones understand."""
        named = {"embed_out.weight" if name == "lm_head.weight" else name: each for name, each in tensors.items()}
        size = self.dimensions(len(tensors["gpt_neox.embed_in.weight"]))
        config = {
            "model_type": "gpt_neox",
            "architectures": ["GPTNeoXForCausalLM"],
            "vocab_size": size.vocab_size,
            "hidden_size": size.hidden_size,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "intermediate_size": size.intermediate_size,
            "hidden_act": "gelu",
            "rotary_pct": self.rotary_pct,
            "rotary_emb_base": self.rotary_base,
            "layer_norm_eps": self.layer_norm_eps,
            "use_parallel_residual": self.parallel_residual,
            "initializer_range": self.initializer_range,
            "max_position_embeddings": sequence_length,
            "tie_word_embeddings": False,
            "bos_token_id": None,
            "eos_token_id": None,
            "torch_dtype": "float32",
        }
        return config, named

    def _given(self, key: str) -> int:
        """A dimension as configured, or else as of `size`."""
        value: Optional[int] = getattr(self, key)
        if value is None and self.size is not None:
            value = getattr(SIZES[self.size], key)
        if value is None:
            raise ConfigError(key, "needed when there is no size (one of " + ", ".join(SIZES) + ")")
        return value

    def _check_architecture(self, size: Dimensions, theirs: dict[str, Any], here: str) -> None:
        """Refuse what the shapes cannot show: other heads, rotation, activation than the checkpoint `here`."""
        rope = theirs.get("rope_parameters") or {}
        require(
            isinstance(rope, dict),
            "weights",
            here,
            f"a GPT-NeoX checkpoint: its rope_parameters are {shown(rope)}",
        )
        kind = theirs.get("model_type", "gpt_neox"), theirs.get("hidden_act", "gelu"), rope.get("rope_type", "default")
        plain = kind == ("gpt_neox", "gelu", "default") and not theirs.get("rope_scaling")
        require(plain, "weights", here, f"a plain GPT-NeoX checkpoint, but {', '.join(map(str, kind))}")
        for key, ours, value in (
            ("vocab_size", size.vocab_size, theirs.get("vocab_size")),
            ("heads", size.heads, theirs.get("num_attention_heads")),
            ("rotary_pct", self.rotary_pct, rope.get("partial_rotary_factor", theirs.get("rotary_pct"))),
            ("rotary_base", self.rotary_base, rope.get("rope_theta", theirs.get("rotary_emb_base"))),
            ("layer_norm_eps", self.layer_norm_eps, theirs.get("layer_norm_eps")),
            ("parallel_residual", self.parallel_residual, theirs.get("use_parallel_residual")),
        ):
            require(value is None or ours == value, key, ours, f"that of the weights in {here} ({value})")


@hookimpl
def register_models(register: Register) -> None:
    register("gpt_neox", GPTNeoX)
