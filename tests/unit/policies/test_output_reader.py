from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch.distributions import (
    Bernoulli,
    Beta,
    Binomial,
    Categorical,
    Geometric,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    Poisson,
    TanhTransform,
    TransformedDistribution,
)

from rlwandb_callbacks.core.episode import Gaussian, Grouped, PolicyStep, Probabilities, QValues
from rlwandb_callbacks.errors import PolicyError
from rlwandb_callbacks.policies.output_reader import OutputReader
from rlwandb_callbacks.policies.output_tensors import softmax, to_numpy
from rlwandb_callbacks.policies.scores import entropy

THREE = spaces.Discrete(3)
FROM_FIVE = spaces.Discrete(3, start=5)
PLANE = spaces.Box(-2.0, 2.0, (2,), np.float32)
Q = torch.tensor([[1.0, 3.0, 2.0], [-1.0, -3.0, -2.0]])
LOGITS = torch.log(torch.tensor([[0.2, 0.7, 0.1], [0.5, 0.2, 0.3]]))
PROBS = [[0.2, 0.7, 0.1], [0.5, 0.2, 0.3]]


def read(
    output: Any,
    space: spaces.Space[Any] = THREE,
    *,
    action_logger: bool | str = True,
    meaning: str = "unknown",
    deterministic: bool = True,
    batch_size: int = 2,
) -> PolicyStep:
    return OutputReader(space, action_logger, meaning, deterministic).read(output, batch_size)


@pytest.mark.parametrize(
    ("meaning", "action_logger", "kind"),
    [
        ("q_values", True, QValues),
        ("q_values", False, QValues),
        ("q_values", "q_value", QValues),
        ("unknown", "q_value", QValues),
        ("unknown", True, QValues),
        ("unknown", False, type(None)),
        ("unknown", "action_probability", Probabilities),
        ("logits", True, Probabilities),
        ("logits", False, Probabilities),
        ("logits", "action_probability", Probabilities),
    ],
)
def test_bare_tensor_is_read_by_its_meaning_and_maximized(meaning: str, action_logger: bool | str, kind: type) -> None:
    step = read(Q, meaning=meaning, action_logger=action_logger)
    assert step.actions.tolist() == [1, 0]
    assert type(step.scores) is kind


def test_q_values_are_not_changed() -> None:
    assert read(Q, meaning="q_values").scores.values.tolist() == Q.tolist()


def test_logits_become_probabilities() -> None:
    scores = read(LOGITS, meaning="logits").scores
    assert scores.values == pytest.approx(np.array(PROBS))
    assert scores.source == ""


def test_q_values_become_a_marked_softmax_if_probabilities_are_requested() -> None:
    for output in (LOGITS, {"q_values": LOGITS}):
        step = read(output, meaning="q_values", action_logger="action_probability")
        assert step.scores.values == pytest.approx(np.array(PROBS))
        assert step.scores.source == "softmax of q-values"
        assert step.actions.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        ({"q_values": Q}, QValues),
        ({"action_value": Q}, QValues),
        ({"action_values": Q}, QValues),
        ({"q_value": Q}, QValues),
        ({"logits": LOGITS}, Probabilities),
        ({"probs": torch.tensor(PROBS)}, Probabilities),
        ({"probs": PROBS}, Probabilities),
        (Categorical(logits=LOGITS), Probabilities),
        (Categorical(probs=torch.tensor(PROBS)), Probabilities),
        (OneHotCategorical(logits=LOGITS), Probabilities),
        ((LOGITS, torch.zeros(2)), Probabilities),
        ((None, "nothing", Q), Probabilities),
        ([{"logits": LOGITS}, None], Probabilities),
        (Q.numpy(), Probabilities),
        (Q.bfloat16(), Probabilities),
        (Q.half(), Probabilities),
        (Q.double().requires_grad_(), Probabilities),
    ],
    ids=[
        "q_values",
        "action_value",
        "action_values",
        "q_value",
        "logits",
        "probs",
        "lists",
        "Categorical of logits",
        "Categorical of probs",
        "OneHotCategorical",
        "tuple",
        "later in a tuple",
        "list",
        "numpy",
        "bfloat16",
        "half",
        "with gradient",
    ],
)
def test_outputs_for_discrete_actions(output: Any, kind: type) -> None:
    step = read(output, meaning="logits")
    assert step.actions.tolist() == [1, 0]
    assert type(step.scores) is kind
    assert step.scores.values.dtype == np.float64
    if kind is Probabilities:
        assert step.scores.values.sum(axis=-1) == pytest.approx([1.0, 1.0])


