"""Causal language models of Hugging Face's transformers, by their configuration, to be trained as any other model.

Nothing is downloaded, and no code that comes with a checkpoint is run. transformers is loaded when it is first needed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any, ClassVar, Optional, Union

import torch

from halos import ConfigError, Register, UserError, did_you_mean, hookimpl, require, shown

# What configurations were given before these became parts of `rope_parameters`; still understood.
OLDER = {"rope_theta", "rope_scaling", "rotary_pct", "rotary_emb_base", "partial_rotary_factor"}


@dataclass(frozen=True)
class Transformers:
    """A causal language model of transformers: with random weights, or a local checkpoint's.

    It trains in fp32 (or `train.precision`) on the mean cross-entropy of the next token alone: a router's auxiliary
    losses are left out. Tied tensors are one, and dropout is as configured. Its timeline needs its shapes, for which
    no weights are made.
    """

    language_model: ClassVar[bool] = True

    # What `config.json` has: `{model_type: llama, hidden_size: 64, …}`, such a file, or the folder that it is in. What
    # a mapping leaves out is as in transformers, but `vocab_size`: the data's. null: that of `weights`.
    config: Union[Path, dict[str, Any], None] = None
    weights: Optional[Path] = None  # a local checkpoint folder (`save_pretrained`); null: random, by the seed
    wire_bytes: Optional[int] = None  # of the whole model in fp32, on the wire; null: 4 per parameter
    seed: Optional[int] = None  # of the initial weights; null: the run's

    def __post_init__(self) -> None:
        require(self.wire_bytes is None or self.wire_bytes >= 1, "wire_bytes", self.wire_bytes, "a positive number")
        if self.config is None and self.weights is None:
            raise ConfigError("config", "missing; give {model_type: …}, a config.json, or weights that have one")
        if isinstance(self.config, dict) and not isinstance(self.config.get("model_type"), str):
            raise ConfigError("config.model_type", "missing; it says which architecture, for example gpt2 or llama")

    def shapes(self, vocab_size: Optional[int]) -> dict[str, tuple[int, ...]]:
        model = self._on_meta(self._resolved(vocab_size))
        return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}

    def build(self, vocab_size: Optional[int], seed: int) -> torch.nn.Module:
        """The model with weights as its own initialisation draws them (from global generators), or those of `weights`.

        Raises ConfigError if transformers has no such model, or the checkpoint does not fit.
        """
        config = self._resolved(vocab_size)
        model = (self._made(config) if self.weights is None else self._loaded(self.weights, config)).float()
        model.forward = MethodType(_mean_loss, model)  # names of parameters stay as transformers has them
        return model  # type: ignore[no-any-return]

    def logits(self, module: torch.nn.Module, batch: torch.Tensor) -> torch.Tensor:
        """Return the logits of every next token, [batch, length, vocabulary]."""
        return _logits(module, batch)

    def hugging_face(
        self, tensors: dict[str, torch.Tensor], sequence_length: int
    ) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """As it is: the names are the same."""
        config = self._resolved(None)
        model = self._on_meta(config)
        embedding = model.get_input_embeddings().weight
        (name,) = [name for name, parameter in model.named_parameters() if parameter is embedding]
        config.get_text_config().vocab_size = len(tensors[name])  # it may have been the data's
        described = json.loads(config.to_json_string(use_diff=False))
        return {**described, "architectures": [type(model).__name__], "use_cache": True}, tensors

    def _resolved(self, vocab_size: Optional[int]) -> Any:
        """The configuration as transformers has it. Raises ConfigError for one of which it can make nothing."""
        library = _library()
        inline = isinstance(self.config, dict)
        given = dict(self.config) if isinstance(self.config, dict) else _read(self.config or self.weights)
        kind = given.pop("model_type", None)
        known = library.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        if kind not in known:
            meant = did_you_mean(str(kind), known)
            raise ConfigError("config.model_type", f"{shown(kind)} is no causal language model of transformers{meant}")
        cls = library.CONFIG_MAPPING[kind]
        if inline:
            _refuse_unknown(given, cls)
            if vocab_size is not None:
                given.setdefault("vocab_size", vocab_size)
        try:
            config = cls.from_dict({**given, "use_cache": False})
        except Exception as error:  # each class has its own checks
            raise ConfigError("config", f"transformers cannot use it: {_line(error)}") from None
        own = config.get_text_config().vocab_size
        enough = f"enough for the data's {vocab_size} tokens"
        require(vocab_size is None or vocab_size <= own, "config.vocab_size", own, enough)
        return config

    def _made(self, config: Any) -> Any:
        """A model of that configuration, with weights as it draws them."""
        try:
            return _library().AutoModelForCausalLM.from_config(config)
        except Exception as error:
            raise ConfigError("config", f"transformers makes no model of it: {_line(error)}") from None

    def _on_meta(self, config: Any) -> Any:
        """The same, of shapes alone."""
        with torch.device("meta"):
            return self._made(config)

    def _loaded(self, folder: Path, config: Any) -> Any:
        """The model in a checkpoint folder, all of it."""
        require(folder.is_dir(), "weights", str(folder), "a local folder (nothing is downloaded)")
        try:
            model, info = _library().AutoModelForCausalLM.from_pretrained(
                folder, config=config, local_files_only=True, output_loading_info=True
            )
        except Exception as error:  # a file that is missing or damaged, shapes that differ
            raise ConfigError("weights", f"{str(folder)!r} cannot be loaded: {_line(error)}") from None
        for what, missing in (("lacks", info["missing_keys"]), ("has another shape of", info["mismatched_keys"])):
            if missing:
                first = sorted(map(str, missing))[0]
                more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
                raise ConfigError("weights", f"{str(folder)!r} {what} {first}{more}")
        return model


def _mean_loss(self: Any, batch: torch.Tensor) -> torch.Tensor:
    """int64 [batch, length + 1] → mean cross-entropy of its `length` next tokens, in nats, fp32 at least."""
    length, most = batch.shape[1] - 1, getattr(self.config.get_text_config(), "max_position_embeddings", None)
    if most is not None and length > most:
        raise ConfigError("data.sequence_length", f"{length} is more than the model's max_position_embeddings, {most}")
    logits = _logits(self, batch).flatten(0, 1)  # [batch · length, vocabulary]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.nn.functional.cross_entropy(logits, batch[:, 1:].reshape(-1))


def _logits(model: Any, batch: torch.Tensor) -> torch.Tensor:
    """int64 [batch, length + 1] → logits of its `length` next tokens, [batch, length, vocabulary]."""
    return type(model).forward(model, input_ids=batch[:, :-1]).logits  # type: ignore[no-any-return]


def _library() -> Any:
    """transformers, quiet. Raises UserError if it is not installed."""
    try:
        import transformers
    except ImportError:
        raise UserError("transformers is not installed; run: pip install halos-transformers[hf]") from None
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    return transformers


def _read(given: Optional[Path]) -> dict[str, Any]:
    """A `config.json`, or that of a folder."""
    assert given is not None, "__post_init__ has seen to it"
    file = given / "config.json" if given.is_dir() else given
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError("config", f"{str(file)!r} cannot be read: {_line(error)}") from None
    if not isinstance(found, dict):
        raise ConfigError("config", f"{str(file)!r} is no JSON object")
    return found


def _refuse_unknown(given: dict[str, Any], cls: Any) -> None:
    """Raise ConfigError for a key that transformers would take, and never look at."""
    known = {*cls().to_dict(), *cls.attribute_map, *OLDER}
    for key in given:
        if key not in known:
            raise ConfigError(f"config.{key}", f"{cls.model_type} has no such key{did_you_mean(key, known)}")


def _line(error: BaseException) -> str:
    """An error's own words, in one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


@hookimpl
def register_models(register: Register) -> None:
    register("transformers", Transformers)
