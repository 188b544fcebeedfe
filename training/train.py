"""Trains the target, a stage a call; each goes on from the checkpoint of the one before.

    python3 training/train.py --stage short --corpus CORPUS --tokenizer TOKENIZER.json --work DIR
    python3 training/train.py --stage long  ... --from DIR/short.pt
    python3 training/train.py --stage full  ... --from DIR/long.pt

short: 2,048 tokens. long: 16,384 tokens whose positions are spread over 131,072. full: 131,072 tokens.
The stages short-tasks and long-tasks are a second round with more of what is asked about texts.
The same seed gives the same texts in the same order; a stage that is ended by --seconds instead of its steps says so.
"""
import argparse
import time
from pathlib import Path

import torch

from corpus import Corpus, read_books, read_tokenizer
from evaluate import held_out_bits
from model import TARGET, Decoder, load_weights
from optimizer import Optimizers
from tasks import FULL_MIX, LONG_MIX, SHORT_MIX, TASKS_MIX, Tasks

CONTEXT = TARGET.context
# rates: factor on the learning rates at the first and at the last step, linear between them after `flat` of the steps.
SHORT = dict(length=2048, batch=96, flat=0.0, spread=False)
LONG = dict(length=16384, batch=12, flat=0.0, spread=True)
FULL = dict(length=131072, batch=2, flat=0.0, spread=False)
STAGES = {
    "short": dict(SHORT, steps=3800, mix=SHORT_MIX, seed=1 * 10**8, rates=(1.0, 0.35), flat=0.4, warm_up=60, dropout=0.1),
    "long": dict(LONG, steps=480, mix=LONG_MIX, seed=2 * 10**8, rates=(0.45, 0.2), warm_up=10, dropout=0.05),
    "full": dict(FULL, steps=90, mix=FULL_MIX, seed=3 * 10**8, rates=(0.2, 0.0), warm_up=4, dropout=0.0),
    # A second round, for what the first leaves weak: variable tracking, several values, short texts with one needle.
    "short-tasks": dict(SHORT, steps=1450, mix=TASKS_MIX, seed=4 * 10**8, rates=(0.5, 0.25), warm_up=60, dropout=0.05),
    "long-tasks": dict(LONG, steps=390, mix=TASKS_MIX, seed=5 * 10**8, rates=(0.3, 0.0), warm_up=10, dropout=0.0),
}


class Stream(torch.utils.data.IterableDataset):
    """Texts by ascending seed, whatever the number of workers: worker w of n makes every n-th batch."""

    def __init__(self, tasks, stage, first):
        self.tasks, self.stage, self.first = tasks, stage, first

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        batch, index = self.stage["batch"], self.first + worker.id
        while True:
            texts = [self.tasks.sample(self.stage["seed"] + index * batch + i, self.stage["length"] + 1, self.stage["mix"]) for i in range(batch)]
            yield tuple(torch.stack([torch.from_numpy(part) for part in parts]) for parts in zip(*texts))
            index += worker.num_workers


def spread_positions(batch, length, generator):
    """A few jumps ahead, so that distances of the whole context are seen in short texts. -> [batch, length] float32"""
    positions = torch.arange(length, dtype=torch.float32, device="cuda").expand(batch, length)
    jumps = 6
    draw = lambda *shape: torch.rand(*shape, device="cuda", generator=generator)
    places = (draw(batch, jumps) * length).sort(1).values
    gaps = draw(batch, jumps + 1)
    gaps = (gaps / gaps.sum(1, keepdim=True) * (CONTEXT - length) * draw(batch, 1))[:, :jumps].floor()
    return positions + ((positions[:, :, None] >= places[:, None, :]) * gaps[:, None, :]).sum(-1)


def rate_factor(stage, progress, step):
    """progress: 0..1 of the stage."""
    first, last = stage["rates"]
    fall = max(0.0, progress - stage["flat"]) / (1 - stage["flat"])
    return min(1, (step + 1) / stage["warm_up"]) * max(0.02, first + (last - first) * fall)