def test_tensordict_is_read_as_a_mapping() -> None:
    tensordict = pytest.importorskip("tensordict")
    output = tensordict.TensorDict({"action_value": Q, "state_value": torch.tensor([[4.0], [5.0]])}, batch_size=[2])
    step = read(output)
    assert step.actions.tolist() == [1, 0]
    assert step.scores.values.tolist() == Q.tolist()
    assert step.values.tolist() == [4.0, 5.0]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (torch.tensor([2, 0]), [2, 0]),
        (torch.tensor([[2], [0]]), [2, 0]),
        (torch.tensor([2, 0], dtype=torch.int32), [2, 0]),
        (np.array([2, 0], np.uint8), [2, 0]),
        (torch.tensor([[0, 0, 1], [1, 0, 0]]), [2, 0]),
        (torch.tensor([[False, False, True], [True, False, False]]), [2, 0]),
        ({"action": torch.tensor([2, 0])}, [2, 0]),
        ({"action": np.array([[0, 0, 1], [1, 0, 0]])}, [2, 0]),
        ({"action": torch.tensor([2, 0]), "q_values": Q}, [2, 0]),
        ({"action": torch.tensor([2.0]), "q_values": Q}, [1, 0]),
        (PolicyStep(np.array([2, 0])), [2, 0]),
    ],
    ids=[
        "indices",
        "column",
        "int32",
        "numpy",
        "one-hot",
        "one-hot of booleans",
        "mapping",
        "mapping with one-hot",
        "action beside q-values",
        "unreadable action beside q-values",
        "PolicyStep",
    ],
)
def test_actions_are_not_changed(output: Any, expected: list[int]) -> None:
    assert read(output).actions.tolist() == expected


def test_integer_actions_have_no_scores() -> None:
    assert read(torch.tensor([2, 0])).scores is None
    assert read({"action": torch.tensor([2, 0])}).scores is None


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (Q, [6, 5]),
        ({"q_values": Q}, [6, 5]),
        ({"logits": LOGITS}, [6, 5]),
        (Categorical(logits=LOGITS), [6, 5]),
        (torch.tensor([[0, 0, 1], [1, 0, 0]]), [7, 5]),
        (torch.tensor([7, 5]), [7, 5]),
    ],
    ids=["tensor", "q_values", "logits", "Categorical", "one-hot", "indices"],
)
def test_actions_include_the_start_of_the_space(output: Any, expected: list[int]) -> None:
    assert read(output, FROM_FIVE, meaning="q_values").actions.tolist() == expected


def test_space_with_one_action() -> None:
    one = spaces.Discrete(1)
    assert read(torch.tensor([[3.0], [4.0]]), one).actions.tolist() == [0, 0]
    assert read(torch.tensor([[0], [0]]), one).actions.tolist() == [0, 0]


MIXED = MixtureSameFamily(
    Categorical(torch.tensor([[0.4, 0.6], [0.5, 0.5]])),
    Categorical(torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]], [[0.0, 0.2, 0.8], [0.2, 0.0, 0.8]]])),
)
RATES = torch.tensor([0.3, 2.7])


@pytest.mark.parametrize(
    ("policy", "space", "actions", "probabilities"),
    [
        (MIXED, THREE, [0, 2], [[0.4, 0.3, 0.3], [0.1, 0.1, 0.8]]),
        (MIXED, FROM_FIVE, [5, 7], [[0.4, 0.3, 0.3], [0.1, 0.1, 0.8]]),
        (Bernoulli(torch.tensor([0.3, 0.7])), spaces.Discrete(2), [0, 1], [[0.7, 0.3], [0.3, 0.7]]),
        (Bernoulli(torch.tensor([0.3, 0.7])), THREE, [0, 1], [[0.7, 0.3, 0.0], [0.3, 0.7, 0.0]]),
        (Bernoulli(torch.tensor([0.3, 0.7])), spaces.Discrete(2, start=1), [1, 2], [[0.7, 0.3], [0.3, 0.7]]),
        (Independent(Bernoulli(torch.tensor([[0.3], [0.7]])), 1), spaces.Discrete(2), [0, 1], [[0.7, 0.3], [0.3, 0.7]]),
        (Binomial(2, torch.tensor([0.5, 0.9])), THREE, [1, 2], [[0.25, 0.5, 0.25], [0.01, 0.18, 0.81]]),
        (Poisson(RATES), spaces.Discrete(4), [0, 2], None),  # 3 in 10 samples of the second are outside
        (Geometric(torch.tensor([0.5, 0.5])), spaces.Discrete(2), [0, 0], None),
    ],
    ids=["mixture", "mixture from 5", "bits", "bits of 3", "bits from 1", "bits [B, 1]", "Binomial", "Poisson", "Geo"],
)
def test_distributions_over_integers(policy: Any, space: Any, actions: list[int], probabilities: Any) -> None:
    step = read(policy, space)
    assert (step.actions.tolist(), step.actions.dtype) == (actions, np.int64)
    if probabilities is None:
        assert step.scores is None
    else:
        assert isinstance(step.scores, Probabilities)
        assert step.scores.values == pytest.approx(np.array(probabilities), abs=1e-6)


def test_integers_are_sampled() -> None:
    torch.manual_seed(0)
    mixed = [read(MIXED, deterministic=False).actions.tolist() for _ in range(100)]
    assert np.mean(mixed, axis=0) == pytest.approx([0.9, 1.7], abs=0.45)  # 5 standard errors of 0.83 are 0.42
    many = Poisson(torch.full((2000,), 2.7))
    sampled = read(many, spaces.Discrete(99), deterministic=False, batch_size=2000).actions
    assert sampled.mean() == pytest.approx(2.7, abs=5 * (2.7 / 2000) ** 0.5)


