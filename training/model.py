"""The model: a Llama decoder with tied head, in PyTorch, and its form as a checkpoint in Hugging Face's format.
Knows no training. Called by train.py, distill.py and evaluate.py."""
import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F

from corpus import END_OF_TEXT, TURN_END, VOCAB

NORM_EPS = 1e-5
# Training needs a GPU; without one the stages run for rehearsal only.
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Shape:
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    inner: int
    theta: float
    context: int
    head_dim: int = 64


TARGET = Shape(hidden=384, layers=8, heads=6, kv_heads=2, inner=1024, theta=1e7, context=131072)
TEACHER = Shape(hidden=768, layers=8, heads=12, kv_heads=6, inner=2048, theta=1e4, context=2048)
DRAFTER = Shape(hidden=128, layers=4, heads=2, kv_heads=1, inner=384, theta=1e4, context=4096)


class Norm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight, NORM_EPS)


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


class Attention(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.shape = shape
        queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden, queries, bias=False)
        self.k_proj = nn.Linear(shape.hidden, keys, bias=False)
        self.v_proj = nn.Linear(shape.hidden, keys, bias=False)
        self.o_proj = nn.Linear(queries, shape.hidden, bias=False)

    def forward(self, x, cos, sin):
        batch, tokens, _ = x.shape
        heads = lambda y, count: y.view(batch, tokens, count, self.shape.head_dim).transpose(1, 2)
        q = rotate(heads(self.q_proj(x), self.shape.heads), cos, sin)
        k = rotate(heads(self.k_proj(x), self.shape.kv_heads), cos, sin)
        v = heads(self.v_proj(x), self.shape.kv_heads)
        group = self.shape.heads // self.shape.kv_heads
        out = F.scaled_dot_product_attention(q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1), is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(batch, tokens, -1))


class FeedForward(nn.Module):
    def __init__(self, shape):
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.inner, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.inner, bias=False)
        self.down_proj = nn.Linear(shape.inner, shape.hidden, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, shape, dropout):
        super().__init__()
        self.dropout = dropout
        self.self_attn = Attention(shape)
        self.mlp = FeedForward(shape)
        self.input_layernorm = Norm(shape.hidden)
        self.post_attention_layernorm = Norm(shape.hidden)

    def forward(self, x, cos, sin):
        x = x + F.dropout(self.self_attn(self.input_layernorm(x), cos, sin), self.dropout, self.training)
        return x + F.dropout(self.mlp(self.post_attention_layernorm(x)), self.dropout, self.training)


class Decoder(nn.Module):
    def __init__(self, shape, dropout=0.0):
        super().__init__()
        self.shape = shape
        self.dropout = dropout
        self.embed_tokens = nn.Embedding(VOCAB, shape.hidden)
        self.layers = nn.ModuleList([Layer(shape, dropout) for _ in range(shape.layers)])
        self.norm = Norm(shape.hidden)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                into_stream = name.endswith(("o_proj.weight", "down_proj.weight"))
                deviation = 0.02 if "embed" in name else 0.5 / math.sqrt(weight.shape[1]) * (0.3 if into_stream else 1)
                nn.init.normal_(weight, std=deviation)

    def hidden(self, ids, positions=None):
        """Normed states. ids [batch, tokens], positions the same, float; None counts from 0. -> [batch, tokens, hidden]"""
        shape = self.shape
        frequencies = shape.theta ** (-torch.arange(0, shape.head_dim, 2, device=ids.device, dtype=torch.float32) / shape.head_dim)
        if positions is None:
            positions = torch.arange(ids.shape[1], device=ids.device, dtype=torch.float32)[None]
        angles = positions[:, None, :, None] * frequencies
        cos, sin = angles.cos().to(torch.bfloat16), angles.sin().to(torch.bfloat16)
        x = F.dropout(self.embed_tokens(ids), self.dropout, self.training)
        for layer in self.layers:
            x = layer(x, cos, sin)
        return self.norm(x)

    def logits(self, hidden):
        return F.linear(hidden, self.embed_tokens.weight)

    def probabilities(self, ids):
        """What comes next, [batch, tokens, VOCAB] float32."""
        return torch.softmax(self.logits(self.hidden(ids)).float(), -1)

    def forward(self, ids, targets, weights, positions, samples=None, hard=None):
        """Weighted mean of the loss, and the loss of each token. All [batch, tokens]. Of the first rows the aim is the
        target by the share `hard` alone, [rows, 1], by the rest tokens that stand for a distribution,
        [rows, tokens, count]."""
        logits = self.logits(self.hidden(ids, positions)).float()
        total = logits.logsumexp(-1)
        losses = total - logits.gather(-1, targets[..., None])[..., 0]
        if samples is not None:
            soft = len(samples)
            expected = total[:soft] - logits[:soft].gather(-1, samples.long()).mean(-1)
            losses = torch.cat([hard * losses[:soft] + (1 - hard) * expected, losses[soft:]])
        return (losses * weights).sum() / weights.sum().clamp(min=1), losses


def save_checkpoint(model, folder, pieces=1):
    """float16 safetensors and config.json. pieces: files that the tensors are parted into, which export.py --join puts together."""
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{name}": weight.detach().half().cpu().contiguous() for name, weight in model.state_dict().items()}
    for piece, names in enumerate(parted(tensors, pieces)):
        name = "model.safetensors" if pieces == 1 else f"model-{piece}.safetensors"
        save_file({name: tensors[name] for name in names}, folder / name)
    shape = model.shape
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": shape.hidden, "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads, "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim,
        "intermediate_size": shape.inner, "vocab_size": VOCAB, "rope_theta": shape.theta, "rms_norm_eps": NORM_EPS,
        "tie_word_embeddings": True, "max_position_embeddings": shape.context, "hidden_act": "silu",
        "bos_token_id": END_OF_TEXT, "eos_token_id": TURN_END, "torch_dtype": "float16",
    }, indent=1) + "\n")


def parted(tensors, pieces):
    """Their names in `pieces` parts of about the same size, each in order."""
    parts, sizes = [[] for _ in range(pieces)], [0] * pieces
    for name in sorted(tensors, key=lambda name: (-tensors[name].numel(), name)):
        least = sizes.index(min(sizes))
        parts[least].append(name)
        sizes[least] += tensors[name].numel()
    return [sorted(part) for part in parts]


def shape_of(source):
    """The shape of what load_weights would read, by its width."""
    return next(shape for shape in (TARGET, TEACHER, DRAFTER) if shape.hidden == read_weights(source)["norm.weight"].shape[0])


def load_weights(model, source):
    """From a checkpoint of training, or from a folder that save_checkpoint wrote in one piece."""
    model.load_state_dict(read_weights(source))


def read_weights(source):
    """-> weights by name, float32"""
    if not Path(source).is_dir():
        return torch.load(source, map_location="cpu", weights_only=False)["model"]
    from safetensors.torch import load_file

    return {name.removeprefix("model."): tensor.float() for name, tensor in load_file(Path(source) / "model.safetensors").items()}
