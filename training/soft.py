"""Soft targets: what teachers expect after each token of the books, reckoned once and read by every step after. A
distribution is kept as tokens drawn from it, whose mean cross entropy is that of the distribution but for chance (Anshumann
et al., 2025, "Sparse logit sampling"). Beside the books as they stand there are the books with some tokens drawn anew from
the expectation, so that the target learns from more texts than there are. Knows no stage. Called by expect.py and train.py."""
import time
from pathlib import Path

import torch

from corpus import VOCAB
from model import DEVICE, Decoder, load_weights, shape_of

# Tokens that stand for a distribution.
SAMPLES = 64
# Teachers read windows; of each but the first of a text, the first tokens lack what stands before them and do not count.
WINDOW, UNSEEN = 2048, 256
ROWS = 32
# A stretch of WINDOW tokens has up to this share of them drawn anew.
MOST_DRAWN = 0.2


def awaited(sources):
    """Each path once it is there."""
    for source in map(Path, sources):
        while not source.exists():
            time.sleep(0.5)
        yield source


class Teachers:
    """The mean of several models' distributions."""

    def __init__(self, sources, shares, compile_them):
        """sources: checkpoints or folders, which are waited for; shares: one for each, 1 in all."""
        self.shares = shares
        self.models = []
        for source in awaited(sources):
            self.models.append(Decoder(shape_of(source)).to(DEVICE).eval())
            load_weights(self.models[-1], source)
        expect = Decoder.probabilities
        self.expect = torch.compile(expect, dynamic=False) if compile_them else expect

    @torch.no_grad()
    def __call__(self, ids):
        """[rows, WINDOW] -> [rows, WINDOW, VOCAB] float32"""
        with torch.autocast(DEVICE, torch.bfloat16):
            return sum(self.expect(model, ids) * share for model, share in zip(self.models, self.shares))


def drawn_from(expected, generator):
    """SAMPLES tokens of each distribution, one from each of as many equal parts of it, so that likely tokens come as often
    as they should. [..., VOCAB] -> [..., SAMPLES] int16"""
    heights = expected.cumsum(-1)
    parts = torch.arange(SAMPLES, device=DEVICE) + torch.rand(*expected.shape[:-1], SAMPLES, device=DEVICE, generator=generator)
    return torch.searchsorted(heights, parts / SAMPLES * heights[..., -1:]).clamp(max=VOCAB - 1).short()


def expected_after(ids, teachers, first, generator):
    """Tokens drawn from what teachers expect after each token. first: where the second window begins, 1 to
    WINDOW - UNSEEN. [n] int16 -> [n, SAMPLES] int16"""
    out = torch.zeros(len(ids), SAMPLES, device=DEVICE, dtype=torch.int16)
    last = len(ids) - WINDOW
    starts = [0, *range(first, last, WINDOW - UNSEEN), last]
    starts += starts[-1:] * (-len(starts) % ROWS)  # Full batches, so that all have one shape.
    offsets = torch.arange(WINDOW, device=DEVICE)
    for begin in range(0, len(starts), ROWS):
        places = torch.tensor(starts[begin:begin + ROWS], device=DEVICE)[:, None] + offsets
        drawn = drawn_from(teachers(ids[places].long()), generator)
        counts = (offsets >= UNSEEN) | (places[:, :1] == 0)
        out[places[counts]] = drawn[counts]
    return out


def drawn_anew(ids, samples, generator):
    """The text with some tokens replaced by ones of what was expected there. [n], [n, SAMPLES] -> [n]"""
    draw = lambda size: torch.rand(size, device=DEVICE, generator=generator)
    one = torch.randint(0, SAMPLES, (len(ids), 1), device=DEVICE, generator=generator)
    stretch = torch.arange(len(ids), device=DEVICE) // WINDOW
    shares = MOST_DRAWN * draw(int(stretch[-1]) + 1)
    is_drawn = draw(len(ids)) < shares[stretch]
    is_drawn[0] = False  # Nothing stands before it.
    expected = samples.gather(1, one)[:, 0].roll(1)
    return torch.where(is_drawn, expected, ids)


class SoftRows:
    def __init__(self, length, fresh, drawn, hard, generator):
        """fresh: rows of the books as they stand, whose aim is by `hard` the token that follows; drawn: rows with tokens
        drawn anew, whose aim is what is expected alone."""
        self.length, self.generator = length, generator
        self.is_drawn = torch.arange(fresh + drawn, device=DEVICE)[:, None] >= fresh  # [rows, 1]
        self.hard = torch.where(self.is_drawn, 0.0, hard)

    def load(self, sources):
        """Files of expect.py, which are waited for."""
        parts = [torch.load(source, map_location=DEVICE) for source in awaited(sources)]
        self.ids = torch.stack([part["ids"] for part in parts])  # [parts, 2, n] int16: as they stand, drawn anew
        self.samples = torch.stack([part["samples"] for part in parts])  # [parts, 2, n, SAMPLES] int16

    def share(self, other):
        """What another has read."""
        self.ids, self.samples = other.ids, other.samples

    def rows(self):
        """-> ids [rows, length + 1], samples [rows, length, SAMPLES], hard [rows, 1]"""
        count = (len(self.is_drawn), 1)
        part = torch.randint(0, len(self.ids), count, device=DEVICE, generator=self.generator)
        starts = torch.randint(0, self.ids.shape[2] - self.length - 1, count, device=DEVICE, generator=self.generator)
        places = starts + torch.arange(self.length + 1, device=DEVICE)
        text = part, self.is_drawn.long()
        return self.ids[*text, places].long(), self.samples[*text, places[:, :-1]], self.hard