def test_samples_follow_the_probabilities_and_the_seed() -> None:
    output = Categorical(probs=torch.tensor([[0.2, 0.8, 0.0]]).repeat(4000, 1))
    torch.manual_seed(0)
    first = read(output, FROM_FIVE, deterministic=False, batch_size=4000).actions
    torch.manual_seed(0)
    second = read(output, FROM_FIVE, deterministic=False, batch_size=4000).actions
    assert np.array_equal(first, second)
    assert set(first.tolist()) == {5, 6}
    assert (first == 6).mean() == pytest.approx(0.8, abs=0.03)


def test_q_values_are_maximized_even_if_distributions_are_sampled() -> None:
    output = {"q_values": Q.repeat(50, 1)}
    assert read(output, deterministic=False, batch_size=100).actions.tolist() == [1, 0] * 50


def test_masked_actions_have_probability_zero() -> None:
    scores = read(torch.tensor([[0.0, -math.inf, 0.0], [-math.inf, -math.inf, 1.0]]), meaning="logits").scores
    assert scores.values.tolist() == [[0.5, 0.0, 0.5], [0.0, 0.0, 1.0]]


@pytest.mark.parametrize(
    ("output", "action_logger", "kind", "first_row"),
    [
        ({"q_values": Q, "logits": LOGITS}, True, QValues, [1.0, 3.0, 2.0]),
        ({"q_values": Q, "logits": LOGITS}, "q_value", QValues, [1.0, 3.0, 2.0]),
        ({"q_values": Q, "logits": LOGITS}, "action_probability", Probabilities, PROBS[0]),
        ({"q_values": Q, "probs": torch.tensor(PROBS)}, "action_probability", Probabilities, PROBS[0]),
        ({"q_values": None, "logits": LOGITS}, True, Probabilities, PROBS[0]),
    ],
)
def test_requested_scores_are_shown_if_a_mapping_has_both(
    output: Any, action_logger: bool | str, kind: type, first_row: list[float]
) -> None:
    scores = read(output, action_logger=action_logger).scores
    assert type(scores) is kind
    assert scores.values[0] == pytest.approx(first_row)


@pytest.mark.parametrize("key", ["value", "state_value", "values"])
@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_state_values_are_read(key: str, shape: tuple[int, ...]) -> None:
    step = read({"logits": LOGITS, key: torch.tensor([4.0, 5.0]).reshape(shape)})
    assert step.values.tolist() == [4.0, 5.0]


def test_state_values_of_another_shape_are_ignored() -> None:
    assert read({"logits": LOGITS, "value": torch.zeros(2, 3)}).values is None
    assert read({"logits": LOGITS}).values is None


@pytest.mark.parametrize("key", ["state_action_value", "chosen_action_value", "q_value", "action_value"])
@pytest.mark.parametrize("shape", [(2,), (2, 1)])
@pytest.mark.parametrize("policy", [{"action": torch.zeros(2, 2)}, {"loc": torch.zeros(2, 2), "scale": torch.ones(2)}])
def test_q_of_a_continuous_action_is_read(key: str, shape: tuple[int, ...], policy: dict[str, Any]) -> None:
    policy = policy | ({"scale": torch.ones(2, 2)} if "scale" in policy else {})
    step = read({**policy, key: torch.tensor([4.0, 5.0]).reshape(shape)}, PLANE)
    assert step.chosen_q.tolist() == [4.0, 5.0]
    assert isinstance(step.scores, Gaussian) == ("loc" in policy)


def test_q_of_the_mean_is_ignored_for_a_sampled_action() -> None:
    gaussian = {"loc": torch.zeros(2, 2), "scale": torch.ones(2, 2), "state_action_value": torch.ones(2)}
    assert read(gaussian, PLANE, deterministic=False).chosen_q is None
    drawn_there = {**gaussian, "action": torch.ones(2, 2)}
    assert read(drawn_there, PLANE, deterministic=False).chosen_q.tolist() == [1.0, 1.0]


def test_q_of_the_chosen_action_is_kept_if_probabilities_are_shown() -> None:
    assert read(Q, meaning="q_values", action_logger="action_probability").chosen_q.tolist() == [3.0, -1.0]
    both = {"probs": torch.tensor(PROBS), "q_values": Q, "action": torch.tensor([2, 0])}
    assert read(both, action_logger="action_probability").chosen_q.tolist() == [2.0, -1.0]
    assert read({**both, "action": torch.tensor([7, 5])}, FROM_FIVE).chosen_q.tolist() == [2.0, -1.0]


@pytest.mark.parametrize("q_values", [torch.zeros(2, 4), torch.zeros(3)])
def test_q_of_another_shape_is_ignored(q_values: torch.Tensor) -> None:
    assert read({"action": torch.zeros(2, 2), "q_value": q_values}, PLANE).chosen_q is None


