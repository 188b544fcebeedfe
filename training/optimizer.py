"""Muon for matrices (Jordan et al., 2024: momentum, made orthogonal by a Newton-Schulz iteration), AdamW for the rest.
Knows no model. Called by train.py and distill.py."""
import torch


class Muon(torch.optim.Optimizer):
    def __init__(self, weights, lr, weight_decay):
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            by_shape = {}
            for weight in group["params"]:
                by_shape.setdefault(weight.shape, []).append(weight)
            for (rows, columns), weights in by_shape.items():
                updates = orthogonal(torch.stack([self._momentum(weight) for weight in weights]))
                for weight, update in zip(weights, updates):
                    weight.mul_(1 - group["lr"] * group["weight_decay"])
                    weight.add_(update.to(weight.dtype), alpha=-group["lr"] * max(1, rows / columns) ** 0.5)

    def _momentum(self, weight):
        momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
        momentum.lerp_(weight.grad, 0.05)
        return weight.grad.lerp(momentum, 0.95)


def orthogonal(updates):
    """[count, rows, columns] -> the nearest with orthonormal rows or columns, roughly."""
    x = updates.bfloat16()
    tall = x.size(-2) > x.size(-1)
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        product = x @ x.mT
        x = 3.4445 * x + (-4.7750 * product + 2.0315 * product @ product) @ x
    return x.mT if tall else x


class Optimizers:
    """Both, with one factor on their rates."""

    def __init__(self, model, matrix_rate=0.02, matrix_decay=0.1, rate=4e-3, decay=0.02):
        is_matrix = lambda name, weight: weight.dim() == 2 and "embed" not in name
        self.others = [weight for name, weight in model.named_parameters() if not is_matrix(name, weight)]
        matrices = [weight for name, weight in model.named_parameters() if is_matrix(name, weight)]
        self.all = [
            Muon(matrices, matrix_rate, matrix_decay),
            torch.optim.AdamW(self.others, lr=rate, betas=(0.9, 0.95), weight_decay=decay, fused=True),
        ]
        self.rates = [matrix_rate, rate]

    def step(self, factor):
        torch.nn.utils.clip_grad_norm_(self.others, 1.0)
        for optimizer, rate in zip(self.all, self.rates):
            for group in optimizer.param_groups:
                group["lr"] = rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def forget(self):
        """The gradients."""
        for optimizer in self.all:
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self):
        return [optimizer.state_dict() for optimizer in self.all]

    def load_state_dict(self, states):
        for optimizer, state in zip(self.all, states):
            optimizer.load_state_dict(state)
