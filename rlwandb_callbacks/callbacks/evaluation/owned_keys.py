"""Which keys an evaluation uses, beside other evaluations of the Trainer and beside what other code logs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

from rlwandb_callbacks.callbacks.evaluation.errors import EvaluationErrors
from rlwandb_callbacks.callbacks.evaluation.keys import GROUPS, EvaluationKeys
from rlwandb_callbacks.callbacks.evaluation.monitors import Monitor
from rlwandb_callbacks.callbacks.evaluation.published import names_of_others
from rlwandb_callbacks.callbacks.session import Session
from rlwandb_callbacks.config.evaluation import EvaluationConfig
from rlwandb_callbacks.core.key_names import MOVED_SUFFIX
from rlwandb_callbacks.errors import ConfigError
from rlwandb_callbacks.tracking.tracker import ObservingTracker

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

STATE_PREFIX = "moved_"
TAKEN = (
    "{name} is also logged by the module, by another callback or by wandb.log. To keep the two apart, the numbers of "
    "the evaluation episodes are named {group}_rl/… instead of {group}/…{since}. What monitors {name} reads the other "
    "number; that of the evaluation episodes is {moved}."
)
UNNAMED = (
    "{monitor} monitors {key}, which is not logged: all evaluations have names, which are a part of their keys. "
    "Monitor {named} instead."
)


class OwnedKeys:
    """Keys of the numbers of one evaluation.

    Where other code logs a number under one of them, all keys of its group move: ``eval/…`` becomes ``eval_rl/…``. This
    is known once the other number appears.

    Args:
        session: Session of the callback.
        errors: Gets warnings.
        name: Name of the evaluation.

    Attributes:
        keys: The present keys, the same on all ranks.
    """

    def __init__(self, session: Session, errors: EvaluationErrors, name: str | None) -> None:
        self._session, self._errors = session, errors
        self.keys = EvaluationKeys(name)
        self._others: Sequence[EvaluationKeys] = ()
        self._all_named = False
        self._taken: frozenset[str] = frozenset()  # groups that rank zero has found to be taken since
        self._latest: Collection[str] = ()  # our own keys of the latest evaluation
        self._is_new = False  # whether that evaluation came after the latest look
        self._unnamed: list[Monitor] = []

    def state(self) -> dict[str, int]:
        """Returns a 1 for each group that has moved."""
        return {f"{STATE_PREFIX}{group}": 1 for group in sorted(self.keys.moved | self._taken)}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continues from what :meth:`state` returned."""
        self.keys = self.keys.move(group for group in GROUPS if f"{STATE_PREFIX}{group}" in state)

    def start(self, others: Iterable[str | None]) -> None:
        """Starts a training, given the names of the other evaluations of the Trainer."""
        self.keys = EvaluationKeys(self.keys.name)
        names = list(others)
        self._all_named = None not in (self.keys.name, *names)
        self._others = [EvaluationKeys(name) for name in names if name is not None]
        self._taken, self._latest, self._is_new, self._unnamed = frozenset(), (), False, []

    def owns(self, key: Any) -> TypeGuard[str]:
        """Returns whether a name is that of a number that this evaluation, and no other one, may have."""
        return self.keys.owns(key) and not any(other.owns(key) for other in self._others if self.keys.name is None)

    def note_unnamed(self, monitors: Iterable[Monitor]) -> None:
        """Keeps the monitors that read the key of an evaluation without a name, if all evaluations have names.

        The first evaluation warns of those whose key the module does not log itself.
        """
        self._unnamed = [monitor for monitor in monitors if self._all_named and monitor.key.count("/") == 1]

    def _warn_of_unnamed(self, logged: Collection[str], numbers: Collection[str]) -> None:
        for monitor in self._unnamed:
            if monitor.key not in logged and monitor.key in numbers:
                named = self.keys.key(monitor.key)
                message = UNNAMED.format(monitor=monitor.name, key=monitor.key, named=named)
                self._session.errors.warn_once(message, kind=f"unnamed {monitor.key}")  # by one evaluation only
        self._unnamed = []

    def move_monitored(self, monitored: Iterable[str]) -> None:
        """Moves the groups of which moved keys are monitored, as other code is expected to log the others."""
        moved = {key.partition("/")[0] for key in monitored if key.partition("/")[0].endswith(MOVED_SUFFIX)}
        self.keys = self.keys.move(group.removesuffix(MOVED_SUFFIX) for group in moved)

    def keys_for(self, trainer: Trainer, numbers: Collection[str]) -> EvaluationKeys:
        """Returns the keys for the numbers of an evaluation, after a look at what other code has logged so far."""
        is_first, self._latest, self._is_new = not self._latest, list(numbers), True
        if self._unnamed:
            self._warn_of_unnamed(names_of_others(trainer), numbers)
        self._look(trainer, since="" if is_first else " from now on")
        return self.keys.move(self._taken)

    def adopt(self, keys: EvaluationKeys) -> EvaluationKeys:
        """Takes the keys that rank zero has chosen; returns those before."""
        before, self.keys = self.keys, keys
        return before

    def look_again(self, trainer: Trainer) -> None:
        """Moves keys in the row that is not written yet if other code has logged them since the evaluation."""
        if not self._is_new or self._session.tracker is None:
            return
        self._is_new = False
        groups = self._look(trainer, since="")
        if groups:
            self._session.rename_in_row(lambda name: self._moved(name, groups))

    def _moved(self, name: str, groups: Collection[str]) -> str:
        """Returns the new name of a value of this evaluation."""
        group, _, rest = name.partition("/")
        return f"{group}{MOVED_SUFFIX}/{rest}" if self.owns(name) and group in groups else name

    def _look(self, trainer: Trainer, *, since: str) -> set[str]:
        """Looks for keys that other code logs, warns of the first one of each group, and returns these groups."""
        keys, found = self.keys.move(self._taken), dict[str, str]()
        taken = names_of_others(trainer).union(self._logged_to_run())
        for key in self._latest:
            group, name = key.partition("/")[0], keys.key(key)
            if group not in keys.moved and not taken.isdisjoint((name, self._session.key_in_run(name))):
                found.setdefault(group, key)
        for group, key in found.items():
            name, moved = keys.key(key), keys.move([group]).key(key)
            self._errors.warn_once(
                TAKEN.format(name=name, group=group, moved=moved, since=since), kind=f"taken keys {group}"
            )
        self._taken |= found.keys()
        return set(found)

    def _logged_to_run(self) -> Collection[str]:
        tracker: object = self._session.tracker
        return tracker.keys_of_others() if isinstance(tracker, ObservingTracker) else ()


def check_names(own: EvaluationConfig, others: Iterable[EvaluationConfig]) -> None:
    """Raises an error if another evaluation in an environment has the same name.

    Raises:
        ConfigError: The message says what to set.
    """
    if own.env is None or all(other.env is None or other.name != own.name for other in others):
        return
    named = "no name" if own.name is None else f"the name {own.name!r}"
    key = EvaluationKeys(own.name).key("eval/return_mean")
    raise ConfigError(
        f"Two callbacks of this Trainer play evaluations with {named}, and both would log {key}. Set evaluation.name "
        "of one of them to a name of its own, or give one callback all of them: "
        "evaluation={'near': {'env': …}, 'far': {'env': …}}."
    )