@pytest.mark.parametrize(
    ("output", "space", "message_part"),
    [
        (torch.tensor([6, 2]), FROM_FIVE, r"2 is not in Discrete\(3, start=5\).* from 5 to 7, .*add the start"),
        (Q.argmax(dim=1), FROM_FIVE, "1 is not in .* instead of their argmax"),
        (
            {"action": torch.tensor([9, 0]), "q_values": Q},
            THREE,
            r"9 is not in Discrete\(3\).* from 0 to 2\. Allowed",
        ),
        (torch.tensor([0, -1]), THREE, "-1 is not in"),
        (Poisson(torch.tensor([0.3, 5.7])), THREE, r"distribution Poisson.* 5 is not in Discrete\(3\).* from 0 to 2"),
        (PolicyStep(np.array([0, 3])), THREE, "3 is not in"),
        (
            torch.tensor([[0, 5], [1, 2]]),
            spaces.MultiDiscrete([2, 3], start=[0, 5]),
            r"\[1 2\] is not in .* 1, from 5 to 7",
        ),
        (torch.tensor([[0, 1], [2, 0]]), spaces.MultiBinary(2), r"\[2 0\] is not in MultiBinary\(2\)"),
        ({"gear": torch.tensor([1, 0])}, spaces.Dict(gear=spaces.Discrete(2, start=1)), "0 is not in Discrete"),
        ((torch.tensor([2, 0]),), spaces.Tuple([spaces.Discrete(2)]), "2 is not in Discrete"),
        (
            PolicyStep({"gear": np.array([1, 2])}),  # with a part left out
            spaces.Dict(gear=spaces.Discrete(2), horn=spaces.Discrete(2)),
            "2 is not in Discrete",
        ),
    ],
)
def test_action_outside_the_space_raises(output: Any, space: spaces.Space[Any], message_part: str) -> None:
    with pytest.raises(PolicyError, match=message_part):
        read(output, space)


def test_policy_step_is_returned_unchanged() -> None:
    step = PolicyStep(np.array([1, 0]), QValues(Q.numpy().astype(np.float64)), np.zeros(2))
    assert read(step) is step


TANH = TanhTransform()


@pytest.mark.parametrize(
    ("output", "actions", "std"),
    [
        (torch.tensor([[0.5, -1.0], [0.0, 1.5]]), [[0.5, -1.0], [0.0, 1.5]], None),
        (np.array([[0.5, -1.0], [0.0, 1.5]]), [[0.5, -1.0], [0.0, 1.5]], None),
        (torch.tensor([[5.0, -7.0], [0.0, 2.0]]), [[2.0, -2.0], [0.0, 2.0]], None),
        (torch.tensor([[5.0, -7.0], [0.0, 2.0]]).bfloat16(), [[2.0, -2.0], [0.0, 2.0]], None),
        (Normal(torch.tensor([[0.5, -1.0], [0.0, 1.5]]), 0.25), [[0.5, -1.0], [0.0, 1.5]], 0.25),
        (Independent(Normal(torch.tensor([[0.5, -9.0], [0.0, 1.5]]), 0.25), 1), [[0.5, -2.0], [0.0, 1.5]], 0.25),
        ({"loc": torch.tensor([[0.5, -9.0], [0.0, 1.5]]), "scale": torch.tensor(0.5)}, [[0.5, -2.0], [0.0, 1.5]], 0.5),
        ({"loc": torch.zeros(2, 2), "scale": torch.full((2,), 0.5)}, [[0.0, 0.0], [0.0, 0.0]], 0.5),
        ({"action": torch.tensor([[0.5, -9.0], [0.0, 1.5]])}, [[0.5, -2.0], [0.0, 1.5]], None),
        (
            {"action": torch.ones(2, 2), "loc": torch.zeros(2, 2), "scale": torch.ones(2, 2)},
            [[1.0, 1.0], [1.0, 1.0]],
            1.0,
        ),
        ((Normal(torch.zeros(2, 2), 1.0), torch.zeros(2)), [[0.0, 0.0], [0.0, 0.0]], 1.0),
        ((torch.ones(2, 2), torch.zeros(2)), [[1.0, 1.0], [1.0, 1.0]], None),
    ],
    ids=[
        "tensor",
        "numpy",
        "beyond the bounds",
        "bfloat16",
        "Normal",
        "Independent",
        "loc and scale",
        "scale of one state",
        "action",
        "action beside loc and scale",
        "tuple of a distribution",
        "tuple of actions",
    ],
)
def test_outputs_for_continuous_actions(output: Any, actions: list[Any], std: float | None) -> None:
    step = read(output, PLANE)
    assert step.actions.tolist() == actions
    assert step.actions.dtype == np.float32
    if std is None:
        assert step.scores is None
    else:
        assert isinstance(step.scores, Gaussian)
        assert step.scores.mean.shape == step.scores.std.shape == (2, 2)
        assert (step.scores.std == std).all()


def test_mean_of_a_gaussian_is_not_clipped() -> None:
    assert read(Normal(torch.full((2, 2), 5.0), 1.0), PLANE).scores.mean.tolist() == [[5.0, 5.0], [5.0, 5.0]]


@pytest.mark.parametrize(
    "squashed",
    [
        TransformedDistribution(Independent(Normal(torch.tensor([[0.5, -1.0]]), 1e-3), 1), [TANH]),
        Independent(TransformedDistribution(Normal(torch.tensor([[0.5, -1.0]]), 1e-3), [TANH]), 1),
        TransformedDistribution(Normal(torch.tensor([[0.5, -1.0]]), 1e-3), [TANH]),
    ],
    ids=["of independent", "independent of", "plain"],
)
def test_moments_of_a_squashed_gaussian_are_those_of_its_samples(squashed: Any) -> None:
    step = read(squashed, PLANE, batch_size=1)
    expected = np.tanh([[0.5, -1.0]])
    assert step.actions == pytest.approx(expected, abs=1e-3)
    assert step.scores.mean == pytest.approx(expected, abs=1e-3)
    assert step.scores.std == pytest.approx(1e-3 * (1 - expected**2), rel=0.4)


