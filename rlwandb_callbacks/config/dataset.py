"""How offline data are shown."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlwandb_callbacks.config.validation import check_types, require, require_one_of

PICTURES = (
    "overview",
    "state_by_reward",
    "state_by_action",
    "state_action_by_reward",
    "state_by_return",
    "state_by_time",
)


@dataclass(frozen=True, kw_only=True)
class EmbeddingConfig:
    """How the rows of a data set are laid out in the plane.

    Args:
        method: ``tsne`` or ``pca``.
        engine: Of t-SNE: ``opentsne``, ``sklearn``, or ``auto`` for openTSNE where it is installed, which is faster.
        sample_size: How many transitions are drawn from the data set, ≥ 1; by default as many as ``max_seconds`` allow,
            and at most 10,000, which show what all would.
        max_seconds: Time that the map may take, by which the default sample is chosen, > 0.
        perplexity: How many neighbors count for t-SNE, ≥ 1; kept below a third of the number of rows.
        seed: Of the sample and of t-SNE, ≥ 0.
    """

    method: str = "tsne"
    engine: str = "auto"
    sample_size: int | None = None
    max_seconds: float = 60.0
    perplexity: float = 30.0
    seed: int = 0

    key_prefix = "dataset.embedding."

    def __post_init__(self) -> None:
        check_types(self)
        require_one_of(self, "method", ("tsne", "pca"))
        require_one_of(self, "engine", ("auto", "opentsne", "sklearn"))
        require(self, "sample_size", lambda value: value is None or value >= 1, "a whole number ≥ 1")
        require(self, "max_seconds", lambda value: value > 0, "a number > 0")
        require(self, "perplexity", lambda value: value >= 1, "a number ≥ 1")
        require(self, "seed", lambda value: 0 <= value < 2**32, "a whole number from 0 to 4294967295")


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """How offline data are shown, where ``vis_dataset`` is true.

    Args:
        pictures: Which pictures of the map: ``overview``, ``state_by_reward``, ``state_by_action``,
            ``state_action_by_reward``, ``state_by_return``, ``state_by_time``; by default all.
        policy_on_data: Draw the states that evaluation episodes visit on the map of the data, and log how far they lie
            from it.
        table_rows: Points in the table and on the interactive page, ≥ 0; 0 leaves both out.
        embedding: How the rows are laid out in the plane.
    """

    pictures: list[str] = field(default_factory=lambda: list(PICTURES))
    policy_on_data: bool = True
    table_rows: int = 10_000
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)

    key_prefix = "dataset."

    def __post_init__(self) -> None:
        check_types(self)
        allowed = f"a list of {', '.join(PICTURES)}"
        require(self, "pictures", lambda names: set(names) <= set(PICTURES), allowed)
        require(self, "table_rows", lambda value: value >= 0, "a whole number ≥ 0")
