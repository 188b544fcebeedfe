"""Writes a checkpoint of random weights in the shape of a real model, to serve and time where no real weights are at
hand. Takes config, tokenizer and chat template of the bundled model, whose vocabulary is a part of the larger one; rows
of the head beyond it are zeros, so that what is generated has a text. The order of heads in heads.json means nothing.

    python3 loadtest/gpu/random_checkpoint.py --shape llama-3.1-8b --out DIR
    npm start -- --engine cuda --model DIR
"""
import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

SHAPES = {
    "llama-3.1-8b": dict(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
        head_dim=128, vocab_size=128256, max_position_embeddings=131072, rope_theta=500000.0,
    ),
    "llama-2-7b": dict(
        hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=32,
        head_dim=128, vocab_size=32000, max_position_embeddings=131072, rope_theta=5000000.0,
    ),
}
BUNDLED = Path(__file__).resolve().parents[2] / "models" / "longspan-16m"


def tensor_shapes(shape):
    """Name and shape of every tensor of one layer, then those outside layers."""
    hidden, inner = shape["hidden_size"], shape["intermediate_size"]
    queries, keys = (shape[name] * shape["head_dim"] for name in ("num_attention_heads", "num_key_value_heads"))
    layer = {
        "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
        "self_attn.q_proj": (queries, hidden), "self_attn.k_proj": (keys, hidden), "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden), "mlp.down_proj": (hidden, inner),
    }
    outside = {"model.embed_tokens": (shape["vocab_size"], hidden), "model.norm": (hidden,), "lm_head": (shape["vocab_size"], hidden)}
    return layer, outside


def random_tensor(name, size):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if "norm" in name:
        return torch.ones(size, dtype=torch.bfloat16)
    return torch.empty(size, dtype=torch.bfloat16, device=device).normal_(0, 0.02).cpu()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.1-8b")
    parser.add_argument("--layers", type=int, help="fewer layers than the model has")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    shape = {**SHAPES[options.shape], **({"num_hidden_layers": options.layers} if options.layers else {})}
    torch.manual_seed(1)
    bundled = json.loads((BUNDLED / "config.json").read_text())
    options.out.mkdir(parents=True, exist_ok=True)
    layer, outside = tensor_shapes(shape)
    files, total = {}, 0
    groups = [{f"model.layers.{i}.{name}.weight": size for name, size in layer.items()} for i in range(shape["num_hidden_layers"])]
    groups.append({f"{name}.weight": size for name, size in outside.items()})
    for index, group in enumerate(groups, 1):
        file = f"model-{index:05d}-of-{len(groups):05d}.safetensors"
        tensors = {name: random_tensor(name, size) for name, size in group.items()}
        if "lm_head.weight" in tensors:
            tensors["lm_head.weight"][bundled["vocab_size"]:] = 0
        save_file(tensors, options.out / file)
        files.update(dict.fromkeys(tensors, file))
        total += sum(tensor.nbytes for tensor in tensors.values())
    (options.out / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": files}))
    config = {
        **{name: bundled[name] for name in ("bos_token_id", "eos_token_id") if name in bundled},
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5,
        "torch_dtype": "bfloat16", "tie_word_embeddings": False, **shape,
    }
    (options.out / "config.json").write_text(json.dumps(config, indent=2))
    heads = [[i, head] for i in range(shape["num_hidden_layers"]) for head in range(shape["num_key_value_heads"])]
    (options.out / "heads.json").write_text(json.dumps({"order": heads[::2] + heads[1::2]}))
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja"):
        if (BUNDLED / name).exists():
            shutil.copy(BUNDLED / name, options.out / name)
    print(f"{options.out}: {total / 1e9:.2f} GB in {len(groups)} files")


if __name__ == "__main__":
    main()
