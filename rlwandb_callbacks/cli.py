"""The command ``rlwandb``: LightningCLI (``fit``, ``validate``, ``test``, ``predict``), the demo, pictures of data.

Example:
    rlwandb demo
    rlwandb embed halfcheetah-medium-v2.hdf5 --out halfcheetah.png
    rlwandb fit --config configs/cartpole_dqn.yaml --trainer.max_steps=2000
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rlwandb_callbacks._version import __version__

USAGE = """\
usage: rlwandb <command> [options]

  demo                        train CartPole and make its videos, offline and without an account
  embed PATH                  draw a data set of offline transitions: t-SNE of states by reward, action, return, time
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
    elif command == "embed":
        from rlwandb_callbacks.maps.command import main as embed

        return embed(given[1:])
    else:
        run_lightning_cli(None if arguments is None else given)
    return 0


def run_lightning_cli(arguments: Sequence[str] | None) -> None:
    """Runs LightningCLI on any module and data module.

    Args:
        arguments: None for those of the process.

    Raises:
        SystemExit: If the arguments are wrong, or jsonargparse is not installed.
    """
    try:
        from pytorch_lightning.cli import LightningCLI
    except ImportError as error:
        raise SystemExit(_MISSING.format(error)) from error

    class CLI(LightningCLI):
        """Says what is wrong in a line, where jsonargparse lists all that it tried."""

        def instantiate_classes(self) -> None:
            try:
                super().instantiate_classes()
            except ValueError as error:
                self.parser.error(essence(str(error)))

    try:
        CLI(
            args=None if arguments is None else list(arguments),
            # Not config.yaml, which is what people call the file they pass in.
            save_config_kwargs={"overwrite": True, "config_filename": "rlwandb_config.yaml"},
        )
    except ModuleNotFoundError as error:
        if "jsonargparse" not in str(error):
            raise
        raise SystemExit(_MISSING.format(error)) from error


def essence(message: str) -> str:
    r"""Takes our own complaints out of jsonargparse's account of all that it tried; the whole where there is none.

    Example:
        >>> essence("Does not validate\n  - evaluation.episodes is 0; allowed is a whole number.\n  - Expected None")
        'evaluation.episodes is 0; allowed is a whole number.'
    """
    ours = [line.strip(" -") for line in message.splitlines() if any(mark in line for mark in _OUR_MARKS)]
    return "\n".join(dict.fromkeys(ours)) or message


_OUR_MARKS = ("; allowed ", "which needs an env", 'pip install "rlwandb-callbacks[')
_MISSING = '{}\nThe command line needs jsonargparse: pip install "rlwandb-callbacks[cli]"'

if __name__ == "__main__":
    sys.exit(main())
