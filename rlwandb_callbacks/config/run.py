"""The W&B run that the callbacks open themselves."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Annotated, Any

from rlwandb_callbacks.config.validation import OneOf, Section
from rlwandb_callbacks.errors import ConfigError

# Limits of W&B; folders have the id as a name, which rules out a few more.
MAX_NAME = 128
MAX_TAG = 64
NOT_IN_PROJECT = re.compile(r"[/\\#?%:]")
NOT_IN_ID = re.compile(r"[:;,#?/'\\\x00-\x1f\x7f]")


@dataclass(frozen=True, kw_only=True)
class RunConfig(Section, key="run"):
    """The W&B run that is opened if neither a WandbLogger nor ``wandb.init`` opened one.

    Args:
        project: W&B project: 1 to 128 characters, no slash or backslash, and none of ``# ? % :``.
        name: Name of the run.
        entity: W&B user or team.
        group: Name of the group of runs that this run belongs to.
        job_type: Kind of the run within its group, such as ``train``.
        tags: Labels of the run, of 1 to 64 characters each.
        notes: Longer description.
        mode: ``online``, ``offline`` or ``disabled``; by default ``disabled`` if ``WANDB_DISABLED`` is set, else
            ``WANDB_MODE``, else online if there are an account and a network, and offline if not.
        id: Identifier of a run to begin or to resume: 1 to 128 characters, no slash or backslash, none of
            ``: ; , # ? '``, no blanks at its ends, and not only dots.
        resume: ``allow``, ``must``, ``never`` or ``auto``; by default ``WANDB_RESUME``, else ``allow`` if there is an
            id (``id`` or ``WANDB_RUN_ID``) and the run is offline, or was begun before in the same folder: all parts
            of a job that is started again under its id are one run, also if they are uploaded later. If W&B's server
            cannot be used, the run is offline under the same id, except for ``must``, which is an error.
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
        self._check_project()
        for tag in self.tags:
            if not 1 <= len(tag) <= MAX_TAG:
                raise ConfigError(f"run.tags contains {tag!r} of {len(tag)} characters; W&B allows 1 to {MAX_TAG}.")
        if self.id is not None:
            self._check_id(self.id)

    def _check_project(self) -> None:
        name = self.project
        if name is None or (1 <= len(name) <= MAX_NAME and not NOT_IN_PROJECT.search(name)):
            return
        entity, _, project = name.partition("/")
        is_path = entity and project and not NOT_IN_PROJECT.search(entity + project)
        advice = f" Set run.entity to {entity!r} and run.project to {project!r}." if is_path else ""
        raise ConfigError(
            f"run.project is {name!r}; it must have 1 to {MAX_NAME} characters, and none of / \\ # ? % :.{advice}"
        )

    @staticmethod
    def _check_id(run_id: str) -> None:
        has_invalid = NOT_IN_ID.search(run_id) or run_id != run_id.strip() or not run_id.strip(".")
        if has_invalid or len(run_id) > MAX_NAME:
            raise ConfigError(
                f"run.id is {run_id!r}; it must have 1 to {MAX_NAME} characters, none of : ; , # ? / ' \\, no blanks "
                "at its ends, and not only dots."
            )
