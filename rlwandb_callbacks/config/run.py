"""The W&B run that the callbacks open themselves."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rlwandb_callbacks.config.validation import check_types, require_one_of

STEP_METRICS = ("trainer/global_step", "time/env_steps", "time/updates")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """The W&B run that is opened where neither a WandbLogger nor ``wandb.init`` opened one.

    Args:
        project: W&B project.
        name: Name of the run.
        entity: W&B user or team.
        group: Runs that belong together.
        tags: Labels of the run.
        notes: Longer description.
        mode: ``online``, ``offline`` or ``disabled``; by default ``WANDB_MODE``, else online where an account and the
            network are there and offline where not.
        id: Identifier, to go on with a run.
        resume: ``allow``, ``must``, ``never`` or ``auto``.
        config: Further entries of the run's config.
        step_metric: X axis of what the callbacks log: ``trainer/global_step``, ``time/env_steps`` or ``time/updates``.
            Every row carries all three that are known, so that W&B can change it later.
    """

    project: str | None = None
    name: str | None = None
    entity: str | None = None
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    mode: str | None = None
    id: str | None = None
    resume: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    step_metric: str = "trainer/global_step"

    key_prefix = "run."

    def __post_init__(self) -> None:
        check_types(self)
        require_one_of(self, "mode", (None, "online", "offline", "disabled"))
        require_one_of(self, "resume", (None, "allow", "must", "never", "auto"))
        require_one_of(self, "step_metric", STEP_METRICS)
