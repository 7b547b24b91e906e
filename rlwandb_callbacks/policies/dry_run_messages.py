"""What users should know about a policy after its dry run."""

from __future__ import annotations

SAMPLES_BY_ITSELF = (
    "evaluation.deterministic is true, but the policy gives different actions if it is asked twice with the same "
    "observations: it samples by itself, and the returns are those of its samples. Return the distribution, of which "
    "the mode is taken, or let the policy return its mode in evaluation mode (when self.training is False). For a "
    "method such as get_action_and_value, which returns (action, log_prob, entropy, value), set evaluation.policy to "
    "the network from which it samples, such as 'agent.actor'."
)
ROWS_ARE_MIXED = (
    "The policy's output for an observation depends on the other observations in the batch: a batch is read as one "
    "sequence, as by torch.nn.GRU with inputs [B, features] or by torch.nn.TransformerEncoderLayer without a batch "
    "axis, or numbers are averaged over it. It is therefore called once per environment and step, with a batch of one. "
    "Give the network the batch in its batch axis, e.g. observations[:, None] with batch_first=True, so that all "
    "environments are played with one call."
)
STATISTICS_MIX_ROWS = (
    "The policy's output for an observation depends on the other observations in the batch, and acting changes "
    "{attributes}, as in a network that updates running statistics. It is therefore called once per environment and "
    "step, with a batch of one. Let it change them in training mode only (self.training), so that all environments are "
    "played with one call."
)
STATE_HAS_NO_ROWS = (
    "The policy is called once per environment and step, with a batch of one, as its state cannot be split into "
    "environments. {reason}"
)
NO_RESET = (
    "The policy keeps state between calls in {attributes} and has no method reset(). Each environment is played with a "
    "copy of that state, and each episode starts with {start}. Add a method reset() to the policy, which is called "
    "when an episode starts, or take and return the state: def policy(observations, state=None)."
)
STATE_PROTOCOL = (
    "Take and return the state instead, def policy(observations, state=None) with {'action': actions, 'state': state} "
    "as output, where state is None when an episode starts."
)
HIDDEN_STATE = (
    "It keeps state between calls where it cannot be put back (a global variable, a closure, an object of a library), "
    "so that it cannot be played in evaluation environments without disturbing training. " + STATE_PROTOCOL
)
UNREPEATABLE = (
    "The policy gives different outputs if it is asked twice with the same observations and random states: it draws "
    "from a random generator of its own, or keeps state between calls where it cannot be put back. The returns are "
    "those of these outputs, and an evaluation may change what the policy does in training. "
) + STATE_PROTOCOL
