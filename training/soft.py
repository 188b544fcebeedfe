"""Soft targets: rows of books with what teachers expect after each token, instead of the one token that follows. Some of
the rows are not as they stand in the book: tokens of them were drawn anew from the teachers' expectation, so that the
target learns from more texts than there are. Knows no stage. Called by train.py."""
import time
from pathlib import Path

import torch

from model import DEVICE, Decoder, load_weights

# The teachers read windows; the first tokens of one that is not the text's first lack what stands before them.
WINDOW, UNSEEN = 2048, 128
# A row has up to this share of its tokens drawn anew.
MOST_DRAWN = 0.2


class Teachers:
    """The mean of several models' distributions."""

    def __init__(self, shape, sources, compile_them):
        """sources: checkpoints or folders; load() waits for those that are not there yet."""
        self.sources = [Path(source) for source in sources]
        self.models = [Decoder(shape).to(DEVICE).eval() for _ in self.sources]
        expect = Decoder.probabilities
        self.expect = torch.compile(expect, dynamic=False) if compile_them else expect

    def load(self):
        for model, source in zip(self.models, self.sources):
            while not source.exists():
                time.sleep(0.5)
            load_weights(model, source)

    @torch.no_grad()
    def __call__(self, ids):
        """[rows, tokens] -> [rows, tokens, VOCAB] bfloat16"""
        windows = ids.reshape(-1, min(WINDOW, ids.shape[1]))
        with torch.autocast(DEVICE, torch.bfloat16):
            expected = sum(self.expect(model, windows) / len(self.models) for model in self.models)
        return expected.view(*ids.shape, -1)


class SoftRows:
    def __init__(self, ids, stage, teachers, generator):
        """ids: of all books, [n]. stage: length, and how many rows are `fresh` and how many `resampled` ones of the batch before."""
        self.ids = torch.from_numpy(ids.astype("int32")).to(DEVICE)
        self.length, self.fresh, self.resampled = stage["length"], stage["fresh"], stage["resampled"]
        self.teachers, self.generator = teachers, generator
        place = torch.arange(self.length + 1, device=DEVICE)
        self.weights = ((place <= WINDOW) | ((place - 1) % WINDOW >= UNSEEN)).float().expand(self.fresh + self.resampled, -1)
        self.forget()

    def forget(self):
        self.next = self._from_books(self.resampled)

    def rows(self):
        """-> ids and weights [rows, length + 1], wanted [rows, length, VOCAB]"""
        fresh = self._from_books(self.fresh)
        ids = torch.cat([fresh, self.next])
        wanted = self.teachers(ids[:, :-1])
        if self.resampled:
            self.next = self._drawn_anew(fresh[:self.resampled], wanted[:self.resampled])
        return ids, self.weights, wanted

    def _from_books(self, rows):
        starts = torch.randint(0, len(self.ids) - self.length - 1, (rows, 1), device=DEVICE, generator=self.generator)
        return self.ids[starts + torch.arange(self.length + 1, device=DEVICE)].long()

    def _drawn_anew(self, ids, wanted):
        draw = lambda *shape: torch.rand(*shape, device=DEVICE, generator=self.generator)
        drawn = torch.multinomial(wanted.float().flatten(0, 1), 1, generator=self.generator).view(len(ids), -1)
        is_drawn = draw(*drawn.shape) < MOST_DRAWN * draw(len(ids), 1)
        return torch.cat([ids[:, :1], torch.where(is_drawn, drawn, ids[:, 1:])], 1)