def test_moments_of_a_beta_distribution() -> None:
    beta = Beta(torch.full((2, 2), 3.0), torch.full((2, 2), 2.0))
    step = read(beta, spaces.Box(0.0, 1.0, (2,)))
    assert step.actions == pytest.approx(np.full((2, 2), 2 / 3))
    assert step.scores.mean == pytest.approx(np.full((2, 2), 0.6))
    assert step.scores.std == pytest.approx(np.full((2, 2), 0.2))


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        (Beta(torch.ones(2, 2), torch.ones(2, 2)), 0.0),
        (Independent(Beta(torch.ones(2, 2), torch.ones(2, 2)), 1), 0.0),
        (Normal(torch.zeros(2, 2), 1.0), math.log(2 * math.pi * math.e)),
        (MultivariateNormal(torch.zeros(2, 2), torch.tensor([[1.0, 0.8], [0.8, 1.0]])), 2.327052),
    ],
)
def test_entropy_is_that_of_the_distribution(distribution: Any, expected: float) -> None:
    assert entropy(read(distribution, PLANE).scores) == pytest.approx([expected, expected], abs=1e-6)


def test_deterministic_sample_of_a_distribution_is_used() -> None:
    class Known(Normal):
        @property
        def mode(self) -> torch.Tensor:
            raise NotImplementedError

        @property
        def deterministic_sample(self) -> torch.Tensor:
            return self.loc + 1.0

    assert read(Known(torch.zeros(2, 2), 1.0), PLANE).actions.tolist() == [[1.0, 1.0], [1.0, 1.0]]


@pytest.mark.parametrize(
    "output",
    [Normal(torch.zeros(2000, 2), 0.5), {"loc": torch.zeros(2000, 2), "scale": torch.full((2000, 2), 0.5)}],
    ids=["Normal", "loc and scale"],
)
def test_gaussian_is_sampled_if_not_deterministic(output: Any) -> None:
    torch.manual_seed(0)
    first = read(output, PLANE, deterministic=False, batch_size=2000).actions
    torch.manual_seed(0)
    assert np.array_equal(first, read(output, PLANE, deterministic=False, batch_size=2000).actions)
    assert first.mean() == pytest.approx(0.0, abs=0.03)
    assert first.std() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize(
    ("space", "output", "expected"),
    [
        (spaces.MultiDiscrete([3, 4]), torch.tensor([[2, 3], [0, 1]]), [[2, 3], [0, 1]]),
        (spaces.MultiDiscrete([3, 4]), {"action": torch.tensor([[2, 3], [0, 1]])}, [[2, 3], [0, 1]]),
        (
            spaces.MultiDiscrete([3, 3]),
            Independent(Categorical(torch.tensor([[[0.1, 0.8, 0.1], [0.9, 0.1, 0.0]]] * 2)), 1),
            [[1, 0], [1, 0]],
        ),
        (spaces.MultiBinary(2), torch.tensor([[True, False], [False, True]]), [[1, 0], [0, 1]]),
        (spaces.MultiBinary(2), Independent(Bernoulli(torch.tensor([[0.9, 0.1]] * 2)), 1), [[1, 0], [1, 0]]),
        (
            spaces.Box(-1.0, 1.0, (2, 1)),
            torch.tensor([[[0.5], [3.0]], [[0.0], [-3.0]]]),
            [[[0.5], [1.0]], [[0.0], [-1.0]]],
        ),
        (spaces.Box(-1.0, 1.0, ()), torch.tensor([0.5, 3.0]), [0.5, 1.0]),
        (spaces.Box(0, 10, (1,), np.int64), torch.tensor([[3.7], [12.0]]), [[3], [10]]),
    ],
    ids=["MultiDiscrete", "mapping", "distribution", "MultiBinary", "Bernoulli", "matrix", "scalar", "integer box"],
)
def test_actions_have_the_shape_and_dtype_of_the_space(
    space: spaces.Space[Any], output: Any, expected: list[Any]
) -> None:
    step = read(output, space)
    assert step.actions.tolist() == expected
    assert step.actions.dtype == space.dtype
    assert not isinstance(step.scores, QValues | Probabilities)
    for action in step.actions:
        assert space.contains(np.asarray(action))