def train(options, stage, tasks, held_out):
    torch.manual_seed(stage["seed"])
    generator = torch.Generator("cuda").manual_seed(stage["seed"])
    model = Decoder(TARGET, stage["dropout"]).cuda()
    optimizers = Optimizers(model)
    if options.source:
        load(options.source, model, optimizers)
    compiled = torch.compile(model, dynamic=False) if options.compile else model
    loader = torch.utils.data.DataLoader(Stream(tasks, stage, 0), batch_size=None, num_workers=options.workers, prefetch_factor=4, pin_memory=True)
    steps = options.steps or stage["steps"]
    started, saved_at, timed_from = time.time(), time.time(), None
    plain = torch.arange(stage["length"], dtype=torch.float32, device="cuda").expand(stage["batch"], stage["length"]).contiguous()
    for step, (ids, weights) in enumerate(loader):
        ids, weights = ids.cuda(non_blocking=True), weights.cuda(non_blocking=True)
        positions = spread_positions(*plain.shape, generator).contiguous() if stage["spread"] else plain
        model.train()
        with torch.autocast("cuda", torch.bfloat16):
            loss, losses = compiled(ids[:, :-1], ids[:, 1:], weights[:, 1:], positions)
        loss.backward()
        progress = max((step + 1) / steps, (time.time() - started) / options.seconds)
        optimizers.step(rate_factor(stage, min(1.0, progress), step))
        if step == 0:
            torch.cuda.synchronize()
            timed_from = time.time()
            print(f"first step after {timed_from - started:.0f} s", flush=True)
        if (step + 1) % max(1, steps // 30) == 0:
            report(model, held_out, step + 1, steps, losses, weights[:, 1:], stage, timed_from)
        if time.time() - saved_at > 75:
            save(options, model, optimizers)
            saved_at = time.time()
        if progress >= 1:
            if step + 1 < steps:
                print(f"ended by --seconds after {step + 1} of {steps} steps")
            break
    save(options, model, optimizers)


def load(source, model, optimizers):
    """A checkpoint of training, or a folder of exported weights, with which the optimizers' memory begins anew."""
    if Path(source).is_dir():
        return load_weights(model, source)
    saved = torch.load(source, map_location="cuda", weights_only=False)
    model.load_state_dict(saved["model"])
    optimizers.load_state_dict(saved["optimizers"])


def report(model, held_out, step, steps, losses, weights, stage, since):
    mean = lambda mask: losses[mask].mean().item() if mask.any() else float("nan")
    rate = (step - 1) * stage["batch"] * stage["length"] / max(1e-9, time.time() - since)
    bits = held_out_bits(model, held_out)
    print(f"step {step}/{steps} books {mean(weights == 1):.3f} answers {mean(weights > 1.5):.3f} held-out bits/byte {bits:.4f} {rate / 1e3:.0f}k tokens/s", flush=True)


def save(options, model, optimizers):
    target = Path(options.work) / f"{options.stage}.pt"
    part = target.with_suffix(".part")
    torch.save({"model": model.state_dict(), "optimizers": optimizers.state_dict()}, part)
    part.replace(target)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=STAGES, required=True)
    parser.add_argument("--corpus", required=True, help="folder of books.jsonl.xz and heldout.jsonl.xz")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--work", required=True, help="folder for checkpoints")
    parser.add_argument("--from", dest="source", help="checkpoint of the stage before")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--workers", type=int, default=15)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    options = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    Path(options.work).mkdir(parents=True, exist_ok=True)
    tokenizer = read_tokenizer(options.tokenizer)
    corpus = Corpus(read_books(f"{options.corpus}/books.jsonl.xz"), tokenizer, f"{options.work}/books.npy")
    held_out = read_books(f"{options.corpus}/heldout.jsonl.xz")
    print(f"{len(corpus.ids) / 1e6:.1f} million tokens, {len(corpus.speeches)} speeches", flush=True)
    texts = [(tokenizer.encode(text, add_special_tokens=False).ids[:8192], tokenizer) for text in held_out]
    train(options, STAGES[options.stage], Tasks(corpus), texts)


if __name__ == "__main__":
    main()
