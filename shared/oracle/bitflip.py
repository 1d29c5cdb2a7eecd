"""The binomial diffusion of DPM 2015 as an exact discrete process: bits that flip, one by one.

    q(x_t = 1 | x_{t-1}) = (1 - b_t) x_{t-1} + b_t rate

(Sohl-Dickstein et al. 2015, table App.1, where the rate is 0.5). A bit is kept with probability
1 - b_t or else drawn afresh, so with keep_t = prod (1 - b_s),
q(x_t = 1 | x_0) = keep_t x_0 + (1 - keep_t) rate. The data are K weighted sequences: the posterior
over them, the reverse kernel q(x_{t-1} | x_t) (a mixture over the sequences of products over the
bits) and every term of the bound

    -log p(x_0) <= KL(q(x_T | x_0) || p(x_T))
                   + sum_t E KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t))

are finite sums; the term t = 1 is -E log p(x_0 | x_1). Places with equal columns in `sequences` are
exchangeable, so sums over x_t run over counts of ones in each kind of column, not over 2^L words.

Here, as in the paper, t is an integer, 0 (data) to T. All arithmetic is float64. Likelihoods are in
nats, the bound and entropies in bits per sequence.
"""

import itertools
import math

import torch
from torch import Tensor

_MAX_STATES = 100_000


def binomial_betas(steps: int) -> Tensor:
    """b_t = 1 / (T - t + 1) (T,): each step erases the same share 1 / T of the signal, and the last
    all that is left (Sohl-Dickstein et al. 2015, sec. 2.4.1)."""
    if steps < 1:
        raise ValueError(f"oracle: steps = {steps}: expected 1 or more")
    return 1 / torch.arange(steps, 0, -1, dtype=torch.float64)


def heartbeat(steps: int = 2000) -> "BitFlip":
    """The paper's binary heartbeat: 20 bits, a one every fifth bin, the phase uniform; entropy
    log2 5. Its chain of 2000 steps ends at the data's rate, 0.2 (app. D.1.2; the paper's table of
    kernels says 0.5, but its null likelihood of -14.438 bits is that of rate 0.2). The paper's
    network reached -2.414 bits (table 1); independent reverse bits allow -2.3244 at most."""
    return BitFlip(torch.eye(5).repeat(1, 4), binomial_betas(steps), rate=0.2)


