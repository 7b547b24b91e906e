"""LightningModules that the configs and notebooks train.

The stub ``__init__.pyi`` lists the exports, which are imported when they are first used. Each can also be imported from
its module: ``rlwandb_callbacks.demos.dqn.DQN``.
"""

from rlwandb_callbacks.core.lazy_exports import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(__name__, __file__)
