"""How long sentences are, as a whole distribution: a right mean may hide that all are alike.

The distance is Wasserstein-1 in tokens, the integral of |F(x) - G(x)| over the two distribution
functions: how many tokens a sentence must grow or shrink on average to make one of the other.
"""

from collections.abc import Sequence


def compute(
    predictions: Sequence[int], references: Sequence[int], training: Sequence[int]
) -> dict[str, float]:
    """Lengths in tokens -> means, and distances to those of the training split.

    `references` are lengths of held-out sentences, as many as predictions if possible: what is left
    of their distance is what the size of a sample and the split leave.
    """
    return {
        "tokens_mean": sum(predictions) / len(predictions),
        "tokens_mean_held_out": sum(references) / len(references),
        "length_distance": distance(predictions, training),
        "length_distance_held_out": distance(references, training),
    }


def distance(ours: Sequence[int], theirs: Sequence[int]) -> float:
    """Wasserstein-1 between two samples, in their unit; they may differ in size."""
    from scipy.stats import wasserstein_distance  # half a second, which others need not wait

    return float(wasserstein_distance(ours, theirs))
