"""Conservative Q-learning on offline data of Pendulum, as a LightningModule.

    trainer = pl.Trainer(max_epochs=1, val_check_interval=1000, logger=False)
    trainer.fit(CQL("pendulum.npz"))

Learning from data that others collected, Q-functions hope for too much of actions that the data does not have. CQL
(Kumar et al. 2020, "Conservative Q-Learning for Offline Reinforcement Learning") pushes their values down and those of
the data's actions up. The losses are TorchRL's `CQLLoss`: soft actor-critic with that penalty. Here only the data is
made, a batch drawn, and the losses added.

In shapes, B is the number of transitions in a batch. The networks see actions in [-1, 1], as `CQLLoss` draws its random
ones from there; the policy answers in torques.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn

from rlwandb_callbacks.demos.pendulum_data import (
    EPISODE_STEPS,
    MAX_TORQUE,
    episode_returns,
    read_dataset,
    write_dataset,
)

if TYPE_CHECKING:
    from pytorch_lightning.utilities.types import OptimizerLRScheduler

try:
    from tensordict import TensorDict
    from tensordict.nn import NormalParamExtractor, TensorDictModule
    from torchrl.modules import MLP, ProbabilisticActor, TanhNormal, ValueOperator
    from torchrl.objectives import CQLLoss, SoftUpdate
except ImportError as error:
    raise ImportError('the demos need TorchRL; install it with: pip install "rlwandb-callbacks[demos]"') from error

OBSERVATION_SIZE = 3


def make_actor(hidden_size: int) -> ProbabilisticActor:
    """Observations [B, 3] to a Gaussian over [B, 1], squashed into [-1, 1]."""
    body = nn.Sequential(
        MLP(OBSERVATION_SIZE, 2, num_cells=[hidden_size] * 2, activation_class=nn.ReLU), NormalParamExtractor()
    )
    to_parameters = TensorDictModule(body, in_keys=["observation"], out_keys=["loc", "scale"])
    return ProbabilisticActor(to_parameters, in_keys=["loc", "scale"], distribution_class=TanhNormal)


def make_critic(hidden_size: int) -> ValueOperator:
    """Observations [B, 3] and actions [B, 1] to `state_action_value` [B, 1]."""
    body = MLP(OBSERVATION_SIZE + 1, 1, num_cells=[hidden_size] * 2, activation_class=nn.ReLU)
    return ValueOperator(body, in_keys=["observation", "action"])


def squashed_moments(loc: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of tanh(x) for a Gaussian x, by Gauss-Hermite quadrature; shapes as given.

    Example:
        >>> mean, std = squashed_moments(torch.zeros(1), torch.tensor([0.01]))
        >>> round(float(mean), 4), round(float(std), 4)
        (0.0, 0.01)
    """
    nodes, weights = (torch.as_tensor(part, dtype=loc.dtype, device=loc.device) for part in _HERMITE)
    squashed = torch.tanh(loc[..., None] + scale[..., None] * nodes)
    mean = squashed @ weights
    return mean, ((squashed - mean[..., None]).square() @ weights).sqrt()


_nodes, _weights = np.polynomial.hermite_e.hermegauss(32)
_HERMITE = (_nodes, _weights / _weights.sum())


