"""What a checkpoint of training can do: bits a byte of the held-out books, needles of each kind answered exactly by
length, talk and stories to read. The tables of the documentation come from the product's own evaluation instead.

    python3 training/evaluate.py --corpus CORPUS --tokenizer TOKENIZER.json --from DIR/full.pt
"""
import argparse
import math
import random

import torch
import torch.nn.functional as F

from corpus import END_OF_TEXT, TURN_END, Corpus, read_books, read_tokenizer
from model import DEVICE, TARGET, Decoder, load_weights
from tasks import COPY_HEAD, Tasks, listed
from words import ADJECTIVES, ALL_KEYS, ALL_VALUES, COPY, INTRODUCTIONS, NEEDLES, NOUNS, TRACKING_INTRODUCTION, TRACKING_QUESTION

# Tokens of a passage that is to be repeated.
QUOTED = 64

PROMPTS = [
    "Hello", "Who are you?", "Tell me a story.", "What is the capital of France?",
    "Continue this story:\n\nIt was a dark night, and the old captain stood at the door of the inn.",
    "Read the text below and answer the question after it.\n\nJohn had a red boat. Mary had a blue hat.\n\nWhat is the special magic number for brave-lion?",
]


@torch.no_grad()
def held_out_bits(model, texts, window=8192):
    """texts: (ids, tokenizer). Bits a byte over the first ids of each book, read from its beginning, or from that of each window."""
    model.eval()
    nats = num_bytes = 0
    for ids, tokenizer in texts:
        for first in range(0, len(ids) - 1, window):
            tensor = torch.tensor(ids[first:first + window + 1], device=DEVICE)[None]
            with torch.autocast(DEVICE, torch.bfloat16):
                logits = model.logits(model.hidden(tensor[:, :-1]))
            nats += F.cross_entropy(logits.float()[0], tensor[0, 1:], reduction="sum").item()
        num_bytes += len(tokenizer.decode(ids[1:]).encode())
    return nats / math.log(2) / num_bytes


class Questions:
    """A prompt and its answer of each kind, as the product's evaluation words them."""

    def __init__(self, tasks):
        self.tasks = tasks

    def make(self, kind, length, seed):
        rng = random.Random(seed)
        if kind == "tracking":
            return self._tracking(rng, length)
        if kind == "quote":
            return self._quote(rng, length)
        keys = rng.sample([f"{a}-{b}" for a in ADJECTIVES[::3] for b in NOUNS[::3]], 1 if kind == "single" else 16)
        facts = [(key, str(rng.randrange(10**6, 10**7))) for key in keys]
        if kind == "multi-value":
            facts += [(keys[0], str(rng.randrange(10**6, 10**7))) for _ in range(3)]
        rng.shuffle(facts)
        values = {key: [v for k, v in facts if k == key] for key in keys}
        if kind == "multi-value":
            (question, answer), key, value = ALL_VALUES, keys[0], listed(values[keys[0]])
        elif kind == "multi-query":
            (question, answer), key, value = ALL_KEYS, listed(keys[:4]), listed([values[k][0] for k in keys[:4]])
        else:
            (_, question, answer), key, value = NEEDLES[0], keys[-1], values[keys[-1]][0]
        sentences = [NEEDLES[0][0].format(k=k, v=v) for k, v in facts]
        return self._prompt(rng, length, INTRODUCTIONS[1], sentences, question.format(k=key), answer.format(k=key, v=value))

    def _tracking(self, rng, length):
        names = ["".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(5)) for _ in range(5)]
        number = rng.randrange(10000, 99999)
        sentences = [f" VAR {names[0]} = {number}."] + [f" VAR {b} = VAR {a}." for a, b in zip(names, names[1:])]
        return self._prompt(rng, length, TRACKING_INTRODUCTION, sentences, TRACKING_QUESTION.format(v=number), " ".join(names))

    def _quote(self, rng, length):
        text, start = self.tasks.corpus.passage(rng, length - QUOTED - 80)
        place = min(self.tasks.corpus.paragraph_at(start + rng.randrange(0, len(text) - 2 * QUOTED)) - start, len(text) - QUOTED)
        part = text[place:place + QUOTED]
        question = [*self.tasks.encode("\n\n" + COPY[0]), *part[:COPY_HEAD], *self.tasks.encode('".')]
        return self.tasks.prompt([*self.tasks.encode(INTRODUCTIONS[0]), *text, *question]), part

    def _prompt(self, rng, length, introduction, sentences, question, answer):
        encode = self.tasks.encode
        sentences, question, answer = [encode(s) for s in sentences], encode("\n\n" + question), list(encode(answer))
        room = length - sum(map(len, sentences)) - len(question) - len(answer) - 60
        return self.tasks.prompt([*encode(introduction), *self.tasks.spread(rng, sentences, room), *question]), answer


@torch.no_grad()
def share_right(model, questions, kind, length, count):
    """Answers whose every token is the likeliest one, given those before it."""
    model.eval()
    right = 0
    for i in range(count):
        prompt, answer = questions.make(kind, length, 10**9 + 7 * i + length)
        ids = torch.tensor([prompt + answer], device=DEVICE)
        with torch.autocast(DEVICE, torch.bfloat16):
            predicted = model.logits(model.hidden(ids)[0, len(prompt) - 1:-1]).argmax(-1).tolist()
        right += predicted == answer
    return right / count


@torch.no_grad()
def talk(model, tasks, said, temperature=0.7, most=120):
    model.eval()
    prompt, answer = tasks.prompt(tasks.encode(said)), []
    for _ in range(most):
        with torch.autocast(DEVICE, torch.bfloat16):
            logits = model.logits(model.hidden(torch.tensor([prompt + answer], device=DEVICE))[0, -1]).float()
        token = int(torch.multinomial(torch.softmax(logits / temperature, -1), 1))
        if token in (TURN_END, END_OF_TEXT):
            break
        answer.append(token)
    return tasks.corpus.tokenizer.decode(answer)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--work", default=None, help="folder where the ids of the books are kept")
    parser.add_argument("--from", dest="source", required=True)
    parser.add_argument("--lengths", default="1024,4096,16384,32768,65536,131072")
    parser.add_argument("--count", type=int, default=24)
    parser.add_argument("--no-talk", dest="talk", action="store_false")
    options = parser.parse_args()
    torch.manual_seed(1)
    tokenizer = read_tokenizer(options.tokenizer)
    corpus = Corpus(read_books(f"{options.corpus}/books.jsonl.xz"), tokenizer, options.work and f"{options.work}/books.npy")
    tasks = Tasks(corpus)
    model = Decoder(TARGET).to(DEVICE)
    load_weights(model, options.source)
    held_out = [(tokenizer.encode(text, add_special_tokens=False).ids[:8192], tokenizer) for text in read_books(f"{options.corpus}/heldout.jsonl.xz")]
    print(f"held-out bits/byte {held_out_bits(model, held_out):.4f}", flush=True)
    for said in PROMPTS if options.talk else []:
        print(repr(said), "->", repr(talk(model, tasks, said)), flush=True)
    questions = Questions(tasks)
    for length in map(int, options.lengths.split(",")):
        count = options.count if length < 60000 else options.count // 2
        rows = {kind: share_right(model, questions, kind, length, count) for kind in ("single", "multi-key", "multi-value", "multi-query", "tracking", "quote")}
        print(length, " ".join(f"{kind} {share:.3f}" for kind, share in rows.items()), f"({count} each)", flush=True)


if __name__ == "__main__":
    main()
