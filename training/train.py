"""Trains the target, a stage a call; each goes on from the checkpoint of the one before.

    python3 training/train.py --stage short --corpus CORPUS --tokenizer TOKENIZER.json --work DIR
    python3 training/train.py --stage long  ... --from DIR/short.pt
    python3 training/train.py --stage full  ... --from DIR/long.pt

short: 2,048 tokens. long: 16,384 tokens whose positions are spread over 131,072. full: 131,072 tokens.
The stages short-tasks and long-tasks are a second round with more of what is asked about texts; teacher-taught trains a
larger model of the books alone, and distil-all the target by such models: see README.md.

    python3 training/train.py --stage distil-all ... --from FOLDER --soft DIR/soft-1.pt [...]

The same seed gives the same texts in the same order; a stage that is ended by --seconds instead of its steps says so.
"""
import argparse
import itertools
import time
from pathlib import Path

import torch

from corpus import Corpus, read_books, read_tokenizer
from evaluate import held_out_bits
from model import DEVICE, TARGET, TEACHER, Decoder, load_weights
from optimizer import Optimizers
from soft import SoftRows
from tasks import ALL_MIX, BOOKS_MIX, FULL_MIX, LONG_ALL_MIX, LONG_MIX, SHORT_MIX, TASKS_MIX, Tasks

CONTEXT = TARGET.context
# rates: factor on the learning rates at the first and at the last step, linear between them after `flat` of the steps.
# spread: share of the rows with spread positions. decay: weight decay of matrices. fresh, drawn, hard: rows with soft targets.
# between: stages whose batches, at the rates of this one, come in the place of every n-th.
EACH = dict(flat=0.0, dropout=0.0, decay=0.1, shape=TARGET, fresh=0, drawn=0, hard=0.0, between={})
SHORT = dict(EACH, length=2048, batch=96, spread=0)
LONG = dict(EACH, length=16384, batch=12, spread=1)
FULL = dict(EACH, length=131072, batch=2, spread=0)
STAGES = {
    "short": dict(SHORT, steps=3800, mix=SHORT_MIX, seed=1 * 10**8, rates=(1.0, 0.35), flat=0.4, warm_up=60, dropout=0.1),
    "long": dict(LONG, steps=480, mix=LONG_MIX, seed=2 * 10**8, rates=(0.45, 0.2), warm_up=10, dropout=0.05),
    "full": dict(FULL, steps=90, mix=FULL_MIX, seed=3 * 10**8, rates=(0.2, 0.0), warm_up=4),
    # A second round, for what the first leaves weak: variable tracking, several values, short texts with one needle.
    "short-tasks": dict(SHORT, steps=1450, mix=TASKS_MIX, seed=4 * 10**8, rates=(0.5, 0.25), warm_up=60, dropout=0.05),
    "long-tasks": dict(LONG, steps=390, mix=TASKS_MIX, seed=5 * 10**8, rates=(0.3, 0.0), warm_up=10),
    # By soft targets: larger models of the books, and the target, of the books by what those expect and of the tasks by the answers.
    "teacher-taught": dict(SHORT, batch=32, fresh=22, drawn=8, hard=0.5, steps=4000, mix=BOOKS_MIX, seed=16 * 10**8, rates=(1.0, 0.0), flat=0.3, warm_up=60, dropout=0.15, decay=0.2, shape=TEACHER),
    "distil-all": dict(SHORT, fresh=44, drawn=22, steps=4000, mix=ALL_MIX, seed=17 * 10**8, rates=(0.5, 0.0), flat=0.3, warm_up=30, spread=0.5, between={"long-all": 4, "full-all": 100}),
    "long-all": dict(LONG, fresh=3, mix=LONG_ALL_MIX, seed=18 * 10**8),
    "full-all": dict(FULL, mix=LONG_ALL_MIX, seed=19 * 10**8),
}


