"""The command ``rlwandb``: LightningCLI (``fit``, ``validate``, ``test``, ``predict``), the demo, maps of data sets.

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

  demo                        train on CartPole and record videos, offline and without an account
  embed PATH                  draw a map of offline data: t-SNE of states by reward, action, return, time
  fit --config FILE           train as a yaml file says (LightningCLI)
  validate, test, predict     other commands of LightningCLI
  <command> --help            show the options of a command
  fit --print_config          show every option with its default
  --version                   show the version
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command, by default that of this process, and returns the exit status."""
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
    """Runs LightningCLI on any module and data module, with the arguments of this process if they are None.

    Raises:
        SystemExit: If the arguments are wrong, or jsonargparse is not installed.
    """
    try:
        from pytorch_lightning.cli import LightningCLI
    except ImportError as error:
        raise SystemExit(_MISSING.format(error)) from error

    class CLI(LightningCLI):
        """Reports a wrong setting in one line; jsonargparse lists every type that it tried."""

        def instantiate_classes(self) -> None:
            try:
                super().instantiate_classes()
            except ValueError as error:
                self.parser.error(shorten(str(error)))

    try:
        CLI(
            args=None if arguments is None else list(arguments),
            # The default name, config.yaml, could overwrite the file that was passed in.
            save_config_kwargs={"overwrite": True, "config_filename": "rlwandb_config.yaml"},
        )
    except ModuleNotFoundError as error:
        if "jsonargparse" not in str(error):
            raise
        raise SystemExit(_MISSING.format(error)) from error


def shorten(message: str) -> str:
    r"""Returns the lines of a jsonargparse error that this package wrote, or all lines if it wrote none.

    Example:
        >>> shorten("Does not validate\n  - evaluation.episodes is 0; it must be an integer.\n  - Expected None")
        'evaluation.episodes is 0; it must be an integer.'
    """
    lines = [line.strip(" -") for line in message.splitlines() if any(phrase in line for phrase in _OUR_PHRASES)]
    return "\n".join(dict.fromkeys(lines)) or message


_OUR_PHRASES = (
    *("; it must ", "Unknown key ", "; allowed ", "which needs ", "videos.select "),
    'pip install "rlwandb-callbacks[',
)
_MISSING = '{}\nThe command line needs jsonargparse: pip install "rlwandb-callbacks[cli]"'

if __name__ == "__main__":
    sys.exit(main())
