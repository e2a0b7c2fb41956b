"""`rtcore-run`: a world in real time (or on a virtual clock), with a live view and a summary of what happened.

From its words to the run, and from how that ended to an exit code.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rtcore.cli.exits import end_program, find_own_modules, raise_lost_signal, stop_if_told
from rtcore.errors import ConfigError

if TYPE_CHECKING:
    from rtcore.config.run import RuntimeConfig


def main(arguments: list[str] | None = None) -> None:
    """Program entry; exits 0 if the run went to its end, 1 for a failure, 2 for a wrong setting, 4 for a contract
    that was not kept, 128+n for signal n.
    """
    words = sys.argv[1:] if arguments is None else arguments
    find_own_modules()
    end_program("rtcore-run", lambda: _do(words), goes_on=True)


def _do(words: list[str]) -> int:
    # Under the program's own signal handlers, so that a Ctrl-C while they are imported is not lost.
    from rtcore.config.flags import parse_command, to_toml  # noqa: PLC0415

    raise_lost_signal()
    command = parse_command(words, make=_config_of)
    if command.print_only:
        print(to_toml(command.config), flush=True)
        return 0
    try:
        Path.cwd()
    except FileNotFoundError:  # PyTorch's libraries would end every worker there, with words about a file of their own
        raise ConfigError("the current folder has been deleted; expected one that is there: cd to another") from None
    # After the words were understood: `--help` and a wrong setting need a tenth of what a run does.
    from rtcore.cli.do_run import execute  # noqa: PLC0415

    stop_if_told()
    return execute(command, words)


def _config_of(fields: Mapping[str, Any]) -> RuntimeConfig:
    if fields.get("resume") is None:
        from rtcore.config.flags import default_config  # noqa: PLC0415

        return default_config(fields)
    from rtcore.learn.resuming import settings_of  # noqa: PLC0415 - reads checkpoints, which --help need not know

    return settings_of(fields)


if __name__ == "__main__":
    main()