class BitFlip:
    """sequences (K, L) of 0 and 1, each once; betas (T,) in (0, 1]; rate in (0, 1), the activity
    that the chain forgets towards; weights (K,), default equal.

    Raises ValueError when one of these does not hold, and when a step t is outside the chain.
    """

    def __init__(
        self, sequences: Tensor, betas: Tensor, rate: float = 0.5, weights: Tensor | None = None
    ) -> None:
        if sequences.ndim != 2 or not bool(((sequences == 0) | (sequences == 1)).all()):
            raise ValueError(
                f"oracle: sequences {tuple(sequences.shape)}: expected (K, L) of zeros and ones"
            )
        if len(torch.unique(sequences, dim=0)) != len(sequences):
            raise ValueError("oracle: a sequence repeats: give it once, with its weight")
        if betas.ndim != 1 or not bool(((betas > 0) & (betas <= 1)).all()):
            raise ValueError(f"oracle: betas {tuple(betas.shape)}: expected (T,), each in (0, 1]")
        if not 0 < rate < 1:
            raise ValueError(f"oracle: rate = {rate}: expected a number between 0 and 1")
        if weights is None:
            weights = torch.ones(len(sequences))
        if weights.shape != sequences.shape[:1] or not bool((weights > 0).all()):
            raise ValueError(
                f"oracle: weights {tuple(weights.shape)} for {len(sequences)} sequences: "
                "expected one positive number each"
            )
        self.sequences, self.rate, self.steps = sequences, rate, len(betas)
        self.data = sequences.double()
        self.weights = weights.double() / weights.double().sum()
        self.betas = betas.double()
        self.keep = torch.cat([self.betas.new_ones(1), torch.cumprod(1 - self.betas, 0)])

    def kernel(self, x_s: Tensor, t: int) -> Tensor:
        """q(x_t = 1 | x_{t-1} = x_s), elementwise, t = 1..T."""
        beta = self.betas[self._step(t, 1) - 1]
        return (1 - beta) * x_s.double() + beta * self.rate

    def marginal(self, x_0: Tensor, t: int) -> Tensor:
        """q(x_t = 1 | x_0), elementwise, t = 0..T."""
        keep = self.keep[self._step(t, 0)]
        return keep * x_0.double() + (1 - keep) * self.rate

    def posterior(self, x_t: Tensor, x_0: Tensor, t: int) -> Tensor:
        """q(x_{t-1} = 1 | x_t, x_0), elementwise, by Bayes; t = 1..T. At t = 1 it is x_0."""
        up, down = self.kernel(torch.ones(()), t), self.kernel(torch.zeros(()), t)
        before = self.marginal(x_0, t - 1)
        one = before * torch.where(x_t == 1, up, 1 - up)
        zero = (1 - before) * torch.where(x_t == 1, down, 1 - down)
        return one / (one + zero)

    def log_posterior(self, x_t: Tensor, t: int) -> Tensor:
        """x_t (B, L) -> log p(sequence | x_t), nats, (B, K)."""
        return self._log_joint(x_t, t).log_softmax(-1)

    def log_prob(self, x_t: Tensor, t: int) -> Tensor:
        """x_t (B, L) -> log q(x_t) under the data, nats, (B,); -inf off the data at t = 0."""
        return self._log_joint(x_t, t).logsumexp(-1)

    def reverse_log_prob(self, x_s: Tensor, x_t: Tensor, t: int) -> Tensor:
        """x_s, x_t (B, L) -> log q(x_{t-1} = x_s | x_t) under the data, nats, (B,)."""
        rates = self.posterior(x_t[:, None], self.data, t)
        log_p = _log_bernoulli(x_s[:, None].double(), rates).sum(-1)
        return (self.log_posterior(x_t, t) + log_p).logsumexp(-1)

    def reverse_rates(self, x_t: Tensor, t: int) -> Tensor:
        """x_t (B, L) -> q(x_{t-1,i} = 1 | x_t) for each bit (B, L): of all reverse kernels whose
        bits are independent, as the paper's network gives them, the one with the best bound."""
        rates = self.posterior(x_t[:, None], self.data, t)
        return (self.log_posterior(x_t, t).exp()[..., None] * rates).sum(1)

    def step_bits(self, rates: Tensor, x_t: Tensor, x_0: Tensor, t: int) -> Tensor:
        """KL(q(x_{t-1} | x_t, x_0) || B(rates)), bits, (B,), of any model's rates (B, L)."""
        p, q = self.posterior(x_t, x_0, t), rates.double()
        log_ratio = torch.xlogy(p, p) - torch.xlogy(p, q)
        log_ratio = log_ratio + torch.xlogy(1 - p, 1 - p) - torch.xlogy(1 - p, 1 - q)
        return log_ratio.sum(-1) / math.log(2)

    def prior_bits(self) -> float:
        """E KL(q(x_T | x_0) || B(rate)), bits: 0 when the last step erases everything."""
        last, rate = (
            self.marginal(self.data, self.steps),
            torch.tensor(self.rate, dtype=torch.float64),
        )
        log_ratio = torch.xlogy(last, last / rate)
        log_ratio = log_ratio + torch.xlogy(1 - last, (1 - last) / (1 - rate))
        return float((self.weights * log_ratio.sum(-1)).sum()) / math.log(2)

    def entropy_bits(self) -> float:
        """Entropy of the data, bits."""
        return float(torch.special.entr(self.weights).sum()) / math.log(2)

    def information_bits(self, t: int) -> float:
        """Mutual information of x_0 and x_t, bits: the entropy at t = 0, and falling with t."""
        log_q, counted = self._states(t)
        log_p = (log_q + self.weights.log()).logsumexp(-1, keepdim=True)
        gain = torch.where(counted > 0, counted * (log_q - log_p), 0.0)  # 0 * (-inf) is 0
        return float((self.weights * gain).sum()) / math.log(2)

    def exact_terms(self) -> Tensor:
        """The bound's KLs averaged over the data, bits, (T + 1,), for the exact reverse kernel: [0]
        the prior's, [t] step t's. Minus their sum is -entropy - KL(q(x_T) || B(rate)): no loss
        but the mismatch of the prior.

        As x_0, x_{t-1}, x_t is a Markov chain, E KL(q(x_{t-1} | x_t, x_0) || q(x_{t-1} | x_t)) =
        I(x_0; x_{t-1} | x_t) = I(x_0; x_{t-1}) - I(x_0; x_t).
        """
        information = [self.information_bits(t) for t in range(self.steps + 1)]
        falls = [a - b for a, b in itertools.pairwise(information)]
        return torch.tensor([self.prior_bits(), *falls], dtype=torch.float64)

    def factorised_terms(self) -> Tensor:
        """The same terms for `reverse_rates`: the ceiling of the paper's model, (T + 1,). Step t
        loses sum_i I(x_0; x_{t-1,i} | x_t), which falls to the exact loss as steps get small."""
        columns, sizes, counts = self._groups()
        terms = [self.prior_bits()]
        both = torch.tensor([0.0, 1.0], dtype=torch.float64)[:, None, None]
        bits = torch.stack([sizes - counts, counts], 1).flatten(1)  # (S, 2 G): zeros, then ones
        for t in range(1, self.steps + 1):
            log_q, counted = self._states(t)
            guess = (log_q + self.weights.log()).softmax(-1)
            rates = self.posterior(both, columns, t).flatten(0, 1)  # (2 G, K)
            loss = _entropy(guess @ rates.mT) - guess @ _entropy(rates).mT
            terms.append(float(((counted @ self.weights) * (bits * loss).sum(-1)).sum()))
        terms[1:] = [term / math.log(2) for term in terms[1:]]
        return torch.tensor(terms, dtype=torch.float64)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """n draws (n, L) of x_0, in the sequences' dtype."""
        return self.sequences[_choose(self.weights.expand(n, -1), generator)]

    def noised(self, x_0: Tensor, t: int, generator: torch.Generator) -> Tensor:
        """A draw of x_t given x_0 (B, L), in its dtype."""
        return torch.bernoulli(self.marginal(x_0, t), generator=generator).to(x_0)

    def reverse_step(self, x_t: Tensor, t: int, generator: torch.Generator) -> Tensor:
        """A draw of x_{t-1} (B, L) from the exact reverse kernel: a sequence, then its bits."""
        k = _choose(self.log_posterior(x_t, t).exp(), generator)
        return torch.bernoulli(self.posterior(x_t, self.data[k], t), generator=generator).to(x_t)

    def _step(self, t: int, first: int) -> int:
        if not first <= t <= self.steps:
            raise ValueError(f"oracle: t = {t}: expected {first} to {self.steps}, a step")
        return t

    def _log_joint(self, x_t: Tensor, t: int) -> Tensor:
        if x_t.ndim != 2 or x_t.shape[1] != self.data.shape[1]:
            raise ValueError(
                f"oracle: x_t {tuple(x_t.shape)}: expected (B, {self.data.shape[1]}) bits"
            )
        log_p = _log_bernoulli(x_t[:, None].double(), self.marginal(self.data, t))
        return log_p.sum(-1) + self.weights.log()

    def _groups(self) -> tuple[Tensor, Tensor, Tensor]:
        """Distinct columns of the data (G, K), how often each occurs (G,), and all vectors of
        counts of ones in them (S, G)."""
        columns, sizes = torch.unique(self.data.mT, dim=0, return_counts=True)
        states = math.prod(int(size) + 1 for size in sizes)
        if states > _MAX_STATES:
            raise ValueError(
                f"oracle: {states} states of x_t to sum over, more than {_MAX_STATES}: use data "
                "with fewer distinct columns"
            )
        grid = torch.cartesian_prod(*(torch.arange(int(size) + 1.0) for size in sizes))
        return columns, sizes.double(), grid.reshape(states, -1).double()

    def _states(self, t: int) -> tuple[Tensor, Tensor]:
        """log q of one word with these counts given each sequence, and q of all of them, (S, K)."""
        columns, sizes, counts = self._groups()
        rates = self.marginal(columns, t)
        ones, zeros = counts[..., None], (sizes - counts)[..., None]
        log_q = (torch.xlogy(ones, rates) + torch.xlogy(zeros, 1 - rates)).sum(1)
        words = torch.lgamma(sizes + 1) - torch.lgamma(counts + 1)
        words = (words - torch.lgamma(sizes - counts + 1)).sum(-1, keepdim=True)
        return log_q, torch.exp(log_q + words)


def _log_bernoulli(x: Tensor, rates: Tensor) -> Tensor:
    """log of the chance of bits x under rates, elementwise; xlogy: an impossible bit that is not
    seen costs 0, not NaN."""
    return torch.xlogy(x, rates) + torch.xlogy(1 - x, 1 - rates)


def _entropy(rates: Tensor) -> Tensor:
    """Entropy of bits with these rates, nats, elementwise."""
    return torch.special.entr(rates) + torch.special.entr(1 - rates)


def _choose(weights: Tensor, generator: torch.Generator) -> Tensor:
    """One index a row of weights (B, K), (B,)."""
    return torch.multinomial(weights, 1, generator=generator)[:, 0]
