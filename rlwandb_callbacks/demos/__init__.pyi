from rlwandb_callbacks.demos.atari import make_qbert as make_qbert
from rlwandb_callbacks.demos.cql import CQL as CQL
from rlwandb_callbacks.demos.dqn import DQN as DQN
from rlwandb_callbacks.demos.ppo import PPO as PPO
from rlwandb_callbacks.demos.sac import SAC as SAC
