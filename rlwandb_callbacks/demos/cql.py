"""Conservative Q-learning on offline data of Pendulum, as a LightningModule.

    trainer = pl.Trainer(max_epochs=1, val_check_interval=1000, logger=False)
    trainer.fit(CQL("pendulum.npz"))

Q-functions that learn from offline data overestimate actions that the data does not have. CQL (Kumar et al. 2020,
"Conservative Q-Learning for Offline Reinforcement Learning") lowers the values of those actions and raises those of the
data's actions. The losses are TorchRL's `CQLLoss`: soft actor-critic with that penalty. This module makes the data,
draws batches and adds the losses.

In shapes, B is the number of transitions in a batch. The networks use actions in [-1, 1], from which `CQLLoss` draws
its random actions; the policy returns torques.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import rank_zero_info
from torch import Tensor, nn

from rlwandb_callbacks.demos.actors import SquashedGaussian
from rlwandb_callbacks.demos.networks import seeded
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
    """Makes a policy from observations [B, 3] to a Gaussian over actions [B, 1], squashed into [-1, 1]."""
    body = nn.Sequential(
        MLP(OBSERVATION_SIZE, 2, num_cells=[hidden_size] * 2, activation_class=nn.ReLU), NormalParamExtractor()
    )
    to_parameters = TensorDictModule(body, in_keys=["observation"], out_keys=["loc", "scale"])
    return ProbabilisticActor(to_parameters, in_keys=["loc", "scale"], distribution_class=TanhNormal)


def make_critic(hidden_size: int) -> ValueOperator:
    """Makes a q-network from observations [B, 3] and actions [B, 1] to `state_action_value` [B, 1]."""
    body = MLP(OBSERVATION_SIZE + 1, 1, num_cells=[hidden_size] * 2, activation_class=nn.ReLU)
    return ValueOperator(body, in_keys=["observation", "action"])


class CQL(pl.LightningModule):
    """Soft actor-critic with two Q-functions and the penalty of CQL.

    One epoch is the whole training. `Trainer(val_check_interval=n)` runs the validation hooks, in which callbacks
    evaluate, every n updates; the validation itself is empty.

    Args:
        data_path: File of the data set; it is written if it does not exist.
        data_episodes: Episodes in the data set, of 200 steps each.
        data_seed: Seed of the data set.
        updates: Updates of the whole training.
        learning_rate: Adam's learning rate at the start; it decays linearly to 0 at the last update.
        gamma: Discount per env step. Pendulum's episodes are truncated at 200 steps; with 0.97 the returns of the first
            half of each can be compared with the critics' predictions.
        hidden_size: Units in each of the two hidden layers of each network.
        batch_size: Transitions per update.
        penalty_weight: Weight of CQL's penalty relative to the temporal-difference loss.
        penalty_actions: Random actions per state, and as many of the policy, whose values are lowered.
        target_update_rate: Weight of the trained networks in each soft update of the target networks, 0 to 1.
        reward_scale: Factor of the rewards that the critics learn; logged and returned values are in the original unit.
        seed: Seed of weights and sampling; the losses draw actions from torch's global generator.

    Attributes:
        losses: TorchRL's `CQLLoss`, which holds all networks.
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
        with seeded(seed):
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
        self._transitions: TensorDict | None = None

    def prepare_data(self) -> None:
        """Writes the data set if it does not exist; Lightning calls this before any hook that reads it."""
        path = Path(self.hparams["data_path"])
        if not path.exists():
            write_dataset(path, episodes=self.hparams["data_episodes"], seed=self.hparams["data_seed"])

    def setup(self, stage: str) -> None:
        """Reads the data set."""
        path, episodes = Path(self.hparams["data_path"]), self.hparams["data_episodes"]
        rows = read_dataset(path)
        if len(rows["rewards"]) != episodes * EPISODE_STEPS:
            raise ValueError(
                f"data_path {path} holds {len(rows['rewards']):,} transitions; with data_episodes={episodes} it must "
                f"hold {episodes * EPISODE_STEPS:,}. Delete the file to write it again, or set another data_path."
            )
        returns = episode_returns(rows)
        rank_zero_info(f"{path}: {episodes} episodes, mean return {returns.mean():,.0f}, best {returns.max():,.0f}")
        self._transitions = as_transitions(rows, self.hparams["reward_scale"])

    def training_step(self, batch: int, batch_idx: int) -> dict[str, Any]:
        """Adds TorchRL's losses on a batch. Each trains different networks, so one optimizer serves all.

        Args:
            batch: Not used.
            batch_idx: Not used.

        Returns:
            `loss` []; its parts `critic_loss`, `cql_penalty`, `actor_loss`; `q_value` and `target_q_value` [B] of the
            data's actions, in the unit of the rewards; `entropy` of the squashed policy in nats, and its weight
            `alpha`.
        """
        transitions = self._sample()
        losses = self.losses(transitions)
        critic_loss, penalty, actor_loss = losses["loss_qvalue"], losses["loss_cql"], losses["loss_actor"]
        unit = 1.0 / self.hparams["reward_scale"]
        return {
            "loss": critic_loss + penalty + actor_loss + losses["loss_alpha"],
            "critic_loss": critic_loss.detach(),
            "cql_penalty": penalty.detach(),
            "actor_loss": actor_loss.detach(),
            "q_value": unit * torch.minimum(transitions["pred_q1"], transitions["pred_q2"])[:, 0].detach(),
            "target_q_value": unit * self._target(transitions),
            "entropy": losses["entropy"],
            "alpha": losses["alpha"],
        }

    def _sample(self) -> TensorDict:
        assert self._transitions is not None
        indices = self._sampling.integers(len(self._transitions), size=self.hparams["batch_size"])
        return self._transitions[torch.from_numpy(indices)].to(self.device)

    @torch.no_grad()
    def _target(self, transitions: TensorDict) -> Tensor:
        """Returns reward plus discounted next value, [B], which `CQLLoss` computes but does not return."""
        next_state = transitions["next"].select("observation")
        with self.losses.actor_network_params.to_module(self.losses.actor_network):
            next_state["action"] = self.losses.actor_network.get_dist(next_state).sample()
        value = self._lower_q(next_state, self.losses.target_qvalue_network_params)
        reward, terminated = transitions["next", "reward"], transitions["next", "terminated"]
        target: Tensor = reward + self.hparams["gamma"] * ~terminated * value
        return target[:, 0]

    def _lower_q(self, states_and_actions: TensorDict, parameters: Any) -> Tensor:
        """Returns the smaller of the two critics' values, [B, 1]."""
        critic = self.losses.qvalue_network
        values = []
        for network_parameters in parameters.unbind(0):
            with network_parameters.to_module(critic):
                values.append(critic(states_and_actions.copy())["state_action_value"])
        return torch.minimum(*values)

    @torch.no_grad()
    def policy(self, observation: Tensor) -> dict[str, Tensor]:
        """Chooses the squashed mean action for observations [B, 3].

        Returns:
            `action` [B, 1], a torque; `loc` and `scale` [B, 1], mean and standard deviation of the torque;
            `state_action_value` [B, 1] of the action, in the unit of the rewards.
        """
        states = TensorDict({"observation": observation}, [len(observation)])
        with self.losses.actor_network_params.to_module(self.losses.actor_network):
            policy = self.losses.actor_network.get_dist(states)
        bound = torch.full_like(policy.loc, MAX_TORQUE)
        torque = SquashedGaussian(policy.loc, policy.scale, -bound, bound)
        states["action"] = torque.mode / MAX_TORQUE
        q_value = self._lower_q(states, self.losses.qvalue_network_params) / self.hparams["reward_scale"]
        return {"action": torque.mode, "loc": torque.mean, "scale": torque.stddev, "state_action_value": q_value}

    def on_train_batch_end(self, outputs: Any, batch: int, batch_idx: int) -> None:
        """Updates the target networks."""
        self.targets.step()

    def validation_step(self, batch: int, batch_idx: int) -> None:
        """Does nothing; Lightning calls the validation hooks only if it exists."""

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Returns Adam with a learning rate that decays linearly to 0."""
        trained = [parameter for parameter in self.losses.parameters() if parameter.requires_grad]
        optimizer = torch.optim.Adam(trained, self.hparams["learning_rate"])
        decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=self.hparams["updates"])
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": decay, "interval": "step"}}

    def train_dataloader(self) -> range:
        """Returns one number per update; its length is the progress bar's total."""
        return range(int(self.hparams["updates"]))

    def val_dataloader(self) -> range:
        """Returns a single empty batch."""
        return range(1)


def as_transitions(rows: dict[str, Any], reward_scale: float) -> TensorDict:
    """Converts arrays with D4RL's names to the layout and units that `CQLLoss` reads."""
    tensors = {name: torch.from_numpy(array) for name, array in rows.items()}
    terminated, timeout = tensors["terminals"][:, None], tensors["timeouts"][:, None]
    next_step = {
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
            "next": TensorDict(next_step, batch_size),
        },
        batch_size,
    )
