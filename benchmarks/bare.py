"""The training step in plain PyTorch: what the engine's overhead is measured against.

The same data order, loss, AdamW, clipping, moving average and fitted density as
`shared.train.loop`, for one process and fp32 weights, without DeepSpeed. Equal losses show that
both compute the same.
"""

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from shared.config import TrainConfig
from shared.learner import DiffusionLearner
from shared.objective import sample_keys, stratified_times
from shared.task import Examples
from shared.train.loop import learning_rate
from shared.train.optimizer import build_optimizer
from shared.train.order import Order


class Bare:
    """A run in progress, step by step."""

    def __init__(self, config: TrainConfig, learner: DiffusionLearner, examples: Examples) -> None:
        self.config, self.learner, self.examples = config, learner.train(), examples
        self.order, self.step = Order(len(examples), config.seed), 0
        self.device = next(learner.parameters()).device
        self.parameters = [p for p in learner.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimizer = build_optimizer(learner, config)

    def update(self) -> float:
        """One update of the weights; the batch's mean loss."""
        config, step, learner = self.config, self.step, self.learner
        learner.retime()
        positions = torch.arange(config.batch)
        indices = step * config.batch + positions
        data, condition = self.examples.take(self.order.rows(indices))
        keys = sample_keys(config.seed, indices).to(self.device)
        t = stratified_times(config.seed, step, positions).to(self.device)
        condition = None if condition is None else condition.to(self.device)
        losses, logsnr = learner(data.to(self.device), condition, keys, t)
        loss = losses.mean()
        loss.backward()
        if learner.density is not None:
            learner.density.update(learner.density.statistics(losses.detach(), logsnr))
        nn.utils.clip_grad_norm_(self.parameters, config.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        self.optimizer.step()
        self.optimizer.zero_grad()
        decay = min(config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            get_ema_multi_avg_fn(decay)(self.average, [p.data for p in self.parameters], None)
        self.step += 1
        return float(loss.detach())
