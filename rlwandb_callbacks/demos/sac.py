"""Soft actor-critic as a LightningModule: a squashed Gaussian, twin critics, and a learned temperature.

    trainer = pl.Trainer(max_epochs=1, val_check_interval=10_000, logger=False)
    trainer.fit(SAC("HalfCheetah-v5"))

Each training batch plays an env step, then learns from a sample of the replay buffer (Haarnoja et al. 2018, "Soft
actor-critic algorithms and applications"). It uses Lightning's manual optimization, as there are three optimizers.

In shapes, B is the number of transitions in a batch, O the size of an observation and D the size of an action.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from rlwandb_callbacks.demos.actors import SquashedGaussianActor
from rlwandb_callbacks.demos.networks import make_mlp, seeded
from rlwandb_callbacks.demos.playing import Player, PlayingModule, make_env, soft_update
from rlwandb_callbacks.demos.replay_buffer import ReplayBuffer, Transitions
from rlwandb_callbacks.environments.names import env_name

if TYPE_CHECKING:
    from pytorch_lightning.utilities.types import OptimizerLRScheduler


class TwinCritic(nn.Module):
    """Two q-networks, of whose values the minimum is used (Fujimoto et al. 2018, "TD3").

    Args:
        sizes: Sizes of observation and action together, the hidden layers, and 1.
    """

    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.q1, self.q2 = make_mlp(sizes), make_mlp(sizes)

    def forward(self, observation: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Maps observations [B, O] and actions [B, D] to the q-values of both networks, [B] each."""
        inputs = torch.cat([observation, action], dim=-1)
        return self.q1(inputs)[:, 0], self.q2(inputs)[:, 0]


