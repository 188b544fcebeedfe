"""Trains the drafter: a small model that says what the target would say next, from books and from the target's own
texts. Its loss is the cross entropy with the target's distribution, half of it with that distribution sharpened: what counts
is how often the target accepts, and at temperature 0 it accepts the likeliest token alone.

    python3 training/distill.py --corpus CORPUS --tokenizer TOKENIZER.json --work DIR --from DIR/full.pt
"""
import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from corpus import Corpus, read_books, read_tokenizer
from model import DEVICE, DRAFTER, TARGET, Decoder, load_weights
from optimizer import Optimizers

LENGTH, BATCH, STEPS = 512, 128, 4000
# Share of the batches that the target has written itself.
OWN_SHARE = 0.3
# The sharpened distribution is that of this temperature.
SHARP = 0.4
OWN_LENGTH, OWN_BATCH, OWN_ROUNDS = 128, 768, 8


@torch.no_grad()
def own_texts(target, corpus, rng):
    """Beginnings of OWN_LENGTH / 2 tokens from books, which the target goes on with, half of them greedily. -> [n, OWN_LENGTH]"""
    texts = []
    for round_ in range(OWN_ROUNDS):
        starts = rng.integers(0, len(corpus.ids) - OWN_LENGTH, OWN_BATCH)
        ids = torch.from_numpy(np.stack([corpus.ids[s:s + OWN_LENGTH // 2] for s in starts]).astype(np.int64)).to(DEVICE)
        while ids.shape[1] < OWN_LENGTH:
            with torch.autocast(DEVICE, torch.bfloat16):
                logits = target.logits(target.hidden(ids)[:, -1]).float()
            drawn = torch.multinomial(torch.softmax(logits / 0.7, -1), 1)
            ids = torch.cat([ids, logits.argmax(-1, keepdim=True) if round_ % 2 else drawn], 1)
        texts.append(ids)
    return torch.cat(texts)


def expected(target, ids):
    """The target's distribution and its sharpened form, and the mean of both. -> [batch, tokens, VOCAB]"""
    logits = target.logits(target.hidden(ids)).float()
    return ((torch.softmax(logits, -1) + torch.softmax(logits / SHARP, -1)) / 2).bfloat16()


def cross_entropy(drafter, ids, wanted):
    return -(wanted * torch.log_softmax(drafter.logits(drafter.hidden(ids)).float(), -1)).sum(-1).mean()


@torch.no_grad()
def acceptance(drafter, target, texts):
    """On held-out books: how often both find the same token likeliest, and 1 - total variation (temperature 1)."""
    drafter.eval()
    same = overlap = count = 0
    for ids in texts:
        ids = torch.tensor(ids[:2048 // LENGTH * LENGTH], device=DEVICE).view(-1, LENGTH)
        with torch.autocast(DEVICE, torch.bfloat16):
            p = torch.softmax(target.logits(target.hidden(ids)).float(), -1)
            q = torch.softmax(drafter.logits(drafter.hidden(ids)).float(), -1)
        same += (p.argmax(-1) == q.argmax(-1)).sum().item()
        overlap += torch.minimum(p, q).sum().item()
        count += ids.numel()
    return same / count, overlap / count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--work", required=True)
    parser.add_argument("--from", dest="source", required=True, help="the target: a checkpoint, or a folder of exported weights")
    parser.add_argument("--begin", help="the same of a drafter to begin from")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--until", type=float, default=float("inf"), help="like --seconds, but a time of the clock (of Unix)")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--rate", type=float, default=1.0, help="factor on the learning rates")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    options = parser.parse_args()
    torch.manual_seed(4)
    torch.set_float32_matmul_precision("high")
    rng = np.random.default_rng(4)
    tokenizer = read_tokenizer(options.tokenizer)
    corpus = Corpus(read_books(f"{options.corpus}/books.jsonl.xz"), tokenizer, f"{options.work}/books.npy")
    held_out = [ids for text in read_books(f"{options.corpus}/heldout.jsonl.xz") if len(ids := tokenizer.encode(text, add_special_tokens=False).ids) >= 2048]
    target = Decoder(TARGET).to(DEVICE).eval()
    load_weights(target, options.source)
    started = time.time()
    seconds = min(options.seconds, options.until - started)
    compiled = lambda function: torch.compile(function, dynamic=False) if options.compile else function
    expect, loss_of = compiled(expected), compiled(cross_entropy)
    own = own_texts(target, corpus, rng).view(-1, LENGTH)  # Several in a row, so that all batches have one shape.
    print(f"{own.numel()} tokens of the target's own after {time.time() - started:.0f} s", flush=True)
    drafter = Decoder(DRAFTER).to(DEVICE).train()
    if options.begin:
        load_weights(drafter, options.begin)
    print(f"drafter of {sum(weight.numel() for weight in drafter.parameters()) / 1e6:.2f} million parameters", flush=True)
    optimizers = Optimizers(drafter, matrix_decay=0.02)
    books = torch.from_numpy(corpus.ids.astype(np.int32)).to(DEVICE)
    for step in range(options.steps):
        if rng.random() < OWN_SHARE:
            ids = own[torch.from_numpy(rng.integers(0, len(own), BATCH)).to(DEVICE)]
        else:
            starts = torch.from_numpy(rng.integers(0, len(books) - LENGTH, BATCH)).to(DEVICE)
            ids = books[starts[:, None] + torch.arange(LENGTH, device=DEVICE)].long()
        with torch.autocast(DEVICE, torch.bfloat16):
            with torch.no_grad():
                wanted = expect(target, ids)
            loss = loss_of(drafter, ids, wanted)
        loss.backward()
        progress = max((step + 1) / options.steps, (time.time() - started) / seconds)
        optimizers.step(options.rate * min(1, (step + 1) / 50) * max(0.0, 1 - max(0.0, progress - 0.3) / 0.7))
        if (step + 1) % 250 == 0 or progress >= 1:
            same, overlap = acceptance(drafter, target, held_out)
            drafter.train()
            print(f"step {step + 1} loss {loss.item():.3f} held-out: greedy acceptance {same:.3f}, 1 - total variation {overlap:.3f}", flush=True)
        if progress >= 1:
            break
    torch.save({"model": drafter.state_dict()}, Path(options.work) / "drafter.pt")


if __name__ == "__main__":
    main()
