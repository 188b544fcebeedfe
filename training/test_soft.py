"""Tests of the soft targets. `python3 -m unittest` in this folder; skipped where PyTorch is missing."""
import tempfile
import unittest
from pathlib import Path

try:
    import torch
except ImportError:
    raise unittest.SkipTest("soft targets need PyTorch")

from corpus import VOCAB
from model import DEVICE, TARGET, Decoder, parted
from soft import MOST_DRAWN, SAMPLES, UNSEEN, WINDOW, SoftRows, drawn_anew, drawn_from, expected_after


def seeded(seed=1):
    return torch.Generator(DEVICE).manual_seed(seed)


def next_number(windows):
    """Teachers that are sure: after a token they expect the next number, whatever stands before it; but of the first
    tokens of a window they know nothing and expect token 7."""
    expected = torch.zeros(*windows.shape, VOCAB, device=DEVICE)
    known = (torch.arange(windows.shape[1], device=DEVICE) >= UNSEEN) | (windows[:, :1] == 0)
    return expected.scatter_(-1, torch.where(known, windows + 1, 7)[..., None], 1.0)


class DrawnTest(unittest.TestCase):
    def test_tokens_come_as_often_as_they_are_expected(self):
        expected = torch.softmax(3 * torch.randn(VOCAB, generator=seeded(), device=DEVICE), -1)
        drawn = drawn_from(expected.expand(2000, VOCAB), seeded()).long()
        shares = torch.bincount(drawn.flatten(), minlength=VOCAB) / drawn.numel()
        self.assertLess((shares - expected).abs().max().item(), 1e-3)
        entropy = -(expected * expected.log()).sum().item()
        self.assertAlmostEqual(-expected.log()[drawn].mean().item(), entropy, delta=0.02)
        self.assertTrue((drawn.sort(-1).values == drawn).all(), "one of each equal part")

    def test_each_place_of_a_text_gets_what_is_expected_after_it(self):
        ids = torch.arange(3 * WINDOW + 100, device=DEVICE, dtype=torch.int16)
        for first in (1, WINDOW - UNSEEN):
            after = expected_after(ids, next_number, first, seeded())
            self.assertTrue((after == ids[:, None] + 1).all())

    def test_a_text_with_tokens_drawn_anew(self):
        ids = torch.arange(100, 100 + 2 * WINDOW, device=DEVICE, dtype=torch.int16)
        expected = torch.full((len(ids), SAMPLES), 7, device=DEVICE, dtype=torch.int16)
        other = drawn_anew(ids, expected, seeded())
        drawn = other == 7
        self.assertTrue(torch.where(drawn, ids, other).equal(ids))
        self.assertFalse(drawn[0], "nothing stands before the first token that it could be drawn from")
        for stretch in drawn.view(2, WINDOW):
            self.assertTrue(0 < stretch.float().mean().item() < MOST_DRAWN)

    def test_what_is_drawn_for_a_place_was_expected_there(self):
        ids = torch.zeros(WINDOW, device=DEVICE, dtype=torch.int16)
        expected = torch.arange(1, WINDOW + 1, device=DEVICE, dtype=torch.int16)[:, None].expand(-1, SAMPLES)
        other = drawn_anew(ids, expected, seeded())
        drawn = other != 0
        self.assertTrue(drawn.any())
        self.assertTrue(other[drawn].equal(torch.arange(WINDOW, device=DEVICE, dtype=torch.int16)[drawn]))


class SoftRowsTest(unittest.TestCase):
    def test_rows_are_of_the_right_text_and_their_aims_stand_beside_them(self):
        plain = torch.arange(100, 1100, device=DEVICE, dtype=torch.int16)
        ids = torch.stack([plain, plain + 2000])
        with tempfile.TemporaryDirectory() as folder:
            sources = [Path(folder) / name for name in ("a", "b")]
            for source in sources:
                torch.save({"ids": ids, "samples": (ids + 1)[..., None].expand(-1, -1, SAMPLES).contiguous()}, source)
            soft = SoftRows(length=50, fresh=3, drawn=2, hard=0.5, generator=seeded())
            soft.load(sources)
        rows, samples, hard = soft.rows()
        self.assertEqual(list(rows.shape), [5, 51])
        self.assertEqual((rows[:, 0] >= 2100).tolist(), [False, False, False, True, True])
        self.assertTrue((rows[:, 1:] - rows[:, :-1] == 1).all())
        self.assertTrue((samples == rows[:, :-1, None] + 1).all())
        self.assertEqual(hard[:, 0].tolist(), [0.5, 0.5, 0.5, 0, 0])


class LossTest(unittest.TestCase):
    def test_the_loss_of_samples_is_their_mean_cross_entropy(self):
        torch.manual_seed(1)
        model = Decoder(TARGET).to(DEVICE)
        ids = torch.randint(0, VOCAB, (3, 9), device=DEVICE)
        samples = torch.randint(0, VOCAB, (2, 8, SAMPLES), device=DEVICE, dtype=torch.int16)
        hard = torch.tensor([[0.25], [0.0]], device=DEVICE)
        weights = torch.rand(3, 8, device=DEVICE)
        mean, losses = model(ids[:, :-1], ids[:, 1:], weights, None, samples, hard)
        logs = torch.log_softmax(model.logits(model.hidden(ids[:, :-1])), -1)
        plain = -logs.gather(-1, ids[:, 1:, None])[..., 0]
        wanted = plain.clone()
        for row, share in ((0, 0.25), (1, 0.0)):
            wanted[row] = share * plain[row] - (1 - share) * logs[row].gather(-1, samples[row].long()).mean(-1)
        self.assertTrue(torch.allclose(losses, wanted, atol=1e-4))
        self.assertAlmostEqual(mean.item(), ((wanted * weights).sum() / weights.sum()).item(), places=4)


class PartedTest(unittest.TestCase):
    def test_parts_are_of_about_one_size_and_hold_each_name_once(self):
        tensors = {str(size): torch.zeros(size) for size in (9, 5, 4, 3, 2, 1)}
        parts = parted(tensors, 2)
        self.assertEqual(sorted(sum(parts, [])), sorted(tensors))
        self.assertEqual([sum(tensors[name].numel() for name in part) for part in parts], [12, 12])


if __name__ == "__main__":
    unittest.main()
