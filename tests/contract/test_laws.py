"""Contract of all callbacks. The tests collect the callbacks from the public names of the package."""

from __future__ import annotations

import copy
import inspect
import os
import pickle
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from failing_modules import RaisesInTraining
from torch.utils._python_dispatch import TorchDispatchMode

import rlwandb_callbacks
from rlwandb_callbacks import CallbackGroup
from rlwandb_callbacks.callbacks.wandb_rl import HOOKS
from rlwandb_callbacks.testing import CorridorEnv, MemoryTracker, TinyQ, TinyValidatedQ, read_offline_run

STATE_KEYS = {"updates", "env_steps", "global_step", "returns", "longest_episode", "longest_cut_episode"}
EVERYTHING = {
    "gradient_logger": True,
    "action_logger": "q_value",
    "on_error": "raise",
    "gradients": {"log_freq": 2, "log_graph": True},
    "metrics": {"every_n_steps": 2},
    "plasticity": {"enabled": True, "every_n_steps": 2},
    "alerts": {"enabled": True},
    "evaluation": {"env": CorridorEnv, "policy": "q_network", "episodes": 3, "every_n_steps": 3},
    "vis_dataset": True,
    "dataset_path": "walks.npz",
    "dataset": {"pictures": ["state_by_reward"], "embedding": {"perplexity": 5.0}},
}
CALLBACKS = [
    getattr(rlwandb_callbacks, name)
    for name in rlwandb_callbacks.__all__
    if name.endswith("Callback") and "cfg" in inspect.signature(getattr(rlwandb_callbacks, name)).parameters
]
every_callback = pytest.mark.parametrize("kind", CALLBACKS, ids=lambda kind: kind.__name__)
with_or_without_validation = pytest.mark.parametrize("module_class", [TinyQ, TinyValidatedQ])


@pytest.fixture(autouse=True)
def offline_data(empty_folder: None) -> None:
    """Writes episodes of the corridor as the data set of EVERYTHING."""
    positions = np.arange(40, dtype=np.float32) % 8
    rows = {"observations": np.stack([positions / 8, np.ones(40)], axis=1), "actions": np.arange(40) % 2}
    np.savez("walks.npz", **rows, rewards=np.ones(40), terminals=positions == 7)


def draw_random_numbers(module_class: type[TinyQ]) -> type[TinyQ]:
    """Returns a module class that draws from all generators in each batch; draws of a callback change its weights."""

    class DrawsRandomNumbers(module_class):  # type: ignore[valid-type, misc]  # class created at run time
        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> Any:
            noise = torch.randn_like(batch[0]) + float(np.random.normal()) + random.random()  # noqa: NPY002
            return super().training_step([batch[0] + noise], batch_idx)

    return DrawsRandomNumbers


def test_all_callbacks_are_found() -> None:
    assert {kind.__name__ for kind in CALLBACKS} >= {
        "AlertCallback",
        "DatasetCallback",
        "EvaluationCallback",
        "GradientsCallback",
        "MetricsCallback",
        "PlasticityCallback",
        "RolloutsCallback",
        "WandbRLCallback",
    }


# 1. Training is unchanged


@every_callback
@with_or_without_validation
def test_weights_are_bit_identical_with_and_without_callback(kind: Any, module_class: Any, fit: Any) -> None:
    def weights(*callbacks: Any) -> dict[str, torch.Tensor]:
        pl.seed_everything(3, verbose=False)
        module = draw_random_numbers(module_class)()
        fit(module, *callbacks)
        return module.state_dict()

    without, with_callback = weights(), weights(kind(EVERYTHING))
    assert all(torch.equal(without[name], with_callback[name]) for name in without)


def global_state(module: torch.nn.Module) -> list[Any]:
    gradients = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
    numpy_state = np.random.get_state()  # noqa: NPY002
    return [
        random.getstate(),
        [part.tolist() if isinstance(part, np.ndarray) else part for part in numpy_state],
        torch.get_rng_state().tolist(),
        [submodule.training for submodule in module.modules()],
        [None if gradient is None else gradient.tolist() for gradient in gradients],
        torch.is_grad_enabled(),
        torch.get_num_threads(),
    ]


