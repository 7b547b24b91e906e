"""How offline data are drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from rlwandb_callbacks.config.validation import Bounds, NonNegativeInt, OneOf, PositiveInt, Section, Seed

PICTURES = (
    "overview",
    "state_by_reward",
    "state_by_action",
    "state_action_by_reward",
    "state_by_return",
    "state_by_time",
)


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig(Section, key="dataset.embedding"):
    """How transitions are embedded in two dimensions.

    Args:
        method: ``tsne`` or ``pca``.
        engine: Implementation of t-SNE: ``opentsne``, ``sklearn``, or ``auto`` for openTSNE if it is installed, which
            is faster.
        sample_size: Number of transitions that are sampled from the data set, ≥ 1; by default as many as fit into
            ``max_seconds``, at most 10,000, which show what all would.
        max_seconds: Time budget of the map, > 0, which determines the default sample size.
        perplexity: Number of neighbors that t-SNE considers, ≥ 1; limited to a third of the number of distinct rows.
        seed: Seed of the sample and of t-SNE, 0 to 4294967295.
    """

    method: Annotated[str, OneOf("tsne", "pca")] = "tsne"
    engine: Annotated[str, OneOf("auto", "opentsne", "sklearn")] = "auto"
    sample_size: PositiveInt | None = None
    max_seconds: Annotated[float, Bounds(gt=0)] = 60.0
    perplexity: Annotated[float, Bounds(ge=1)] = 30.0
    seed: Seed = 0


@dataclass(frozen=True, kw_only=True)
class DatasetConfig(Section, key="dataset"):
    """How offline data are drawn if ``vis_dataset`` is true.

    Args:
        pictures: Maps to draw: ``overview``, ``state_by_reward``, ``state_by_action``, ``state_action_by_reward``,
            ``state_by_return``, ``state_by_time``; by default all.
        policy_on_data: Draw the states that evaluation episodes visit on the map of the data, and log their distance
            from the data.
        table_rows: Points in the table and on the interactive page, ≥ 0; 0 turns both off.
        embedding: How transitions are embedded in two dimensions.
    """

    pictures: list[Annotated[str, OneOf(*PICTURES)]] = field(default_factory=lambda: list(PICTURES))
    policy_on_data: bool = True
    table_rows: NonNegativeInt = 10_000
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
