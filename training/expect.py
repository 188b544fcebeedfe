"""Soft targets of the books by one model or several: what they expect after each token of the books, and of the books with
some tokens drawn anew. A part of several has windows and draws of its own.

    python3 training/expect.py --corpus CORPUS --tokenizer TOKENIZER.json --work W --teachers FOLDER_OR_CHECKPOINT [...] --out W/soft-1.pt
"""
import argparse
import time
from pathlib import Path

import torch

from corpus import Corpus, read_books, read_tokenizer
from model import DEVICE
from soft import UNSEEN, WINDOW, Teachers, drawn_anew, expected_after


def expect(ids, teachers, part):
    """[n] -> ids [2, n], samples [2, n, SAMPLES], int16"""
    generator = torch.Generator(DEVICE).manual_seed(20 * 10**8 + part)
    first = torch.randint(1, WINDOW - UNSEEN + 1, (1,), device=DEVICE, generator=generator).item()
    samples = expected_after(ids, teachers, first, generator)
    other = drawn_anew(ids, samples, generator)
    return {"ids": torch.stack([ids, other]), "samples": torch.stack([samples, expected_after(other, teachers, first, generator)])}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--work", required=True, help="folder where the ids of the books are kept")
    parser.add_argument("--teachers", nargs="+", required=True, help="checkpoints, or folders of exported weights; waited for")
    parser.add_argument("--shares", nargs="+", type=float, help="of each in the mean, 1 in all; equal ones unless given")
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--out", required=True)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    options = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    tokenizer = read_tokenizer(options.tokenizer)
    corpus = Corpus(read_books(f"{options.corpus}/books.jsonl.xz"), tokenizer, f"{options.work}/books.npy")
    ids = torch.from_numpy(corpus.ids.astype("int16")).to(DEVICE)
    shares = options.shares or [1 / len(options.teachers)] * len(options.teachers)
    teachers = Teachers(options.teachers, shares, options.compile)
    started = time.time()
    unfinished = Path(options.out).with_suffix(".part")
    torch.save(expect(ids, teachers, options.part), unfinished)
    unfinished.replace(options.out)
    print(f"{options.out}: {2 * len(ids) / 1e6:.1f} million tokens in {time.time() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