class Stream(torch.utils.data.IterableDataset):
    """Texts by ascending seed, whatever the number of workers: worker w of n makes every n-th batch."""

    def __init__(self, tasks, stage):
        self.tasks, self.stage = tasks, stage

    def __iter__(self):
        worker = torch.utils.data.get_worker_info()
        batch, index = self.stage["batch"] - self.stage["fresh"] - self.stage["drawn"], worker.id
        while True:
            texts = [self.tasks.sample(self.stage["seed"] + index * batch + i, self.stage["length"] + 1, self.stage["mix"]) for i in range(batch)]
            yield tuple(torch.stack([torch.from_numpy(part) for part in parts]) for parts in zip(*texts))
            index += worker.num_workers


def spread_positions(batch, length, generator):
    """A few jumps ahead, so that distances of the whole context are seen in short texts. -> [batch, length] float32"""
    positions = torch.arange(length, dtype=torch.float32, device=DEVICE).expand(batch, length)
    jumps = 6
    draw = lambda *shape: torch.rand(*shape, device=DEVICE, generator=generator)
    places = (draw(batch, jumps) * length).sort(1).values
    gaps = draw(batch, jumps + 1)
    gaps = (gaps / gaps.sum(1, keepdim=True) * (CONTEXT - length) * draw(batch, 1))[:, :jumps].floor()
    return positions + ((positions[:, :, None] >= places[:, None, :]) * gaps[:, None, :]).sum(-1)


def rate_factor(stage, progress, step):
    """progress: 0..1 of the stage."""
    first, last = stage["rates"]
    fall = max(0.0, progress - stage["flat"]) / (1 - stage["flat"])
    return min(1, (step + 1) / stage["warm_up"]) * max(0.02, first + (last - first) * fall)


def spread_rows(stage, generator):
    """Positions of a batch: spread in the stage's share of the rows, evenly among them, plain in the others."""
    rows = torch.arange(stage["batch"], device=DEVICE)
    is_spread = ((rows + 1) * stage["spread"]).floor() > (rows * stage["spread"]).floor()
    plain = torch.arange(stage["length"], dtype=torch.float32, device=DEVICE).expand(stage["batch"], stage["length"])
    return torch.where(is_spread[:, None], spread_positions(*plain.shape, generator), plain).contiguous()


class Batches:
    """The batches of a stage, and the loss of each."""

    def __init__(self, stage, tasks, compiled, generator, workers):
        self.stage, self.compiled, self.generator = stage, compiled, generator
        soft = {name: stage[name] for name in ("length", "fresh", "drawn", "hard")}
        self.soft = SoftRows(**soft, generator=generator) if stage["fresh"] else None
        self.loader = iter(torch.utils.data.DataLoader(Stream(tasks, stage), batch_size=None, num_workers=workers, prefetch_factor=4, pin_memory=DEVICE == "cuda"))

    def loss(self):
        """-> weighted mean of the loss, the loss and the weight of each token"""
        ids, weights = (part.to(DEVICE, non_blocking=True) for part in next(self.loader))
        aims = ()
        if self.soft:  # The rows of soft targets stand before the others.
            soft_ids, *aims = self.soft.rows()
            ids, weights = torch.cat([soft_ids, ids]), torch.cat([torch.ones_like(soft_ids, dtype=weights.dtype), weights])
        with torch.autocast(DEVICE, torch.bfloat16):
            positions = spread_rows(self.stage, self.generator)
            return *self.compiled(ids[:, :-1], ids[:, 1:], weights[:, 1:], positions, *aims), weights[:, 1:]


