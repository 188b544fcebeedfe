"""Generated training texts: books, needles of all kinds, variable tracking, common words, copying, who said what, talk
and stories. Each is a list of token ids with a weight a token. Deterministic by seed. Knows no model.
Called by train.py (in worker processes) and evaluate.py."""
import random
from functools import lru_cache

import numpy as np

from corpus import END_OF_TEXT, PAD, TURN_END, TURN_START
from words import (
    ADJECTIVES, ALL_KEYS, ALL_VALUES, CHAT, COMMON_ANSWER, COMMON_INTRODUCTION, COMMON_QUESTION, CONTINUE, COPY, INTRODUCTIONS,
    NEEDLES, NOUNS, REFUSAL, SHORT_ANSWERS, TRACKING_INTRODUCTION, TRACKING_QUESTION, WRITE,
)

# Weights in the loss; a token of a book has 1. Answers to look up are short and rare, so each token counts for more.
CONTEXT, LOOKED_UP, COPIED, TALKED = 0.2, 8.0, 2.0, 1.5
ROOM_FOR_TURNS = 40
# Of a text of which passages are to be repeated: how many at most, how often its tokens stand in no order, tokens that a passage is named by.
MOST_COPIES, SHUFFLED_SHARE, COPY_HEAD = 16, 0.3, 8
# Tokens of a phrase that is said over and over; the first tokens after it, and their weight.
LOOPED, AFTER_LOOP_TOKENS, AFTER_LOOP = (2, 25), 8, 4.0

# Share of each kind of text, by length of the text.
SHORT_MIX = {"book": 0.48, "copy": 0.07, "talk": 0.08, "track": 0.06, "common": 0.02, "speech": 0.05, "needles": 0.24}
LONG_MIX = {"book": 0.36, "copy": 0.06, "talk": 0.05, "track": 0.07, "common": 0.03, "speech": 0.03, "needles": 0.40}
FULL_MIX = {"book": 0.30, "copy": 0.06, "talk": 0.04, "track": 0.05, "common": 0.03, "speech": 0.02, "needles": 0.50}
# Of stages with soft targets: books come with those, the teachers' two plain rows and the longest texts apart.
BOOKS_MIX = {"book": 1.0}
ALL_MIX = {"copy": 0.20, "talk": 0.10, "track": 0.17, "common": 0.01, "speech": 0.05, "needles": 0.35, "loops": 0.12}
LONG_ALL_MIX = {"book": 0.06, "copy": 0.16, "talk": 0.05, "track": 0.18, "common": 0.01, "speech": 0.05, "needles": 0.49}
# Of the second round.
TASKS_MIX = {"book": 0.40, "copy": 0.04, "talk": 0.06, "track": 0.18, "common": 0.02, "speech": 0.04, "needles": 0.26}


