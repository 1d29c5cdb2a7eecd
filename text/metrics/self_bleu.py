"""Self-BLEU: how like the other sentences each sentence is; high where a model repeats itself.

The mean over some sentences of the BLEU of each, with all the others as its references (Zhu et al.
2018). It grows with their number, which is therefore fixed, and the same for the data's own.
"""

from collections.abc import Sequence

from sacrebleu import sentence_bleu

COUNT = 100  # sentences compared, each with the 99 others: about a second


def compute(
    predictions: Sequence[str], references: Sequence[str], count: int = COUNT
) -> dict[str, float | None]:
    """{"self_bleu", "self_bleu_held_out", "self_bleu_sentences"}, from 0 to 100: of the first
    `count` predictions and references, or of as many as both have; None for a single sentence."""
    n = min(count, len(predictions), len(references))
    return {
        "self_bleu": self_bleu(predictions[:n]),
        "self_bleu_held_out": self_bleu(references[:n]),
        "self_bleu_sentences": n,
    }


def self_bleu(sentences: Sequence[str]) -> float | None:
    """The mean BLEU of each sentence against all others, by sacrebleu's sentence_bleu as it comes;
    None when there are no others."""
    if len(sentences) < 2:
        return None
    scores = [
        sentence_bleu(sentence, [*sentences[:i], *sentences[i + 1 :]]).score
        for i, sentence in enumerate(sentences)
    ]
    return sum(scores) / len(scores)
