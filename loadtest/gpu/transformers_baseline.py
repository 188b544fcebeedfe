"""What people would use on the same card: Hugging Face transformers with PyTorch's flash attention, beside the
ceilings of the card. Knows nothing of Longspan; run by hand next to `npm run bench:gpu`, prints a table and, last,
one JSON line. Weights are random, in bf16, of the shape of Llama-3.1-8B: speed does not depend on what they hold.

    python3 loadtest/gpu/transformers_baseline.py [--seconds 90] [--lengths 8192,32768,131072]
"""
import argparse
import json
import statistics
import time

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

SHAPE = dict(
    hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
    head_dim=128, vocab_size=128256, max_position_embeddings=262144, rope_theta=500000.0, tie_word_embeddings=False,
)


def milliseconds(work, repeats):
    """Median of `repeats` calls by device events, one call before them to warm up; of one call that takes long, itself."""
    if repeats > 1:
        work()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def ceilings():
    """Bytes read and written by a copy of 4 GiB, and operations of an 8192^3 product in bf16."""
    source = torch.randn(1 << 30, device="cuda")
    target = torch.empty_like(source)
    copy = milliseconds(lambda: target.copy_(source), 10)
    del source, target
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = milliseconds(lambda: a @ b, 10)
    return {"copyBytesPerSecond": 2 * 4 * (1 << 30) / copy * 1e3, "bf16OperationsPerSecond": 2 * 8192**3 / product * 1e3}


def random_model():
    with torch.device("cuda"):
        model = LlamaForCausalLM._from_config(LlamaConfig(**SHAPE), attn_implementation="sdpa", dtype=torch.bfloat16)
    generator = torch.Generator("cuda").manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1) if "norm" in name else weight.normal_(0, 0.02, generator=generator)
    return model.eval()


def filled_cache(length, batch):
    """A cache of noise: what a prefill of `length` tokens leaves, in a fraction of its time."""
    cache = DynamicCache()
    for layer in range(SHAPE["num_hidden_layers"]):
        shape = (batch, SHAPE["num_key_value_heads"], length, SHAPE["head_dim"])
        cache.update(*(torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(2)), layer)
    return cache


@torch.inference_mode()
def prefill(model, length, repeats):
    ids = torch.randint(0, SHAPE["vocab_size"], (1, length), device="cuda")

    def work():
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            model(input_ids=ids, use_cache=True, logits_to_keep=1, past_key_values=DynamicCache())

    return milliseconds(work, repeats)


@torch.inference_mode()
def decode(model, length, batch, steps):
    cache = filled_cache(length, batch)
    ids = torch.randint(0, SHAPE["vocab_size"], (batch, 1), device="cuda")
    return milliseconds(lambda: model(input_ids=ids, use_cache=True, past_key_values=cache), steps)


def attempt(rows, row, work):
    """Adds the row with its figure, or with why there is none."""
    torch.cuda.empty_cache()
    try:
        rows.append({**row, "ms": work()})
    except torch.cuda.OutOfMemoryError:
        rows.append({**row, "ms": None, "why": "out of memory"})
    except RuntimeError as error:
        rows.append({**row, "ms": None, "why": str(error).splitlines()[0]})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=90, help="start no further row after this many seconds")
    parser.add_argument("--lengths", default="8192,32768,131072")
    options = parser.parse_args()
    began = time.monotonic()
    limits = ceilings()
    print(f"copy {limits['copyBytesPerSecond'] / 1e12:.2f} TB/s, bf16 {limits['bf16OperationsPerSecond'] / 1e12:.0f} TFLOP/s", flush=True)
    model = random_model()
    lengths = [int(length) for length in options.lengths.split(",")]
    work = [({"work": "decode", "tokens": n, "batch": batch}, lambda n=n, batch=batch: decode(model, n, batch, 10)) for n in lengths for batch in (1, 8)]
    work += [({"work": "prefill", "tokens": n, "batch": 1}, lambda n=n: prefill(model, n, 3 if n <= 32768 else 1)) for n in lengths]
    rows = []
    for row, measure in work:
        if time.monotonic() - began > options.seconds:
            rows.append({**row, "ms": None, "why": "not run: out of time"})
        else:
            attempt(rows, row, measure)
        print(rows[-1], flush=True)
    print(json.dumps({"baseline": "transformers", "torch": torch.__version__, "device": torch.cuda.get_device_name(), **limits, "rows": rows}))


if __name__ == "__main__":
    main()