class CQL(pl.LightningModule):
    """Soft actor-critic with two Q-functions and the penalty of CQL.

    One epoch is the whole training. `Trainer(val_check_interval=n)` runs the validation hooks, where callbacks
    evaluate, every n updates; the validation itself is empty.

    Args:
        data_path: The data set, made where there is none.
        data_episodes: Its episodes of 200 steps.
        data_seed: Of its making.
        updates: Length of the training.
        learning_rate: Adam's at the start; it falls linearly to 0 at the last update.
        gamma: Discount per env step. Pendulum's episodes are cut at 200 steps; with 0.97 the first half of each can be
            compared with what the critics predict.
        hidden_size: Units in each of the two hidden layers of each network.
        batch_size: Transitions per update.
        penalty_weight: Of CQL's penalty, against the temporal-difference loss.
        penalty_actions: Random actions per state, and as many of the policy, whose values are pushed down.
        target_update_rate: RankResult of the way that the target networks move after each update.
        reward_scale: The critics learn rewards times this; what is logged and answered is in the rewards' own unit.
        seed: Seeds weights and sampling; the actions that the losses draw come from torch's own generator.

    Attributes:
        losses: TorchRL's, with all networks.
    """

    def __init__(
        self,
        data_path: str = "./rl_videos/pendulum.npz",
        *,
        data_episodes: int = 100,
        data_seed: int = 0,
        updates: int = 6_000,
        learning_rate: float = 1e-3,
        gamma: float = 0.97,
        hidden_size: int = 64,
        batch_size: int = 128,
        penalty_weight: float = 1.0,
        penalty_actions: int = 4,
        target_update_rate: float = 0.01,
        reward_scale: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.losses = CQLLoss(
                make_actor(hidden_size),
                make_critic(hidden_size),
                target_entropy=-1.0,
                min_q_weight=penalty_weight,
                num_random=penalty_actions,
                loss_function="l2",
            )
        self.losses.make_value_estimator(gamma=gamma)
        self.targets = SoftUpdate(self.losses, tau=target_update_rate)
        self._sampling = np.random.default_rng(seed)
        self._rows: TensorDict | None = None

    def prepare_data(self) -> None:
        """Makes the data set where there is none. Lightning calls this before anybody looks for the file."""
        path = Path(self.hparams["data_path"])
        if not path.exists():
            write_dataset(path, episodes=self.hparams["data_episodes"], seed=self.hparams["data_seed"])

    def setup(self, stage: str) -> None:
        """Reads the data set."""
        path, episodes = Path(self.hparams["data_path"]), self.hparams["data_episodes"]
        rows = read_dataset(path)
        if len(rows["rewards"]) != episodes * EPISODE_STEPS:
            raise ValueError(
                f"data_path {path} holds {len(rows['rewards']):,} transitions; with data_episodes {episodes} it should "
                f"be {episodes * EPISODE_STEPS:,}. Delete it, so that it is made anew, or choose another data_path."
            )
        returns = episode_returns(rows)
        rank_zero_info(f"{path}: {episodes} episodes, mean return {returns.mean():,.0f}, best {returns.max():,.0f}")
        self._rows = as_transitions(rows, self.hparams["reward_scale"])

    def training_step(self, batch: int, batch_idx: int) -> dict[str, Any]:
        """Adds up TorchRL's losses on a batch. Each has gradients for networks of its own, so one optimizer serves all.

        Args:
            batch: Not used.
            batch_idx: Not used.

        Returns:
            `loss` []; its parts `critic_loss`, `cql_penalty`, `actor_loss`; `q_value` and `target_q_value` [B] of the
            data's actions, in the unit of the rewards; `entropy` of the squashed policy in nats; `alpha`, its price.
        """
        rows = self._sample()
        losses = self.losses(rows)
        critic_loss, penalty, actor_loss = losses["loss_qvalue"], losses["loss_cql"], losses["loss_actor"]
        unit = 1.0 / self.hparams["reward_scale"]
        return {
            "loss": critic_loss + penalty + actor_loss + losses["loss_alpha"],
            "critic_loss": critic_loss.detach(),
            "cql_penalty": penalty.detach(),
            "actor_loss": actor_loss.detach(),
            "q_value": unit * torch.minimum(rows["pred_q1"], rows["pred_q2"])[:, 0].detach(),
            "target_q_value": unit * self._target(rows),
            "entropy": losses["entropy"],
            "alpha": losses["alpha"],
        }

    def _sample(self) -> TensorDict:
        assert self._rows is not None
        indices = self._sampling.integers(len(self._rows), size=self.hparams["batch_size"])
        return self._rows[torch.from_numpy(indices)].to(self.device)

    @torch.no_grad()
    def _target(self, rows: TensorDict) -> Tensor:
        """[B]: reward plus discounted next value, as `CQLLoss` works it out but does not give back."""
        after = rows["next"].select("observation")
        with self.losses.actor_network_params.to_module(self.losses.actor_network):
            after["action"] = self.losses.actor_network.get_dist(after).sample()
        value = self._lower_q(after, self.losses.target_qvalue_network_params)
        target: Tensor = rows["next", "reward"] + self.hparams["gamma"] * ~rows["next", "terminated"] * value
        return target[:, 0]

    def _lower_q(self, states_and_actions: TensorDict, parameters: Any) -> Tensor:
        """[B, 1]: the smaller of the two critics' values."""
        critic = self.losses.qvalue_network
        values = []
        for own in parameters.unbind(0):
            with own.to_module(critic):
                values.append(critic(states_and_actions.copy())["state_action_value"])
        return torch.minimum(*values)

    @torch.no_grad()
    def policy(self, observation: Tensor) -> dict[str, Tensor]:
        """Acts in observations [B, 3] with the squashed mean.

        Returns:
            `action` [B, 1] in torques; `loc` and `scale` [B, 1]: mean and standard deviation of the policy in torques;
            `state_action_value` [B, 1] of that action, in the unit of the rewards.
        """
        states = TensorDict({"observation": observation}, [len(observation)])
        with self.losses.actor_network_params.to_module(self.losses.actor_network):
            distribution = self.losses.actor_network.get_dist(states)
        states["action"] = distribution.deterministic_sample
        mean, std = squashed_moments(distribution.loc, distribution.scale)
        return {
            "action": MAX_TORQUE * states["action"],
            "loc": MAX_TORQUE * mean,
            "scale": MAX_TORQUE * std,
            "state_action_value": self._lower_q(states, self.losses.qvalue_network_params)
            / self.hparams["reward_scale"],
        }

    def on_train_batch_end(self, outputs: Any, batch: int, batch_idx: int) -> None:
        """Moves the target networks a little towards the trained ones."""
        self.targets.step()

    def validation_step(self, batch: int, batch_idx: int) -> None:
        """Nothing to do: it exists so that Lightning calls the validation hooks."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam, and a learning rate that falls to 0 so that the training ends at rest."""
        trained = [parameter for parameter in self.losses.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(trained, self.hparams["learning_rate"])
        fall = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=self.hparams["updates"])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": fall, "interval": "step"}}

    def train_dataloader(self) -> range:
        """One number per update; its length is the progress bar's total."""
        return range(int(self.hparams["updates"]))

    def val_dataloader(self) -> range:
        """A single empty batch."""
        return range(1)


def as_transitions(rows: dict[str, Any], reward_scale: float) -> TensorDict:
    """Puts arrays by the names of D4RL into the form and the units that `CQLLoss` reads."""
    tensors = {name: torch.from_numpy(array) for name, array in rows.items()}
    terminated, timeout = tensors["terminals"][:, None], tensors["timeouts"][:, None]
    after = {
        "observation": tensors["next_observations"],
        "reward": reward_scale * tensors["rewards"][:, None],
        "terminated": terminated,
        "done": terminated | timeout,
    }
    batch_size = [len(terminated)]
    return TensorDict(
        {
            "observation": tensors["observations"],
            "action": tensors["actions"] / MAX_TORQUE,
            "next": TensorDict(after, batch_size),
        },
        batch_size,
    )