@pytest.mark.parametrize(
    ("output", "space", "description"),
    [
        (None, THREE, "None of type NoneType"),
        ("left", THREE, "'left' of type str"),
        (1, THREE, "1 of type int"),
        (torch.zeros(2, 4), THREE, "a Tensor of shape [2, 4] and dtype torch.float32"),
        (torch.zeros(3, 3), THREE, "a Tensor of shape [3, 3]"),
        (torch.zeros(2), THREE, "a Tensor of shape [2]"),
        (torch.zeros(3), THREE, "a Tensor of shape [3]"),
        (np.zeros((2, 1, 3)), THREE, "a ndarray of shape [2, 1, 3] and dtype float64"),
        ({}, THREE, "a dict with the keys []"),
        ({"hidden": torch.zeros(2, 3), "b": 1}, THREE, "a dict with the keys ['b', 'hidden']"),
        ({"q_values": torch.zeros(2, 3, 51)}, THREE, "a dict with the keys ['q_values'], q_values of shape [2, 3, 51]"),
        ({"loc": torch.zeros(2, 3), "scale": torch.ones(2, 3)}, THREE, "['loc', 'scale']"),
        ((), THREE, "a tuple of ()"),
        (
            (torch.zeros(2, 7), "x"),
            THREE,
            "a tuple of (a Tensor of shape [2, 7] and dtype torch.float32, 'x' of type str)",
        ),
        (Normal(torch.zeros(2, 3), 1.0), THREE, "the distribution Normal("),
        (Categorical(torch.ones(2, 4)), THREE, "the distribution Categorical("),
        (PolicyStep(np.zeros(5)), THREE, "a PolicyStep with 5 actions"),
        (torch.zeros(2, 3), PLANE, "a Tensor of shape [2, 3]"),
        (torch.zeros(2), PLANE, "a Tensor of shape [2]"),
        ({"q_values": torch.zeros(2, 2)}, PLANE, "['q_values']"),
        ({"loc": torch.zeros(2, 2)}, PLANE, "['loc']"),
        ({"loc": torch.zeros(3, 2), "scale": torch.ones(3, 2)}, PLANE, "['loc', 'scale']"),
        (Normal(torch.zeros(2, 5), 1.0), PLANE, "the distribution Normal("),
        (torch.zeros(2, 3), spaces.MultiDiscrete([2, 2]), "a Tensor of shape [2, 3]"),
    ],
)
def test_unreadable_output_is_described_with_the_allowed_ones(
    output: Any, space: spaces.Space[Any], description: str
) -> None:
    with pytest.raises(PolicyError) as caught:
        read(output, space)
    message = str(caught.value)
    allowed = (
        "[B, 3] of q-values or logits or [B] of actions (integers from 0 to 2)"
        if space is THREE
        else "[B, 2] of actions"
    )
    for fragment in ("The policy returned", description, "for 2 observations", str(space), allowed, "PolicyStep"):
        assert fragment in message


@pytest.mark.parametrize(
    "output",
    [Categorical(logits=LOGITS), {"logits": LOGITS}, torch.tensor([1, 0]), PolicyStep(np.array([1, 0]))],
    ids=["Categorical", "logits", "indices", "PolicyStep"],
)
def test_missing_q_values_raise_with_the_remedy(output: Any) -> None:
    with pytest.raises(PolicyError, match=r"has no q-values\. Set action_logger to 'action_probability'"):
        read(output, action_logger="q_value")


def test_continuous_actions_need_no_q_values() -> None:
    assert read(torch.zeros(2, 2), PLANE, action_logger="q_value").scores is None


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([0.0, 0.0], [0.5, 0.5]),
        ([1000.0, 1000.0], [0.5, 0.5]),
        ([-1000.0, 0.0], [0.0, 1.0]),
        ([math.log(3), 0.0], [0.75, 0.25]),
        ([7.0], [1.0]),
    ],
)
def test_softmax_by_hand(logits: list[float], expected: list[float]) -> None:
    assert softmax(np.array(logits)) == pytest.approx(expected)
    assert softmax(np.array([logits, logits]))[1] == pytest.approx(expected)


def test_numpy_copies_do_not_share_memory() -> None:
    tensor, array = torch.zeros(2), np.zeros(2)
    for source in (tensor, array):
        to_numpy(source)[0] = 5.0
        assert source[0] == 0.0
    assert to_numpy(torch.ones(1, dtype=torch.bfloat16)).dtype == np.float32


def test_mode_of_a_squashed_gaussian_is_the_squashed_mode() -> None:
    base = Normal(torch.tensor([[2.0, -0.3]]), 1.5)
    for squashed in (
        TransformedDistribution(Independent(base, 1), [TANH]),
        Independent(TransformedDistribution(base, [TANH]), 1),
    ):
        assert read(squashed, PLANE, batch_size=1).actions == pytest.approx(np.tanh([[2.0, -0.3]]), abs=1e-6)


MULTI_DISCRETE = spaces.MultiDiscrete([2, 3], start=[0, 5])
FIRST = torch.tensor([[0.25, 0.75], [0.9, 0.1]])
SECOND = torch.tensor([[0.2, 0.7, 0.1], [0.5, 0.2, 0.3]])
PADDED = torch.stack([torch.cat([FIRST, torch.zeros(2, 1)], 1), SECOND], dim=1)


class Wrapped:
    """Wrapper around distributions, as in Stable-Baselines3."""

    def __init__(self, distribution: Any) -> None:
        self.distribution = distribution