class Tasks:
    def __init__(self, corpus):
        self.corpus = corpus
        self.encode = lru_cache(1 << 16)(lambda text: tuple(corpus.tokenizer.encode(text, add_special_tokens=False).ids))

    def sample(self, seed, length, mix):
        """-> ids [length] int64, weights [length] float32, padded"""
        rng = random.Random(seed)
        kind = rng.choices(list(mix), list(mix.values()))[0]
        ids, weights = getattr(self, kind)(rng, length)
        out = np.full(length, PAD, np.int64)
        out_weights = np.zeros(length, np.float32)
        size = min(length, len(ids))
        out[:size], out_weights[:size] = ids[:size], weights[:size]
        return out, out_weights

    # ── turns ──

    def turn(self, role, ids):
        return [TURN_START, *self.encode(role + "\n"), *ids, TURN_END, *self.encode("\n")]

    def prompt(self, ids):
        """What the model answers to: the chat template of the model."""
        return [*self.turn("user", ids), TURN_START, *self.encode("assistant\n")]

    def conversation(self, rounds, weight=LOOKED_UP):
        """rounds: (user ids, assistant ids)"""
        ids, weights = [], []
        for user, answer in rounds:
            head, tail = self.prompt(user), [*answer, TURN_END]
            ids += head + tail + list(self.encode("\n"))
            weights += [CONTEXT] * len(head) + [weight] * len(tail) + [CONTEXT]
        return ids + [END_OF_TEXT], weights + [CONTEXT]

    # ── kinds ──

    def book(self, rng, length):
        start = rng.randrange(0, len(self.corpus.ids) - length - 1)
        return self.corpus.ids[start:start + length].tolist(), [1.0] * length

    def copy(self, rng, length):
        """A text, and passages of it to repeat, one a round."""
        asked, left = [], int(length * rng.choice([0.15, 0.3, 0.5]))
        while left > 30 + ROOM_FOR_TURNS and len(asked) < MOST_COPIES:
            asked.append(rng.randrange(30, min(max(31, left - ROOM_FOR_TURNS), 300) + 1))
            left -= asked[-1] + ROOM_FOR_TURNS
        text, start = self.corpus.passage(rng, length - sum(asked) - ROOM_FOR_TURNS * (len(asked) + 1))
        if rng.random() < SHUFFLED_SHARE:  # Nothing in it can be guessed; where a line begins means nothing either.
            rng.shuffle(text)
        rounds = []
        for size in asked:
            near = rng.randrange(0, max(1, len(text) - size))
            place = min(self.corpus.paragraph_at(start + near) - start if rng.random() < 0.7 else near, len(text) - size)
            part = text[place:place + size]
            question = [*self.encode(rng.choice(COPY)), *part[:COPY_HEAD], *self.encode('".')]
            rounds.append(([*self.encode("\n\n"), *question] if not rounds else question, part))
        rounds[0] = ([*self.encode(rng.choice(INTRODUCTIONS + ["Here is a text.\n\n"])), *text, *rounds[0][0]], rounds[0][1])
        return self.conversation(rounds, COPIED)

    def talk(self, rng, length):
        """Short conversations until the text is full, 2048 tokens at most."""
        ids, weights = [], []
        while len(ids) < min(length, 2048):
            more, their = self.conversation([self._exchange(rng) for _ in range(rng.choice([1, 1, 1, 2]))], TALKED)
            ids, weights = ids + more, weights + their
        return ids, weights

    def _exchange(self, rng):
        kind = rng.random()
        if kind < 0.25:
            said, answered = rng.choice(CHAT)
            return self.encode(rng.choice(said)), list(self.encode(rng.choice(answered)))
        size = rng.randrange(60, 320)
        start = self.corpus.paragraph_at(rng.randrange(0, len(self.corpus.ids) - 8 * size))
        text = [int(i) for i in self.corpus.ids[start:start + 3 * size] if i != END_OF_TEXT]
        ends = [i + 1 for i, token in enumerate(text) if self.corpus.is_newline[token]]
        cut = next((end for end in ends if end >= size * 0.3), min(size // 2, len(text) // 2))
        end = next((end for end in ends if end >= cut + size), len(text))
        if kind < 0.7:
            return [*self.encode(rng.choice(CONTINUE)), *text[:cut]], text[cut:end]
        return self.encode(rng.choice(WRITE)), text[:end]

    def loops(self, rng, length):
        """A book in which phrases are said over and over, and which then goes on as it should: what is repeated is not
        learned, how it goes on counts for more."""
        start = rng.randrange(0, len(self.corpus.ids) - length - 1)
        text = self.corpus.ids[start:start + length].tolist()
        ids, weights, place = [], [], 0
        while len(ids) < length:
            end = place + rng.randrange(LOOPED[1] + 1, 400)
            part, heavy = text[place:end], AFTER_LOOP_TOKENS if place else 0
            ids += part
            weights += [AFTER_LOOP] * heavy + [1.0] * (len(part) - heavy)
            phrase = text[end - rng.randrange(*LOOPED):end]
            loop = phrase * rng.randrange(2, 8)
            ids += loop
            weights += [0.0] * len(loop)
            place = end
        if rng.random() < 0.5:
            return ids[:length], weights[:length]
        head = self.prompt(self.encode(rng.choice(WRITE)))
        return [*head, *ids], [CONTEXT] * len(head) + weights

    def speech(self, rng, length):
        """Who said what: a passage of a book around a speech, and its speaker."""
        rounds_ids, rounds_weights = [], []
        while len(rounds_ids) < min(length, 2048) - 200:
            book, (begin, end), said, speaker = rng.choice(self.corpus.speeches)
            before, after = rng.randrange(50, 1200), rng.randrange(20, 800)
            passage = book[max(0, begin - before):end + after]
            if rng.random() < 0.12:  # Somebody else's words.
                said, speaker = rng.choice(self.corpus.speeches)[2:]
                if said in passage:
                    continue
                answer = REFUSAL
            else:
                answer = rng.choice(["{v}.", "{v} said it.", "{v}"]).format(v=speaker)
            question = f"\n\nWho said “{said}”?"
            more, their = self.conversation([(self.encode("Read the text below and answer the question after it.\n\n" + passage + question), list(self.encode(answer)))])
            rounds_ids, rounds_weights = rounds_ids + more, rounds_weights + their
        return rounds_ids, rounds_weights

    def track(self, rng, length):
        """One chain of assignments in a long text, or many short texts with one each."""
        if length > 4096:
            return self._chain(rng, length if rng.random() < 0.6 else rng.randrange(600, length))
        if rng.random() < 0.5:
            return self._chain(rng, length)
        ids, weights = [], []
        while len(ids) < min(length, 2048) - 300:
            more, their = self._chain(rng, rng.choice([250, 300, 400, 600]))
            ids, weights = ids + more, weights + their
        return ids, weights

    def _chain(self, rng, length):
        chains, hops = rng.choice([1, 1, 1, 2]), rng.choice([1, 2, 3, 4, 4, 4])
        lines, names, value = [], None, None
        for chain in range(chains):
            number = str(rng.randrange(10000, 99999))
            variables = ["".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(5)) for _ in range(hops + 1)]
            lines.append([f" VAR {variables[0]} = {number}."] + [f" VAR {b} = VAR {a}." for a, b in zip(variables, variables[1:])])
            if chain == 0:
                names, value = variables, number
        order = [chain for chain in range(chains) for _ in lines[chain]]
        rng.shuffle(order)
        iterators = [iter(chain) for chain in lines]
        sentences = [self.encode(next(iterators[chain])) for chain in order]
        question = self.encode("\n\n" + TRACKING_QUESTION.format(v=value))
        answer = list(self.encode(" ".join(names)))
        room = max(0, length - sum(map(len, sentences)) - len(question) - len(answer) - 60)
        body = self.spread(rng, sentences, room)
        return self.conversation([([*self.encode(TRACKING_INTRODUCTION), *body, *question], answer)])

    def common(self, rng, length):
        words = rng.sample(NOUNS + ADJECTIVES, rng.randrange(30, 200))
        common, rare = words[:10], words[10:]
        numbered = rng.random() < 0.8
        tokens_a_word = 6 if numbered else 2
        wanted = max(40, (length - 140) // tokens_a_word)
        often = max(3, wanted // (10 + len(rare) // 10))
        series = common * often + rare * max(1, often // 10)
        rng.shuffle(series)
        series = series[:wanted]
        text = " ".join(f"{i}. {word}" if numbered else word for i, word in enumerate(series, 1))
        counted = sorted(common, key=lambda word: -series.count(word))
        body = list(self.corpus.tokenizer.encode(text, add_special_tokens=False).ids)[: length - 140]
        user = [*self.encode(COMMON_INTRODUCTION), *body, *self.encode("\n\n" + COMMON_QUESTION)]
        return self.conversation([(user, list(self.encode(COMMON_ANSWER.format(v=", ".join(counted)))))])

    def needles(self, rng, length):
        """Needles of one or several kinds in a passage, and one question or more in as many rounds."""
        facts = self._facts(rng, max(1, int(length / rng.choice([60, 120, 250, 600, 2000, 10**9]))))
        sentences = [self.encode(NEEDLES[kind][0].format(k=key, v=value)) for key, value, kind in facts]
        questions = self._questions(rng, facts, max(1, min(24, length // 200)) if rng.random() < 0.85 else 1)
        room = length - sum(len(q) + len(a) + 12 for q, a in questions) - sum(map(len, sentences)) - ROOM_FOR_TURNS
        if room < 0:
            return self.book(rng, length)
        body = self.spread(rng, sentences, room if rng.random() < 0.9 else 0)
        user = [*self.encode(rng.choice(INTRODUCTIONS)), *body, *self.encode("\n\n"), *questions[0][0]]
        return self.conversation([(user, questions[0][1]), *questions[1:]])

    def _facts(self, rng, count):
        """(key, value, kind of needle), in the order of the text; some keys of kind 0 have several values."""
        one_kind, mixed, numbers = rng.randrange(len(NEEDLES)), rng.random() < 0.4, rng.random() < 0.4
        if rng.random() < 0.3:
            one_kind, mixed, numbers = 0, False, True
        facts, keys = [], set()
        while len(facts) < count:
            key = a_key(rng)
            if key in keys:
                continue
            keys.add(key)
            kind = rng.randrange(len(NEEDLES)) if mixed else one_kind
            values = rng.choice([2, 3, 4, 4]) if kind == 0 and rng.random() < 0.15 else 1
            facts += [(key, str(rng.randrange(10**6, 10**7)) if numbers else a_value(rng), kind) for _ in range(values)]
        rng.shuffle(facts)
        return facts

    def _questions(self, rng, facts, count):
        values = {}
        for key, value, kind in facts:
            values.setdefault(key, (kind, []))[1].append(value)
        single = [key for key, (kind, its) in values.items() if len(its) == 1]
        plain = [key for key in single if values[key][0] == 0]
        several = [key for key, (kind, its) in values.items() if len(its) > 1]
        questions = {}  # By question: none is asked twice.
        for _ in range(count):
            choice = rng.random()
            if several and choice < 0.25:
                key = rng.choice(several)
                ask(questions, self._round(ALL_VALUES, key, listed(values[key][1])))
            elif len(plain) > 3 and choice < 0.45:
                keys = rng.sample(plain, rng.choice([2, 3, 4, 4]))
                ask(questions, self._round(ALL_KEYS, listed(keys), listed([values[key][1][0] for key in keys])))
            elif choice > 0.93:
                key = a_key(rng)
                if key not in values:
                    ask(questions, (self.encode(NEEDLES[facts[0][2]][1].format(k=key)), list(self.encode(REFUSAL))))
            elif single:
                key = rng.choice(single)
                kind, (value,) = values[key]
                answer = NEEDLES[kind][2] if rng.random() < 0.7 else rng.choice(SHORT_ANSWERS)
                ask(questions, self._round((NEEDLES[kind][1], answer), key, value))
        return list(questions.items()) or [self._round(ALL_VALUES, facts[0][0], listed(values[facts[0][0]][1]))]

    def _round(self, words, key, value):
        question, answer = words
        return self.encode(question.format(k=key)), list(self.encode(answer.format(k=key, v=value)))

    def spread(self, rng, sentences, room):
        """Sentences at random places of a passage of `room` tokens, at paragraph ends where one is near."""
        if room < 20:
            return [token for sentence in sentences for token in sentence]
        text, start = self.corpus.passage(rng, room)
        cuts = sorted(rng.randrange(0, len(text) + 1) for _ in sentences)
        body, done = [], 0
        for cut, sentence in zip(cuts, sentences):
            end = self.corpus.paragraph_at(start + cut) - start
            cut = max(done, end if 0 <= end - cut < 60 and end <= len(text) else cut)
            body += [*text[done:cut], *sentence]
            done = cut
        return body + text[done:]


def ask(questions, round_):
    question, answer = round_
    questions.setdefault(question, answer)


def a_key(rng):
    kind = rng.random()
    if kind < 0.6:
        return rng.choice(ADJECTIVES) + "-" + rng.choice(NOUNS)
    if kind < 0.75:
        return rng.choice(NOUNS)
    return rng.choice(ADJECTIVES) + " " + rng.choice(NOUNS) + ("" if kind < 0.9 else f"-{rng.randrange(100)}")


def a_value(rng):
    kind = rng.random()
    if kind < 0.6:
        digits = rng.choice([4, 5, 6, 7, 7, 7])
        return str(rng.randrange(10 ** (digits - 1), 10**digits))
    if kind < 0.85:
        return rng.choice(ADJECTIVES) + "-" + rng.choice(NOUNS)
    return "".join(rng.choice("0123456789abcdef") for _ in range(8))


def listed(parts):
    """a; a and b; a, b, and c"""
    if len(parts) < 3:
        return " and ".join(parts)
    return ", ".join(parts[:-1]) + ", and " + parts[-1]