class SAC(PlayingModule):
    """Soft actor-critic for flat observations and bounded continuous actions.

    Actions are drawn from torch's global generator, which `seed_everything` seeds.

    Args:
        env_id: Gymnasium id, or import path of an env factory. Observations and bounded actions are flat Boxes.
        learning_rate: Adam's learning rate for actor, critics and temperature.
        gamma: Discount per env step.
        hidden_size: Units in each of the two hidden layers of all networks.
        batch_size: Transitions per update.
        buffer_size: Transitions kept.
        warmup_env_steps: Uniformly random env steps before the first update.
        env_steps_per_update: Env steps played before each update.
        total_env_steps: Env steps of the whole training, warm-up included.
        target_update_rate: Weight of the trained critics in each soft update of the target critics, 0 to 1.
        start_temperature: Weight of the entropy at the start, > 0.
        target_entropy: Entropy, in nats, to which the temperature is tuned; None means -D.
        seed: Seed of weights, env, warm-up and sampling.

    Attributes:
        actor: Policy, observations [B, O] to a distribution over actions [B, D].
        critic: Both q-networks, observations [B, O] and actions [B, D] to two q-values [B].
    """

    def __init__(
        self,
        env_id: str = "HalfCheetah-v5",
        *,
        learning_rate: float = 1e-3,
        gamma: float = 0.99,
        hidden_size: int = 256,
        batch_size: int = 256,
        buffer_size: int = 200_000,
        warmup_env_steps: int = 5_000,
        env_steps_per_update: int = 1,
        total_env_steps: int = 100_000,
        target_update_rate: float = 0.005,
        start_temperature: float = 0.2,
        target_entropy: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        env = make_env(env_id)
        observation_size, action_space = flat_spaces(env)
        hidden_sizes = [hidden_size] * 2
        with seeded(seed):
            self.actor = SquashedGaussianActor([observation_size, *hidden_sizes], action_space)
            self.critic = TwinCritic([observation_size + action_space.shape[0], *hidden_sizes, 1])
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(float(np.log(start_temperature))))
        self.target_entropy = -float(action_space.shape[0]) if target_entropy is None else target_entropy
        self.replay = ReplayBuffer(buffer_size, seed)
        self.player = Player(env, self.replay, seed)
        self.num_updates = (total_env_steps - warmup_env_steps) // env_steps_per_update
        self._action_space = action_space
        self._action_space.seed(seed)

    def on_train_start(self) -> None:
        """Fills the replay buffer with random play."""
        self._play(lambda _: self._action_space.sample(), self.hparams["warmup_env_steps"])

    def training_step(self, batch: int, batch_idx: int) -> dict[str, Any]:
        """Plays, then learns from a sample of the replay buffer.

        Args:
            batch: Not used.
            batch_idx: Not used.

        Returns:
            All detached: `q1`, `q2`, `target_q` and `td_error` [B] of the sampled actions; `loss` (equal to
            `critic_loss`), `critic_loss` and `actor_loss` []; `entropy` of the policy in nats; its weight `alpha`;
            `env_steps` so far.
        """
        episodes = self.player.episodes
        self._play(self._choose, self.hparams["env_steps_per_update"])
        if self.player.episodes > episodes:
            self.log_mean_return(self.player.returns)
        transitions = self.replay.sample(self.hparams["batch_size"]).to(self.device)
        metrics = self._update_critic(transitions) | self._update_actor(transitions)
        soft_update(self.target_critic, self.critic, self.hparams["target_update_rate"])
        return {**{name: value.detach() for name, value in metrics.items()}, "env_steps": self.env_steps}

    def _update_critic(self, transitions: Transitions) -> dict[str, Tensor]:
        target_q = self._target(transitions)
        q1, q2 = self.critic(transitions.observation, transitions.action)
        loss = nn.functional.mse_loss(q1, target_q) + nn.functional.mse_loss(q2, target_q)
        optimizers: Any = self.optimizers()
        self._step(optimizers[1], loss)
        td_error = target_q - (q1 + q2) / 2
        return {"loss": loss, "critic_loss": loss, "q1": q1, "q2": q2, "target_q": target_q, "td_error": td_error}

    @torch.no_grad()
    def _target(self, transitions: Transitions) -> Tensor:
        """Returns reward plus discounted next value, [B]; the next value includes the entropy of the policy."""
        policy = self.actor(transitions.next_observation)
        next_action = policy.sample()
        next_q = torch.minimum(*self.target_critic(transitions.next_observation, next_action))
        next_value = next_q - self.log_temperature.exp() * policy.log_prob(next_action).sum(-1)
        target: Tensor = transitions.reward + self.hparams["gamma"] * ~transitions.terminated * next_value
        return target

    def _update_actor(self, transitions: Transitions) -> dict[str, Tensor]:
        optimizers: Any = self.optimizers()
        temperature = self.log_temperature.exp().detach()
        policy = self.actor(transitions.observation)
        action = policy.rsample()
        log_prob = policy.log_prob(action).sum(-1)
        self.critic.requires_grad_(False)  # the loss of the actor must not train the critic
        loss = (temperature * log_prob - torch.minimum(*self.critic(transitions.observation, action))).mean()
        self._step(optimizers[0], loss)
        self.critic.requires_grad_(True)
        entropy = -log_prob.detach().mean()
        self._step(optimizers[2], self.log_temperature * (entropy - self.target_entropy))
        return {"actor_loss": loss, "entropy": entropy, "alpha": temperature}

    def _step(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def _play(self, choose: Any, env_steps: int) -> None:
        self.player.play(choose, env_steps)
        self.env_steps += env_steps

    @torch.no_grad()
    def _choose(self, observation: npt.NDArray[Any]) -> npt.NDArray[Any]:
        action: Tensor = self.actor(torch.as_tensor(observation, device=self.device)[None]).sample()[0]
        return action.cpu().numpy()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Returns one Adam each for the actor, both critics together, and the temperature."""
        parameters = self.actor.parameters(), self.critic.parameters(), [self.log_temperature]
        return [torch.optim.Adam(part, self.hparams["learning_rate"]) for part in parameters]


def flat_spaces(env: gym.Env[Any, Any]) -> tuple[int, gym.spaces.Box]:
    """Returns the size of an observation and the action space.

    Raises:
        ValueError: If observations or actions are not a flat Box.
    """
    match env.observation_space, env.action_space:
        case gym.spaces.Box(shape=(size,)), gym.spaces.Box(shape=(_,)) as actions:
            return size, actions
        case spaces:
            raise ValueError(f"SAC needs flat Boxes of observations and actions; {env_name(env)} has {spaces}")
