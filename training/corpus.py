"""The books, as text and as token ids, and the tokenizer. Knows no task and no model. Called by tasks.py, train.py,
distill.py and evaluate.py."""
import json
import lzma
import re
from pathlib import Path

import numpy as np

VOCAB = 8192
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
END_OF_TEXT, TURN_START, TURN_END, PAD = range(4)
# Words with their space, digits one by one, runs of punctuation, line ends.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# What somebody says in a book, and who says it.
SPEECH = re.compile(r"“([^”“]{20,90}[^”“\s])” (?:said|asked|cried|replied|answered|exclaimed) ((?:Mr\. |Mrs\. |Miss )?[A-Z][a-z]{2,})\b")


def read_books(path):
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def train_tokenizer(books):
    """Byte-level BPE of VOCAB tokens from a third of the books' text."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )
    tokenizer.train_from_iterator([book[i:i + 20000] for book in books for i in range(0, len(book), 60000)], trainer)
    return tokenizer


def read_tokenizer(path):
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))


class Corpus:
    """Token ids of all books, one after the other, and where paragraphs begin in them."""

    def __init__(self, books, tokenizer, cache=None):
        """cache: a file to keep the ids in, since encoding takes a quarter of a minute."""
        self.tokenizer = tokenizer
        self.ids = self._ids(books, Path(cache) if cache else None)  # [n] uint16
        newline = [i for i in range(VOCAB) if "\n" in tokenizer.decode([i], skip_special_tokens=False)]
        self.is_newline = np.zeros(VOCAB, bool)
        self.is_newline[newline] = True
        self.paragraphs = np.where(self.is_newline[self.ids])[0] + 1  # Ascending positions.
        self.speeches = [(book, match.span(), match.group(1), match.group(2)) for book in books for match in SPEECH.finditer(book)]

    def _ids(self, books, cache):
        if cache and cache.exists():
            return np.load(cache)
        encoded = self.tokenizer.encode_batch([book + "\n\n" for book in books])
        end = np.array([END_OF_TEXT], np.uint16)
        ids = np.concatenate([part for book in encoded for part in (np.array(book.ids, np.uint16), end)])
        if cache:
            np.save(cache, ids)
        return ids

    def paragraph_at(self, position):
        """The first paragraph that begins at `position` or later."""
        return int(self.paragraphs[min(np.searchsorted(self.paragraphs, position), len(self.paragraphs) - 1)])

    def passage(self, random, length):
        """`length` ids from a random place, without the ends of books. -> [length] list"""
        start = random.randrange(0, len(self.ids) - length - 1)
        return [int(i) for i in self.ids[start:start + length] if i != END_OF_TEXT], start