@pytest.mark.parametrize(
    "output",
    [
        torch.cat([FIRST, SECOND], dim=1).log(),
        torch.cat([FIRST, SECOND], dim=1).log().numpy(),
        [FIRST.log(), SECOND.log()],
        (FIRST.log(), SECOND.log()),
        {"logits": torch.cat([FIRST, SECOND], dim=1).log()},
        {"logits": [FIRST.log(), SECOND.log()]},
        {"probs": [FIRST, SECOND]},
        {"probs": PADDED},
        [Categorical(FIRST), Categorical(logits=SECOND.log())],
        (Categorical(FIRST), OneHotCategorical(SECOND)),
        Independent(Categorical(PADDED), 1),
        Categorical(PADDED),
        {"distribution": [Categorical(FIRST), Categorical(SECOND)]},
        Wrapped([Categorical(FIRST), Categorical(SECOND)]),
        (torch.cat([FIRST, SECOND], dim=1).log(), torch.zeros(2)),
        ([Categorical(FIRST), Categorical(SECOND)], torch.zeros(2)),
    ],
    ids=[
        "one tensor",
        "one array",
        "list of tensors",
        "tuple of tensors",
        "logits",
        "list of logits",
        "list of probs",
        "padded probs",
        "list of distributions",
        "tuple of distributions",
        "Independent",
        "batched Categorical",
        "named distributions",
        "wrapped distributions",
        "tuple with a value",
        "tuple of distributions with a value",
    ],
)
def test_outputs_for_multi_discrete_actions(output: Any) -> None:
    step = read(output, MULTI_DISCRETE)
    assert step.actions.tolist() == [[1, 6], [0, 5]]
    assert step.actions.dtype == MULTI_DISCRETE.dtype
    assert isinstance(step.scores, Grouped)
    for group, expected in zip(step.scores.groups, (FIRST, SECOND), strict=True):
        assert isinstance(group, Probabilities)
        assert group.values == pytest.approx(expected.numpy(), abs=1e-6)


def test_dimensions_are_sampled_independently() -> None:
    output = [Categorical(FIRST[:1].repeat(4000, 1)), Categorical(SECOND[:1].repeat(4000, 1))]
    actions = read(output, MULTI_DISCRETE, deterministic=False, batch_size=4000).actions
    assert actions[:, 0].mean() == pytest.approx(0.75, abs=0.03)
    assert [(actions[:, 1] == 5 + i).mean() for i in range(3)] == pytest.approx([0.2, 0.7, 0.1], abs=0.03)


@pytest.mark.parametrize(
    ("action_logger", "kind"), [(True, QValues), ("q_value", QValues), ("action_probability", Probabilities)]
)
def test_q_values_are_shown_per_dimension(action_logger: bool | str, kind: type) -> None:
    for output in (torch.cat([FIRST, SECOND], dim=1), [FIRST, SECOND], {"q_values": [FIRST, SECOND]}):
        step = read(output, MULTI_DISCRETE, meaning="q_values", action_logger=action_logger, deterministic=False)
        assert step.actions.tolist() == [[1, 6], [0, 5]]
        assert [type(group) for group in step.scores.groups] == [kind, kind]
    if kind is QValues:
        assert step.scores.groups[1].values.tolist() == SECOND.double().tolist()
    else:
        assert step.scores.groups[0].source == "softmax of q-values"


def test_missing_q_values_of_a_multi_discrete_action_raise() -> None:
    with pytest.raises(PolicyError, match="has no q-values"):
        read([Categorical(FIRST), Categorical(SECOND)], MULTI_DISCRETE, action_logger="q_value")


@pytest.mark.parametrize(
    "output",
    [
        torch.tensor([[1, 6], [0, 5]]),
        {"action": torch.tensor([[1.0, 6.0], [0.0, 5.0]])},
        {"action": torch.tensor([[0, 1, 0, 1, 0], [1, 0, 1, 0, 0]])},
        (torch.tensor([[1, 6], [0, 5]]), torch.zeros(2)),
    ],
    ids=["integers", "floats", "one-hot of each", "tuple"],
)
def test_multi_discrete_actions_are_not_changed(output: Any) -> None:
    step = read(output, MULTI_DISCRETE)
    assert step.actions.tolist() == [[1, 6], [0, 5]]
    assert step.scores is None