@every_callback
@with_or_without_validation
def test_hooks_do_not_change_random_states_modes_gradients_or_threads(kind: Any, module_class: Any, fit: Any) -> None:
    callback, called = kind(EVERYTHING), []

    def checked(hook: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def run(trainer: Any, module: Any, *args: Any, **kwargs: Any) -> None:
            module.target_network.training = False  # mixed modes, as with frozen submodules
            before = global_state(module)
            original(trainer, module, *args, **kwargs)
            assert global_state(module) == before, hook
            called.append(hook)

        return run

    for hook in HOOKS:
        setattr(callback, hook, checked(hook, getattr(callback, hook)))
    fit(module_class(), callback)
    assert {"on_fit_start", "on_train_batch_end", "on_before_optimizer_step", "on_train_end"} <= set(called)


# 2. The run file is complete


@every_callback
@pytest.mark.parametrize(("error", "raised"), [(RuntimeError("boom"), RuntimeError), (KeyboardInterrupt(), SystemExit)])
def test_the_run_file_is_complete_after_an_exception_or_ctrl_c(kind: Any, error: Any, raised: Any, fit: Any) -> None:
    module = RaisesInTraining(error, batch_idx=5)
    with pytest.raises(raised):
        fit(module, kind(EVERYTHING))
    run = read_offline_run("wandb")
    assert run.exit_code == 1
    if kind.__name__ in ("MetricsCallback", "WandbRLCallback"):
        assert [row["trainer/global_step"] for row in run.history if "train/loss" in row] == [1, 3, 4]


@every_callback
def test_the_run_file_is_complete_after_success(kind: Any, fit: Any) -> None:
    fit(TinyValidatedQ(), kind(EVERYTHING))
    run = read_offline_run("wandb")
    assert run.exit_code == 0
    assert run.config["rlwandb"]["gradients"]["log_freq"] == 2
    assert all("trainer/global_step" in row and "time/updates" in row for row in run.history)


# 3. Memory and open files do not grow


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads memory and open files from Linux's /proc")
def test_memory_and_open_files_do_not_grow_over_a_thousand_evaluations(fit: Any) -> None:
    measurements: list[tuple[int, int]] = []

    class MemoryWatcher(pl.Callback):
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.global_step in (300, 1_000):
                measurements.append((resident_bytes(), open_files()))

    tracker = MemoryTracker()
    tracker.write = lambda axes, values: None  # type: ignore[method-assign]  # stored rows would grow
    callback = rlwandb_callbacks.EvaluationCallback(
        {"video_logger": False, "return_logger": False, "evaluation": {"episodes": 2}},
        env=CorridorEnv,
        policy="q_network",
        tracker=tracker,
    )
    fit(TinyValidatedQ(batches=1_000), callback, MemoryWatcher(), val_check_interval=1, num_sanity_val_steps=0)
    (bytes_early, files_early), (bytes_late, files_late) = measurements
    assert files_late == files_early
    assert bytes_late - bytes_early < 12 * 2**20


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads open files from Linux's /proc")
def test_open_files_do_not_grow_over_evaluations_with_videos(fit: Any) -> None:
    counts: list[int] = []

    class MemoryWatcher(pl.Callback):
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            counts.append(open_files())

    callback = rlwandb_callbacks.EvaluationCallback(EVERYTHING, tracker=MemoryTracker())
    fit(TinyValidatedQ(batches=6), callback, MemoryWatcher(), val_check_interval=1, num_sanity_val_steps=0)
    assert counts[1:] == [counts[1]] * 5


# 4. Training does not wait


class OperationRecorder(TorchDispatchMode):
    """Records the names of executed tensor operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@every_callback
def test_no_tensor_is_read_copied_or_computed_between_two_rows(kind: Any, fit: Any) -> None:
    config = {
        **EVERYTHING,
        **{name: {"every_n_steps": 100} for name in ("metrics", "plasticity")},
        "gradients": {"log_freq": 100},
    }
    callback = kind(config)
    seen: list[str] = []

    def watched(original: Callable[..., None]) -> Callable[..., None]:
        def run(*args: Any) -> None:
            with OperationRecorder() as operations:
                original(*args)
            seen.extend(operations.names)

        return run

    for hook in ("on_train_batch_start", "on_after_backward", "on_before_optimizer_step", "on_train_batch_end"):
        setattr(callback, hook, watched(getattr(callback, hook)))
    fit(TinyValidatedQ(), callback)
    assert set(seen) <= {"aten.detach.default", "aten.alias.default"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@every_callback
def test_hooks_do_not_synchronize_with_the_gpu_between_two_rows(kind: Any, fit: Any) -> None:
    """Gradients are read without synchronization even if their row is due."""
    rare = {"metrics": {"every_n_steps": 100}, "evaluation": {**EVERYTHING["evaluation"], "every_n_steps": 100}}

    class RaisesOnSynchronization(TinyQ):
        def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> dict[str, Any]:
            outputs = super().training_step(batch, batch_idx)
            torch.cuda.set_sync_debug_mode("error")
            return outputs

        def on_train_batch_end(self, *_: Any) -> None:
            torch.cuda.set_sync_debug_mode("default")

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.q_network.parameters(), lr=0.1)

    try:
        fit(
            RaisesOnSynchronization(),
            kind({**EVERYTHING, **rare, "gradients": {"log_freq": 2}}),
            accelerator="gpu",
            devices=1,
        )
    finally:
        torch.cuda.set_sync_debug_mode("default")


# 6. Objects of the user are unchanged


@every_callback
def test_module_and_callback_can_be_pickled_and_copied_during_and_after_training(kind: Any, fit: Any) -> None:
    callback, copies = kind(EVERYTHING), []

    class CopiesModule(pl.Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            copies.append((copy.deepcopy(pl_module.q_network), pickle.loads(pickle.dumps(pl_module.q_network))))
            pickle.loads(pickle.dumps(callback))
            copy.deepcopy(callback)

    module = TinyValidatedQ()
    fit(module, callback, CopiesModule())
    assert len(copies) == 8
    pickle.loads(pickle.dumps(module))
    copy.deepcopy(module)
    pickle.loads(pickle.dumps(callback))
    assert not remaining_hooks(module)


def remaining_hooks(module: torch.nn.Module) -> list[Any]:
    on_tensors = [p._backward_hooks for p in module.parameters() if p._backward_hooks]
    on_modules = [
        m for m in module.modules() if m._forward_hooks or m._backward_hooks or hasattr(m, "_wandb_watch_called")
    ]
    return on_tensors + on_modules


@every_callback
def test_module_hooks_are_removed_after_an_exception(kind: Any, fit: Any) -> None:
    module = RaisesInTraining(batch_idx=5)
    with pytest.raises(RuntimeError, match="boom"):
        fit(module, kind(EVERYTHING))
    assert not remaining_hooks(module)


@pytest.fixture
def user_run() -> Iterator[Any]:
    import wandb

    run = wandb.init(project="mine", config={"mine": 1})
    yield run
    run.finish()


@every_callback
def test_user_run_is_used_and_not_finished(kind: Any, fit: Any, user_run: Any) -> None:
    import wandb

    fit(TinyValidatedQ(), kind(EVERYTHING))
    assert wandb.run is user_run
    user_run.log({"mine/after": 1.0})
    user_run.finish()
    run = read_offline_run(Path(user_run.dir).parent)
    assert run.column("mine/after") == [1.0]
    assert run.config["mine"] == 1
    assert "*" not in run.metrics
    assert len(list(Path("wandb").glob("offline-run-*"))) == 1


@every_callback
def test_second_fit_opens_a_new_run(kind: Any, fit: Any) -> None:
    callback, module = kind(EVERYTHING), TinyValidatedQ()
    for _ in range(2):
        fit(module, callback)
    runs = [read_offline_run(folder) for folder in Path("wandb").glob("offline-run-*")]
    assert [run.exit_code for run in runs] == [0, 0]
    if kind is not rlwandb_callbacks.EvaluationCallback:
        # The counters go on, so the second run begins with their values, in a row of their own if there is no other.
        axes = {"trainer/global_step", "time/updates", "time/env_steps"}
        keys = [{key for row in run.history for key in row if not key.startswith("_")} - axes for run in runs]
        assert keys[0] == keys[1]


# Callback interface of Lightning


@every_callback
def test_hooks_have_the_signatures_of_the_base_class(kind: Any) -> None:
    for hook in HOOKS:
        base = list(inspect.signature(getattr(pl.Callback, hook)).parameters)
        assert list(inspect.signature(getattr(kind, hook)).parameters) == base, hook


@every_callback
def test_state_contains_only_counters_and_can_be_restored(kind: Any, fit: Any) -> None:
    callback, fresh = kind(EVERYTHING), kind(EVERYTHING)
    fit(TinyValidatedQ(), callback)
    state = callback.state_dict()
    fresh.load_state_dict(state)
    assert fresh.state_dict() == state
    flat = [state] if "updates" in state else list(state.values())
    assert flat
    assert all(each["updates"] == 8 and set(each) <= STATE_KEYS for each in flat)


def test_group_calls_every_hook_of_its_callbacks_in_order_with_all_arguments() -> None:
    calls: list[Any] = []

    class Part(rlwandb_callbacks.MetricsCallback):
        pass

    def recorder(hook: str) -> Callable[..., None]:
        return lambda self, *args: calls.append((hook, self, args))

    for hook in HOOKS:
        setattr(Part, hook, recorder(hook))
    first, second = Part(), Part()
    group = CallbackGroup([first, second])
    trainer = SimpleNamespace(callbacks=[group])
    for hook in HOOKS:
        if hook == "setup":
            continue
        calls.clear()
        getattr(group, hook)(trainer, "module", hook)
        assert calls == [(hook, part, (trainer, "module", hook)) for part in (first, second)]
