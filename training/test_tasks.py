"""Tests of the generated texts, with a tokenizer of bytes in place of the real one.

    cd training && python3 -m unittest
"""
import random
import re
import unittest
from types import SimpleNamespace

import numpy as np

import average
from corpus import END_OF_TEXT, PAD, SPECIAL, TURN_END, Corpus
from tasks import COPY_HEAD, FULL_MIX, LONG_MIX, SHORT_MIX, TASKS_MIX, Tasks, listed
from words import REFUSAL


class ByteTokenizer:
    """Token 4 + b is byte b; the first four are the special ones."""

    def encode(self, text, add_special_tokens=False):
        return SimpleNamespace(ids=[len(SPECIAL) + byte for byte in text.encode()])

    def encode_batch(self, texts):
        return [self.encode(text) for text in texts]

    def decode(self, ids, skip_special_tokens=True):
        size = len(SPECIAL)
        return bytes(i - size for i in ids if size <= i < size + 256).decode(errors="replace")


def a_book(rng):
    words = [f"word{rng.randrange(500)}" for _ in range(60_000)]
    lines = [" ".join(words[i:i + 30]) + "." for i in range(0, len(words), 30)]
    lines[100] = "“This was said by somebody in the first book” said Margaret and went away."
    lines[200] = "“Here is another thing that was once said” asked Mr. Holmes of nobody."
    return "\n\n".join(lines)


class TasksTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        rng = random.Random(7)
        cls.corpus = Corpus([a_book(rng), a_book(rng)], ByteTokenizer())
        cls.tasks = Tasks(cls.corpus)

    def text(self, ids):
        return self.corpus.tokenizer.decode(ids)

    def answers(self, ids, weights):
        """Texts of what is weighted as an answer, turn by turn."""
        found, own = [], []
        for token, weight in zip(ids, weights):
            if weight > 1 and token != TURN_END:
                own.append(token)
            elif own:
                found.append(self.text(own))
                own = []
        return found

    def test_the_same_seed_gives_the_same_text(self):
        for seed in range(30):
            first, second = self.tasks.sample(seed, 2049, SHORT_MIX), Tasks(self.corpus).sample(seed, 2049, SHORT_MIX)
            np.testing.assert_array_equal(first[0], second[0])
            np.testing.assert_array_equal(first[1], second[1])
        self.assertFalse(np.array_equal(first[0], self.tasks.sample(30, 2049, SHORT_MIX)[0]))

    def test_every_kind_fills_what_it_was_asked_for_and_weighs_no_padding(self):
        for mix in (SHORT_MIX, LONG_MIX, FULL_MIX, TASKS_MIX):
            self.assertAlmostEqual(sum(mix.values()), 1)
        for kind in SHORT_MIX:
            for seed in range(12):
                ids, weights = self.tasks.sample(seed, 6001, {kind: 1})
                self.assertEqual((ids.shape, weights.shape), ((6001,), (6001,)), kind)
                self.assertGreater(weights.sum(), 0, kind)
                self.assertTrue(np.all(weights[ids == PAD] == 0), kind)

    def test_answers_of_tracking_are_the_chain_in_its_order(self):
        for seed in range(40):
            ids, weights = self.tasks.track(random.Random(seed), 3000)
            text = self.text(ids)
            for question in re.finditer(r"assigned the value (\d+) in the text above\.assistant\n([A-Z ]+)\n", text):
                names = question[2].split()
                before = text[:question.start()]
                self.assertIn(f" VAR {names[0]} = {question[1]}.", before)
                for a, b in zip(names, names[1:]):
                    self.assertIn(f" VAR {b} = VAR {a}.", before)
                self.assertNotRegex(before, f"= VAR {names[-1]}\\.")
            self.assertTrue(self.answers(ids, weights))

    def test_answers_about_needles_stand_in_the_text_or_are_refused(self):
        refused = several = 0
        for seed in range(60):
            ids, weights = self.tasks.needles(random.Random(seed), 12_000)
            if TURN_END not in ids:  # More facts than the length has room for: a book instead.
                continue
            first_turn = self.text(ids[:ids.index(TURN_END)])
            for answer in self.answers(ids, weights):
                if answer == REFUSAL:
                    refused += 1
                    continue
                numbers = re.findall(r"\b\d{6,7}\b", answer)
                several += len(numbers) > 2
                places = [first_turn.index(number) for number in numbers]
                self.assertEqual(len(places), len(numbers))
                if "magic numbers for" in answer and " and " not in answer.split(" mentioned ")[0]:
                    self.assertEqual(places, sorted(places))  # All values of one key, in the order of the text.
        self.assertGreater(refused, 0)
        self.assertGreater(several, 0)

    def test_copied_passages_are_those_asked_for(self):
        several = 0
        for seed in range(20):
            ids, weights = self.tasks.copy(random.Random(seed), 3000)
            answers = self.answers(ids, weights)
            several += len(answers) > 2
            for answer in answers:
                self.assertIn(answer, self.text(ids[:ids.index(TURN_END)]))
                self.assertIn(f'passage that begins with "{answer[:COPY_HEAD]}".', self.text(ids))
        self.assertGreater(several, 0)

    def test_what_is_said_over_and_over_is_not_learned(self):
        book = self.corpus.ids.astype("<u2").tobytes()
        for seed in range(20):
            ids, weights = self.tasks.loops(random.Random(seed), 2000)
            self.assertEqual(len(ids), len(weights))
            learned = [token for token, weight in zip(ids, weights) if weight >= 1]
            self.assertIn(np.array(learned, "<u2").tobytes(), book)
            self.assertGreater(weights.count(0.0), 100)
            self.assertGreater(sum(weight > 1 for weight in weights), 8)

    def test_a_speaker_is_named_or_refused(self):
        ids, weights = self.tasks.speech(random.Random(1), 3000)
        for answer in self.answers(ids, weights):
            self.assertRegex(answer, f"Margaret|Mr. Holmes|{re.escape(REFUSAL)}")

    def test_passages_hold_no_end_of_a_book(self):
        for seed in range(50):
            self.assertNotIn(END_OF_TEXT, self.corpus.passage(random.Random(seed), 400_000)[0])

    def test_lists_are_worded_as_the_evaluation_words_them(self):
        self.assertEqual([listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])], ["a", "a and b", "a, b, and c"])


class AverageTest(unittest.TestCase):
    def test_each_has_its_share(self):
        first, second = np.array([0, 4], np.float16), np.array([8, -4], np.float16)
        np.testing.assert_array_equal(average.average([first, second], [0.75, 0.25]), np.array([2, 2], np.float16))


if __name__ == "__main__":
    unittest.main()
