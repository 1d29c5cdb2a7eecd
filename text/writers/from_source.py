"""Sentences from a source, for the writers whose wish becomes one."""

from collections.abc import Sequence

from shared.requests import WriteRequest
from shared.sampling import Sampling
from text.ask import Ask, Near
from text.control import Control
from text.pipeline import Pipeline
from text.writers.wanted import Drawn


def draw_from(
    pipeline: Pipeline,
    request: WriteRequest,
    how: Sampling,
    source: str,
    controls: Sequence[Control],
    seeds: Sequence[int],
    near: str | None,
) -> list[Drawn]:
    """A sentence for each seed, from the source (empty: from nothing) under the controls, or a
    variation of `near`. Of several, the score is how sure the model itself is (`text.sureness`).
    ConfigError for what the model cannot do."""
    n = len(seeds)
    ask = Ask(
        source=pipeline.prompted(source or None, n)[0],
        automata=pipeline.automata([controls] * n) if controls else None,
        control_scale=request.control_scale,
        near=None if near is None else Near(pipeline.rows([near] * n), request.strength),
        rank="sureness" if request.surest > 1 else "agreement",
    )
    texts = pipeline.write(seeds, how, ask).texts
    if request.surest == 1:
        return [Drawn(text) for text in texts]
    losses = pipeline.own_losses(texts, ask.source).tolist()
    return [Drawn(text, (-loss,)) for text, loss in zip(texts, losses, strict=True)]
