"""ExecuTorch's own transformer of its examples for LLMs (`construct_transformer`), as a source."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from orchestrator.frontend.errors import ModelError
from orchestrator.llm.hf_config import frequency_factors
from orchestrator.llm.metadata import Metadata
from orchestrator.llm.source import Source

_FACTORS, _HEAD, _WORDS = "rope_freqs.weight", "output.weight", "token_embd.weight"
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# By the decoder's names, without the layer and what follows the last dot.
_NAMES = {
    "token_embd": "tok_embeddings",
    "output_norm": "norm",
    "attn_norm": "attention_norm",
    "attn_q": "attention.wq",
    "attn_k": "attention.wk",
    "attn_v": "attention.wv",
    "attn_output": "attention.wo",
    "attn_q_norm": "attention.q_norm_fn",
    "attn_k_norm": "attention.k_norm_fn",
    "ffn_gate": "feed_forward.w1",
    "ffn_up": "feed_forward.w3",
    "ffn_down": "feed_forward.w2",
}
_SIZES = {
    "embedding_length": "dim",
    "block_count": "n_layers",
    "attention.head_count": "n_heads",
    "attention.head_count_kv": "n_kv_heads",
    "attention.key_length": "head_dim",
    "attention.value_length": "head_dim",
    "feed_forward_length": "hidden_dim",
    "context_length": "max_context_len",
    "attention.layer_norm_rms_epsilon": "norm_eps",
    "rope.freq_base": "rope_freq_base",
}
# What is read here, and what changes no scores: how it is exported, and what other switches use.
_READ = {"vocab_size", "rope_theta", "attention_qkv_bias", "use_qk_norm", "qk_norm_before_rope"}
_READ |= {"use_hf_rope", "use_scaled_rope", "rope_scale_factor", "high_freq_factor"}
_UNUSED = {"multiple_of", "ffn_dim_multiplier", "model_architecture", "max_batch_size"}
_UNUSED |= {"max_seq_len", "use_kv_cache", "use_sdpa_with_kv_cache_op", "device"}
_UNUSED |= {"generate_full_logits", "enable_dynamic_shape", "kv_io_bit_width"}
_UNUSED |= {"bos_idx", "eos_idx", "bos_count", "eos_count", "base_model_name_or_path"}
_UNUSED |= {"linear_conv_kernel_dim", "linear_key_head_dim", "linear_value_head_dim"}
_UNUSED |= {"linear_num_key_heads", "linear_num_value_heads", "original_max_position_embeddings"}
_UNUSED |= {"max_position_embeddings"}  # of LongRoPE
_TRAINED = 8192  # positions that Llama 3 was trained for, which ExecuTorch's scaling goes by


class ExecutorchTransformer(Source):
    """The decoder of a `Transformer` as `construct_transformer` makes it; it has no tokenizer."""

    has_tokenizer = False

    def __init__(self, model: nn.Module) -> None:
        """Read its sizes.

        Raises:
            ModelError: it is another module, or has a switch on that is not known here.
        """
        args: Any = getattr(model, "params", None)
        name = type(model).__name__
        if args is None or type(args).__name__ != "ModelArgs":
            raise ModelError(
                f"a module of class {name} is no source; expected the Transformer of "
                "executorch.examples.models.llama, a Hugging Face folder, or a GGUF file"
            )
        self._args = args
        _refuse_variants(args)
        family = _family(args)
        sizes = {f"{family}.{key}": getattr(args, field) for key, field in _SIZES.items()}
        super().__init__(name, {"general.architecture": family, **sizes})
        self.pairs_neighbours = not args.use_hf_rope
        self._tensors = dict(model.named_parameters(remove_duplicate=False))
        words, head = (self._tensors.get(_their_name(each)) for each in (_WORDS, _HEAD))
        self._tied = words is not None and head is not None and _are_equal(words, head)

    @property
    def names(self) -> frozenset[str]:
        """The names of the tensors that it has beside those of all decoders."""
        head = set() if self._tied else {_HEAD}
        return frozenset(head | {_FACTORS} if self._args.use_scaled_rope else head)

    @property
    def vocabulary(self) -> int:
        """How many tokens the model scores."""
        return int(self._args.vocab_size)

    def weight(self, name: str) -> Tensor:
        """Return a tensor in its own type, by the decoder's name for it.

        Raises:
            ModelError: there is no such tensor, or its type is not known here.
        """
        if name == _FACTORS:
            return self._factors()
        theirs = _their_name(name)
        if theirs not in self._tensors:
            raise ModelError(f"{self.name} has no parameter {theirs!r}")
        value = self._tensors[theirs].detach()
        if type(value) is not Tensor or value.dtype not in _DTYPES:
            raise ModelError(
                f"{self.called(name)} is {type(value).__name__} of {value.dtype}; expected "
                "float32, float16 or bfloat16: lower a quantized transformer with `lower`"
            )
        return value

    def _factors(self) -> Tensor:
        args = self._args
        scaling = {
            "rope_type": "llama3",
            "rope_theta": float(args.rope_freq_base),
            "factor": args.rope_scale_factor,
            "low_freq_factor": 1,
            "high_freq_factor": args.high_freq_factor,
            "original_max_position_embeddings": _TRAINED,
        }
        config = Metadata(self.name, {"rope_parameters": scaling, "head_dim": args.head_dim})
        factors = frequency_factors(config)
        assert factors is not None
        return factors

    def called(self, name: str) -> str:
        """Return what errors call a tensor."""
        return f"{self.name}: parameter {_their_name(name)!r}"

    def refuse_others(self, used: Iterable[str]) -> None:
        """Refuse parameters that no part of the decoder has read.

        Raises:
            ModelError: there are some.
        """
        known = {_their_name(name) for name in used} | (
            {_their_name(_HEAD)} if self._tied else set()
        )
        left = sorted(set(self._tensors) - known)
        if left:
            raise ModelError(
                f"{self.name} has {len(left)} parameters that the decoder here does not use, such "
                f"as {left[0]!r}"
            )


def _their_name(name: str) -> str:
    """Return a parameter's name for a decoder's."""
    stem, _, kind = name.rpartition(".")
    if not stem.startswith("blk."):
        return f"{_NAMES.get(stem, stem)}.{kind}"
    _, index, part = stem.split(".", 2)
    return f"layers.{index}.{_NAMES.get(part, part)}.{kind}"


def _are_equal(one: Tensor, other: Tensor) -> bool:
    return one is other or (one.dtype == other.dtype and torch.equal(one, other))


def _family(args: Any) -> str:
    """Return the architecture that has the same switches on."""
    if not args.attention_qkv_bias and not args.use_qk_norm:
        return "llama"
    found = (bool(args.attention_qkv_bias), bool(args.use_qk_norm), bool(args.use_hf_rope))
    family = {(True, False, True): "qwen2", (False, True, True): "qwen3"}.get(found)
    if family is None or (args.use_qk_norm and not args.qk_norm_before_rope):
        raise ModelError(
            "ModelArgs: attention_qkv_bias or use_qk_norm is on in a way that is not done here; "
            "expected one of them, use_hf_rope with it, and qk_norm_before_rope with use_qk_norm"
        )
    return family


def _refuse_variants(args: Any) -> None:
    """Refuse all switches that are not at their defaults, but for those that are known."""
    known = {*_SIZES.values(), *_READ, *_UNUSED}
    for field in dataclasses.fields(args):
        value, default = getattr(args, field.name), _default(field)
        if field.name not in known and value != default:
            raise ModelError(f"ModelArgs: {field.name} is {value!r}, which is not done here")
    if args.use_hf_rope and args.use_scaled_rope:
        raise ModelError("ModelArgs: use_scaled_rope does nothing with use_hf_rope; turn it off")


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
