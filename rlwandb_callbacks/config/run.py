"""The W&B run that the callbacks open themselves."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Annotated, Any

from rlwandb_callbacks.config.validation import OneOf, Section


@dataclass(frozen=True, kw_only=True)
class RunConfig(Section, key="run"):
    """The W&B run that is opened if neither a WandbLogger nor ``wandb.init`` opened one.

    Args:
        project: W&B project.
        name: Name of the run.
        entity: W&B user or team.
        group: Name of the group of runs that this run belongs to.
        job_type: Kind of the run within its group, such as ``train``.
        tags: Labels of the run.
        notes: Longer description.
        mode: ``online``, ``offline`` or ``disabled``; by default ``WANDB_MODE``, else online if there are an account
            and a network, and offline if not.
        id: Identifier of a run to resume.
        resume: ``allow``, ``must``, ``never`` or ``auto``.
        config: Further entries of the run's config.
        dir: Folder in which W&B makes its folder ``wandb``; it is made if it does not exist. By default ``WANDB_DIR``,
            else the working directory.
        step_metric: X axis of all charts: ``trainer/global_step``, ``time/env_steps`` or ``time/updates``. Every row
            has all of the three that are known, so the axis can be changed in W&B later.
    """

    project: str | None = None
    name: str | None = None
    entity: str | None = None
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    mode: Annotated[str, OneOf("online", "offline", "disabled")] | None = None
    id: str | None = None
    resume: Annotated[str, OneOf("allow", "must", "never", "auto")] | None = None
    config: dict[str, Any] = field(default_factory=dict)
    dir: str | None = None
    step_metric: Annotated[str, OneOf("trainer/global_step", "time/env_steps", "time/updates")] = "trainer/global_step"

    def __post_init__(self) -> None:
        folder: Any = self.dir
        object.__setattr__(self, "dir", os.fspath(folder) if isinstance(folder, os.PathLike) else folder)
        super().__post_init__()