def test_dimensions_of_a_matrix_keep_their_order() -> None:
    grid = spaces.MultiDiscrete(np.array([[2, 2], [2, 2]]))
    logits = torch.tensor([[[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]])
    for output in (logits, logits.reshape(1, 8)):
        step = read(output, grid, batch_size=1)
        assert step.actions.tolist() == [[[0, 1], [1, 0]]]
        assert len(step.scores.groups) == 4


MULTI_BINARY = spaces.MultiBinary(3)
ON = torch.tensor([[0.9, 0.1, 0.6], [0.2, 0.5, 0.7]])
ON_LOGITS = torch.logit(ON)


@pytest.mark.parametrize(
    "output",
    [
        ON_LOGITS,
        {"logits": ON_LOGITS},
        {"probs": ON},
        {"probs": torch.stack([1 - ON, ON], dim=-1)},
        Bernoulli(ON),
        Independent(Bernoulli(logits=ON_LOGITS), 1),
        [Bernoulli(column) for column in ON.unbind(1)],
        [Categorical(torch.stack([1 - column, column], dim=-1)) for column in ON.unbind(1)],
        Categorical(torch.stack([1 - ON, ON], dim=-1)),
        Wrapped(Bernoulli(ON)),
        (Bernoulli(ON), torch.zeros(2)),
    ],
    ids=[
        "one logit each",
        "logits",
        "probs",
        "probs of off and on",
        "Bernoulli",
        "Independent",
        "list of Bernoulli",
        "list of Categorical",
        "batched Categorical",
        "wrapped",
        "tuple",
    ],
)
def test_outputs_for_multi_binary_actions(output: Any) -> None:
    step = read(output, MULTI_BINARY)
    assert step.actions.tolist() == [[1, 0, 1], [0, 0, 1]]
    assert step.actions.dtype == np.int8
    for i, group in enumerate(step.scores.groups):
        assert group.values[:, 1] == pytest.approx(ON[:, i].numpy(), abs=1e-6)
        assert group.values.sum(axis=1) == pytest.approx([1.0, 1.0])


def test_bits_are_sampled_independently() -> None:
    actions = read(Bernoulli(ON[:1].repeat(4000, 1)), MULTI_BINARY, deterministic=False, batch_size=4000).actions
    assert actions.mean(axis=0) == pytest.approx([0.9, 0.1, 0.6], abs=0.03)


def test_multi_binary_actions_are_not_changed() -> None:
    expected = [[1, 0, 1], [0, 0, 1]]
    for output in (torch.tensor(expected), torch.tensor(expected).bool(), {"action": torch.tensor(expected).float()}):
        step = read(output, MULTI_BINARY)
        assert step.actions.tolist() == expected
        assert step.scores is None


@pytest.mark.parametrize(
    ("output", "space", "allowed"),
    [
        (
            torch.zeros(2, 4),
            MULTI_DISCRETE,
            r"\[B, 2\] of actions \(integers\) or \[B, 5\] of logits.*a list of one tensor or",
        ),
        ([Categorical(FIRST)], MULTI_DISCRETE, r"a list of one tensor or Distribution for each dimension"),
        ([FIRST, FIRST], MULTI_DISCRETE, r"a list of one tensor or Distribution for each dimension"),
        (Categorical(ON), MULTI_BINARY, r"\[B, 3\] of actions \(integers\) or \[B, 3\] of logits"),
        (torch.full((2, 3), 0.5), spaces.MultiDiscrete([2, 3, 2]), r"\[B, 7\] of logits"),
        (torch.zeros(2, 2), spaces.Dict({"a": spaces.Discrete(2)}), r"\{'action': actions\}, with a batch of actions"),
        ({"action": {"b": torch.zeros(2)}}, spaces.Dict({"a": spaces.Discrete(2)}), r"for each part of the space"),
        (
            PolicyStep(np.zeros((2, 2)), Grouped((QValues(np.zeros((2, 2))), QValues(np.zeros((2, 2)))))),
            MULTI_DISCRETE,
            r"a PolicyStep with 2 actions",
        ),
    ],
)
def test_unreadable_multi_discrete_output_is_described_with_the_allowed_ones(
    output: Any, space: Any, allowed: str
) -> None:
    with pytest.raises(PolicyError, match=allowed):
        read(output, space)


def test_policy_step_of_a_multi_discrete_action_is_returned_unchanged() -> None:
    scores = Grouped((QValues(np.zeros((2, 2))), QValues(np.zeros((2, 3)))))
    step = PolicyStep(np.array([[0, 5], [1, 7]]), scores)
    assert read(step, MULTI_DISCRETE) is step


BOTH = spaces.Dict({"steer": spaces.Box(-1.0, 1.0, (2,)), "gear": spaces.Discrete(3, start=1)})
PAIR = spaces.Tuple([spaces.Discrete(3), spaces.Box(-1.0, 1.0, (1,))])


def test_dict_and_tuple_actions_keep_their_structure() -> None:
    steer, gear = torch.tensor([[0.5, 9.0], [0.0, -1.0]]), torch.tensor([1, 3])
    for output in ({"action": {"steer": steer, "gear": gear}}, {"steer": steer, "gear": gear}):
        actions = read(output, BOTH).actions
        assert actions["steer"].tolist() == [[0.5, 1.0], [0.0, -1.0]]
        assert actions["steer"].dtype == np.float32
        assert actions["gear"].tolist() == [1, 3]
    first, second = read({"action": (gear - 1, steer[:, :1])}, PAIR).actions
    assert (first.tolist(), second.tolist()) == ([0, 2], [[0.5], [0.0]])
    rows = [{"steer": np.zeros(2, np.float32), "gear": 2}, {"steer": np.ones(2, np.float32), "gear": 3}]
    assert read({"action": rows}, BOTH).actions["gear"].tolist() == [2, 3]


@pytest.mark.parametrize(
    ("output", "space"),
    [(([], [None]), spaces.MultiBinary(2)), ({"q_values": ([0.0, 1.0, 2.0], [0.0])}, THREE)],
    ids=["empty lists", "rows of unequal length"],
)
def test_outputs_without_regular_numbers_are_refused(output: Any, space: spaces.Space[Any]) -> None:
    with pytest.raises(PolicyError, match="cannot be read as actions or scores"):
        read(output, space)