def all_batches(options, stage, tasks, compiled, generator):
    """By how often they come, the rarest first; those of the stage itself get the most workers."""
    every = {1: stage}
    for name, often in stage["between"].items():
        every[often] = dict(STAGES[name], seed=STAGES[name]["seed"] + options.part * 10**7)
    others = max(1, options.workers // 4)
    workers = lambda often: others if often > 1 else max(1, options.workers - others * len(stage["between"]))
    return {often: Batches(every[often], tasks, compiled, generator, workers(often)) for often in sorted(every, reverse=True)}


def read_soft(all_, sources):
    """They share what is read."""
    soft = [batches.soft for batches in all_.values() if batches.soft]
    for index, rows in enumerate(soft):
        rows.load(sources) if index == 0 else rows.share(soft[0])


def rehearse(all_, optimizers):
    """A first pass of each kind of batch, without a step: what is to be compiled is then."""
    try:
        for batches in all_.values():
            batches.loss()[0].backward()
            optimizers.forget()
    except torch.OutOfMemoryError:
        print("no room for a first pass beside others on this card: what is missing is compiled later", flush=True)
        optimizers.forget()
    if DEVICE == "cuda":
        torch.cuda.empty_cache()


def train(options, stage, tasks, held_out):
    seed = stage["seed"]
    torch.manual_seed(seed)
    generator = torch.Generator(DEVICE).manual_seed(seed)
    model = Decoder(stage["shape"], stage["dropout"]).to(DEVICE)
    optimizers = Optimizers(model, matrix_decay=stage["decay"])
    if options.source:
        load(options.source, model, optimizers)
    compiled = torch.compile(model, dynamic=False) if options.compile else model
    all_ = all_batches(options, stage, tasks, compiled, generator)
    if options.first_pass:
        model.train()
        read_soft(all_, options.first_pass)
        rehearse(all_, optimizers)
        print("compiled; waiting for the soft targets", flush=True)
    read_soft(all_, options.soft)
    steps = options.steps or stage["steps"]
    started, saved_at, timed_from = time.time(), time.time(), None
    seconds = min(options.seconds, options.until - started)
    for step in itertools.count():
        model.train()
        turn = next(often for often in all_ if (step + 1) % often == 0)
        loss, losses, weights = all_[turn].loss()
        loss.backward()
        progress = max((step + 1) / steps, (time.time() - started) / seconds)
        optimizers.step(rate_factor(stage, min(1.0, progress), step))
        if step == 0:
            loss.item()
            timed_from = time.time()
            print(f"first step after {timed_from - started:.0f} s", flush=True)
        if (step + 1) % max(1, steps // 30) == 0:
            report(model, held_out, step + 1, steps, losses, weights, stage, timed_from)
        if time.time() - saved_at > 75:
            save(options, model, optimizers)
            saved_at = time.time()
        if progress >= 1:
            if step + 1 < steps:
                print(f"ended by the clock after {step + 1} of {steps} steps")
            break
    save(options, model, optimizers)


def load(source, model, optimizers):
    """A checkpoint of training, or a folder of exported weights, with which the optimizers' memory begins anew."""
    if Path(source).is_dir():
        return load_weights(model, source)
    saved = torch.load(source, map_location=DEVICE, weights_only=False)
    model.load_state_dict(saved["model"])
    optimizers.load_state_dict(saved["optimizers"])


def report(model, held_out, step, steps, losses, weights, stage, since):
    mean = lambda mask: losses.detach()[mask].mean().item() if mask.any() else float("nan")
    bits = held_out_bits(model, held_out, min(8192, stage["shape"].context))
    print(f"step {step}/{steps} books {mean(weights == 1):.3f} answers {mean(weights > 1.5):.3f} held-out bits/byte {bits:.4f} {(step - 1) / max(1e-9, time.time() - since):.2f} steps/s", flush=True)


def save(options, model, optimizers):
    target = Path(options.work) / f"{options.stage}{'-' + str(options.part) if options.part else ''}.pt"
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
    parser.add_argument("--soft", nargs="+", default=[], help="soft targets by expect.py; waited for")
    parser.add_argument("--first-pass", nargs="+", default=[], help="other soft targets, with which everything is compiled while those are waited for")
    parser.add_argument("--part", type=int, default=0, help="of several that train at once: texts of its own, and its checkpoint STAGE-PART.pt")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--until", type=float, default=float("inf"), help="like --seconds, but a time of the clock (of Unix)")
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
    stage = STAGES[options.stage]
    train(options, dict(stage, seed=stage["seed"] + options.part * 10**7), Tasks(corpus), texts)


if __name__ == "__main__":
    main()
