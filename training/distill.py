"""Trains the drafter: a small model that says what the target would say next, from books and from the target's own
texts. Its loss is the cross entropy with the target's distribution, since what counts is how often the target accepts.

    python3 training/distill.py --corpus CORPUS --tokenizer TOKENIZER.json --work DIR --from DIR/full.pt
"""
import argparse
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from corpus import Corpus, read_books, read_tokenizer
from model import DRAFTER, TARGET, Decoder
from optimizer import Optimizers

LENGTH, BATCH, STEPS = 512, 128, 4000
# Share of the batches that the target has written itself.
OWN_SHARE = 0.3
OWN_LENGTH, OWN_BATCH, OWN_ROUNDS = 128, 768, 8


@torch.no_grad()
def own_texts(target, corpus, rng):
    """Beginnings of OWN_LENGTH / 2 tokens from books, which the target goes on with, half of them greedily. -> [n, OWN_LENGTH]"""
    texts = []
    for round_ in range(OWN_ROUNDS):
        starts = rng.integers(0, len(corpus.ids) - OWN_LENGTH, OWN_BATCH)
        ids = torch.from_numpy(np.stack([corpus.ids[s:s + OWN_LENGTH // 2] for s in starts]).astype(np.int64)).cuda()
        while ids.shape[1] < OWN_LENGTH:
            with torch.autocast("cuda", torch.bfloat16):
                logits = target.logits(target.hidden(ids)[:, -1]).float()
            drawn = torch.multinomial(torch.softmax(logits / 0.7, -1), 1)
            ids = torch.cat([ids, logits.argmax(-1, keepdim=True) if round_ % 2 else drawn], 1)
        texts.append(ids)
    return torch.cat(texts)


def distillation_loss(drafter, target, ids):
    with torch.autocast("cuda", torch.bfloat16):
        with torch.no_grad():
            wanted = torch.softmax(target.logits(target.hidden(ids)).float(), -1)
        logits = drafter.logits(drafter.hidden(ids)).float()
    return -(wanted * torch.log_softmax(logits, -1)).sum(-1).mean()


@torch.no_grad()
def acceptance(drafter, target, texts):
    """On held-out books: how often both find the same token likeliest, and 1 - total variation (temperature 1)."""
    drafter.eval()
    same = overlap = count = 0
    for ids in texts:
        ids = torch.tensor(ids[:2048 // LENGTH * LENGTH], device="cuda").view(-1, LENGTH)
        with torch.autocast("cuda", torch.bfloat16):
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
    parser.add_argument("--from", dest="source", required=True)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    torch.manual_seed(4)
    torch.set_float32_matmul_precision("high")
    rng = np.random.default_rng(4)
    tokenizer = read_tokenizer(options.tokenizer)
    corpus = Corpus(read_books(f"{options.corpus}/books.jsonl.xz"), tokenizer, f"{options.work}/books.npy")
    held_out = [ids for text in read_books(f"{options.corpus}/heldout.jsonl.xz") if len(ids := tokenizer.encode(text, add_special_tokens=False).ids) >= 2048]
    target = Decoder(TARGET).cuda().eval()
    target.load_state_dict(torch.load(options.source, map_location="cuda", weights_only=False)["model"])
    started = time.time()
    own = own_texts(target, corpus, rng)
    print(f"{own.numel()} tokens of the target's own after {time.time() - started:.0f} s", flush=True)
    drafter = Decoder(DRAFTER).cuda().train()
    print(f"drafter of {sum(weight.numel() for weight in drafter.parameters()) / 1e6:.2f} million parameters", flush=True)
    optimizers = Optimizers(drafter, matrix_decay=0.02)
    books = torch.from_numpy(corpus.ids.astype(np.int32)).cuda()
    for step in range(options.steps):
        if rng.random() < OWN_SHARE:
            ids = own[torch.from_numpy(rng.integers(0, len(own), BATCH * LENGTH // OWN_LENGTH)).cuda()]
        else:
            starts = torch.from_numpy(rng.integers(0, len(books) - LENGTH, BATCH)).cuda()
            ids = books[starts[:, None] + torch.arange(LENGTH, device="cuda")].long()
        loss = distillation_loss(drafter, target, ids)
        loss.backward()
        progress = max((step + 1) / options.steps, (time.time() - started) / options.seconds)
        optimizers.step(min(1, (step + 1) / 50) * max(0.0, 1 - max(0.0, progress - 0.3) / 0.7))
        if (step + 1) % max(1, options.steps // 8) == 0 or progress >= 1:
            same, overlap = acceptance(drafter, target, held_out)
            drafter.train()
            print(f"step {step + 1} loss {loss.item():.3f} held-out: greedy acceptance {same:.3f}, 1 - total variation {overlap:.3f}", flush=True)
        if progress >= 1:
            break
    torch.save({"model": drafter.state_dict()}, Path(options.work) / "drafter.pt")


if __name__ == "__main__":
    main()
