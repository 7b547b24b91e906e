"""Offline data: opened by path, Minari id or from memory, described, and sampled without being read whole.

Nothing that reads files is imported before a data set is opened.

Example:
    >>> import numpy as np
    >>> rows = {"observations": np.zeros((6, 3)), "actions": np.arange(6) % 2, "rewards": np.ones(6)}
    >>> data = open_dataset(rows | {"terminals": np.array([0, 0, 1, 0, 0, 1])})
    >>> data.num_transitions, data.num_episodes, data.sample(2, seed=0).returns
    (6, 2, array([3., 3.]))
"""

from rlwandb_callbacks.datasets.dataset import OfflineDataset
from rlwandb_callbacks.datasets.open import open_dataset

__all__ = ["OfflineDataset", "open_dataset"]
