"""Keys of the values of one evaluation, in the run and among the Trainer's metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeGuard, TypeVar

from rlwandb_callbacks.core.key_names import MOVED_SUFFIX
from rlwandb_callbacks.tracking.result import Job, Result, job_name, run_all

T = TypeVar("T")
GROUPS = ("eval", "q", "policy")  # of the numbers


@dataclass(frozen=True)
class EvaluationKeys:
    """Names the values of one evaluation.

    Attributes:
        name: Name of the evaluation, which becomes a part of each key; None if keys have none.
        moved: Groups that are named ``<group>_rl``, as other code logs numbers under our keys.

    Example:
        >>> EvaluationKeys().key("eval/return_mean"), EvaluationKeys("near").key("video/best")
        ('eval/return_mean', 'video/near/best')
        >>> EvaluationKeys("near", frozenset({"eval"})).key("eval/return_mean")
        'eval_rl/near/return_mean'
    """

    name: str | None = None
    moved: frozenset[str] = frozenset()

    def key(self, key: str) -> str:
        """Returns the name of one of our keys."""
        group, _, rest = key.partition("/")
        group += MOVED_SUFFIX if group in self.moved else ""
        return "/".join(part for part in (group, self.name, rest) if part)

    def rename(self, values: Mapping[str, T]) -> dict[str, T]:
        """Returns values by our keys under their names."""
        return {self.key(key): value for key, value in values.items()}

    def group_of(self, key: Any) -> str | None:
        """Returns the group of a number that this evaluation may have, given its name; None for other names."""
        if not isinstance(key, str):
            return None
        group, *rest = key.split("/")
        if not rest or not rest[-1] or (self.name is not None and (rest[0] != self.name or len(rest) < 2)):
            return None
        base = group.removesuffix(MOVED_SUFFIX)
        return base if base in GROUPS and (group != base or base not in self.moved) else None

    def owns(self, key: Any) -> TypeGuard[str]:
        """Returns whether a name is that of a number that this evaluation may have.

        Example:
            >>> keys = EvaluationKeys("near")
            >>> keys.owns("eval/near/return_mean"), keys.owns("eval/return_mean"), keys.owns("train/loss")
            (True, False, False)
        """
        return self.group_of(key) is not None

    def move(self, groups: Iterable[str]) -> EvaluationKeys:
        """Returns the keys with further groups moved."""
        return EvaluationKeys(self.name, self.moved | set(groups))

    def renaming(self, job: Job) -> Job:
        """Returns a job whose values have these names."""
        return job if self == EvaluationKeys() else _RenamingJob(job, self)


@dataclass(frozen=True)
class _RenamingJob:
    job: Job
    keys: EvaluationKeys

    @property
    def name(self) -> str:
        return job_name(self.job)

    def __call__(self) -> Result:
        result = run_all([self.job])
        return replace(result, values=self.keys.rename(result.values))
