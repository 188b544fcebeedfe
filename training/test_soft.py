"""Tests of the rows with soft targets. `python3 -m unittest` in this folder; skipped where PyTorch is missing."""
import unittest

import numpy as np

try:
    import torch
except ImportError:
    raise unittest.SkipTest("soft targets need PyTorch")

from corpus import VOCAB
from model import DEVICE, parted
from soft import MOST_DRAWN, UNSEEN, WINDOW, SoftRows

DRAWN = 7


def sure(ids):
    """Teachers that expect DRAWN everywhere."""
    wanted = torch.zeros(*ids.shape, VOCAB, device=DEVICE, dtype=torch.bfloat16)
    wanted[..., DRAWN] = 1
    return wanted


def rows_of(length, fresh, resampled):
    ids = np.arange(100, 100 + 4 * length, dtype=np.uint16)
    stage = {"length": length, "fresh": fresh, "resampled": resampled}
    return SoftRows(ids, stage, sure, torch.Generator(DEVICE).manual_seed(1))


class SoftRowsTest(unittest.TestCase):
    def test_rows_stand_in_the_books_and_come_again_with_tokens_drawn_anew(self):
        soft = rows_of(400, fresh=3, resampled=2)
        first, _, _ = soft.rows()
        second, _, _ = soft.rows()
        self.assertTrue((first[:, 1:] - first[:, :-1] == 1).all(), "all rows of the first batch are from the books")
        again = second[3:]
        drawn = again == DRAWN
        self.assertTrue(torch.where(drawn, first[:2], again).equal(first[:2]))
        self.assertGreater(drawn.sum().item(), 0)
        self.assertLess(drawn.float().mean().item(), MOST_DRAWN)
        self.assertFalse(drawn[:, 0].any(), "nothing stands before the first token that it could be drawn from")

    def test_what_a_window_begins_with_does_not_count_but_in_the_first(self):
        _, weights, wanted = rows_of(2 * WINDOW, fresh=1, resampled=0).rows()
        self.assertEqual(list(wanted.shape), [1, 2 * WINDOW, VOCAB])
        of_inputs = weights[0, 1:]
        self.assertTrue((of_inputs[:WINDOW] == 1).all())
        self.assertTrue((of_inputs[WINDOW:WINDOW + UNSEEN] == 0).all())
        self.assertTrue((of_inputs[WINDOW + UNSEEN:] == 1).all())


class PartedTest(unittest.TestCase):
    def test_parts_are_of_about_one_size_and_hold_each_name_once(self):
        tensors = {str(size): torch.zeros(size) for size in (9, 5, 4, 3, 2, 1)}
        parts = parted(tensors, 2)
        self.assertEqual(sorted(sum(parts, [])), sorted(tensors))
        self.assertEqual([sum(tensors[name].numel() for name in part) for part in parts], [12, 12])


if __name__ == "__main__":
    unittest.main()
