"""The help texts of all programs: as wide as the terminal, examples stay lines that can be copied.

And what all of them have: --version, --print-completion.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Iterator
from typing import Any, NoReturn

from rtcore.errors import printable
from rtcore.version import __version__

#: An example and what it does: two spaces or more between them.
_EXAMPLE = re.compile(
    r"""(?P<indent>[ ]+)(?P<command>(?:[^\s'"]|'[^']*'|"[^"]*"|[ ](?![ ]))+)[ ]{2,}(?P<meaning>\S.*)"""
)

#: A line that begins further to the right goes on with what the example above it does.
_MEANING_AT = 16

#: That shtab writes completions for.
_SHELLS = ("bash", "zsh", "fish", "tcsh")


class Help(argparse.HelpFormatter):
    """Paragraphs are filled. Indented lines stay as they are, but one that is too long becomes several."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        blocks = re.split(r"\n\s*\n", text.strip("\n"))
        return "\n\n".join("\n".join(_fitting(block, width)) for block in blocks) + "\n"


class Parser(argparse.ArgumentParser):
    """The command line of a program or of one of its commands: help texts as above, an error is one line."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=Help, allow_abbrev=False, **settings)

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: error: {printable(message)} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


def at_least_one(text: str) -> int:
    """A count, as the type of an option."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"got {text}, expected a whole number of 1 or more")
    return number


def add_program_options(parser: argparse.ArgumentParser) -> None:
    """The flags of every program: --version, --print-completion."""
    parser.add_argument(
        "--version", action="version", version=f"rtcore {__version__}", help="print the version and exit"
    )
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=_SHELLS,
        help="print what makes a shell complete this program's options, and exit: "
        'eval "$(%(prog)s --print-completion bash)"; needs rtcore[completion]',
    )


class _PrintCompletion(argparse.Action):
    """A script for the shell; nothing of it is loaded unless it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, _: object, shell: object, *__: object) -> None:
        try:
            import shtab  # noqa: PLC0415
        except ImportError:
            parser.error("--print-completion needs shtab: pip install 'rtcore[completion]'")
        for option in parser._actions:
            words = str(option.metavar or "")
            if words.startswith("{") and option.choices is None:
                option.choices = words.strip("{}").split(",")
            elif any(kind in words for kind in ("FILE", "DIR", "PATH")):
                setattr(option, "complete", shtab.FILE)  # noqa: B010 - shtab's own, which argparse does not know
        print(shtab.complete(parser, str(shell)))
        parser.exit()


def _fitting(block: str, width: int) -> Iterator[str]:
    lines = block.split("\n")
    if not any(line.startswith(" ") for line in lines):
        yield from textwrap.wrap(" ".join(lines), width, break_long_words=False, break_on_hyphens=False)
        return
    broken = False
    for line in lines:
        example = _EXAMPLE.fullmatch(line)
        goes_on = (broken or len(line) > width) and len(line) - len(line.lstrip()) > _MEANING_AT
        broken = goes_on or len(line) > width
        if goes_on:
            yield from _meaning(line.strip(), width)
        elif not broken:
            yield line
        elif example:
            yield from _command(example["indent"] + example["command"], width)
            yield from _meaning(example["meaning"], width)
        else:
            yield from _command(line, width)


def _meaning(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _command(line: str, width: int) -> Iterator[str]:
    """A line for a shell, as several that it takes as one. Nothing within quotes is cut."""
    words = re.findall(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""", line)
    indent = line[: len(line) - len(line.lstrip())]
    current = indent + words[0]
    for word in words[1:]:
        if len(current) + len(word) + 3 > width and current.strip():
            yield f"{current} \\"
            current = f"{indent}    {word}"
        else:
            current = f"{current} {word}"
    yield current
