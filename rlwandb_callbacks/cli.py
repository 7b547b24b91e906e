"""The command ``rlwandb``: LightningCLI (``fit``, ``validate``, ``test``, ``predict``) and the demo.

Example:
    rlwandb demo
    rlwandb fit --config configs/cartpole_dqn.yaml --trainer.max_steps=2000
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rlwandb_callbacks._version import __version__

USAGE = """\
usage: rlwandb <command> [options]

  demo                        train CartPole and make its videos, offline and without an account
  fit --config FILE           train what a yaml file describes (LightningCLI)
  validate, test, predict     LightningCLI's other commands
  <command> --help            the options of a command
  fit --print_config          every option with its default
  --version
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: By default those of the process.

    Returns:
        The exit status.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = given[0] if given else "--help"
    if command in ("-h", "--help"):
        print(USAGE, end="")
    elif command == "--version":
        print(f"rlwandb_callbacks {__version__}")
    elif command == "demo":
        from rlwandb_callbacks.demos.cartpole import main as run_demo

        return run_demo(given[1:])
    else:
        run_lightning_cli(given)
    return 0


def run_lightning_cli(arguments: Sequence[str]) -> None:
    """Runs LightningCLI on any module and data module.

    Raises:
        SystemExit: If the arguments are wrong, or jsonargparse is not installed.
    """
    try:
        from pytorch_lightning.cli import LightningCLI
    except ImportError as error:
        raise SystemExit(_MISSING.format(error)) from error
    try:
        LightningCLI(
            args=list(arguments),
            save_config_kwargs={"overwrite": True, "config_filename": "rlwandb_config.yaml"},
            parser_kwargs={
                command: {"prog": f"rlwandb {command}"} for command in ("fit", "validate", "test", "predict")
            },
        )
    except ModuleNotFoundError as error:
        if "jsonargparse" not in str(error):
            raise
        raise SystemExit(_MISSING.format(error)) from error


_MISSING = '{}\nThe command line needs jsonargparse: pip install "rlwandb-callbacks[cli]"'

if __name__ == "__main__":
    sys.exit(main())
