"""Every error rtcore raises on purpose. One tree:

    RtcoreError
    ├── ConfigError               a setting or a space that rtcore cannot run with
    ├── LayoutMismatchError       shared memory (or its JSON header) of another layout version or size
    ├── UnsupportedPlatformError  a machine or an operating system without what the protocols need
    ├── SharedMemoryError         no room or no right to create or map a segment
    ├── StartupError              a process did not become ready
    ├── EnvironmentFailed         the environment raised, or broke its own observation space
    ├── EnvironmentHung           the environment stopped answering and was killed
    ├── PolicyError               what a policy raised or returned is wrong: a shape, a dtype, NaN
    │   ├── PolicyHung            a worker hung in it, more often than it may be restarted
    │   └── PolicyConfigError     (a ConfigError too) no such policy, not with these arguments, or not in this world
    ├── OperatorError             who may step in raised, or did what is no action of the world
    ├── ContractBroken            a run went to its end and did not keep what was required of it
    ├── RecordError               the files of a run cannot be written
    ├── ChannelError              a process of the run says something that cannot be understood, or nothing
    ├── LinkError                 a worker on another host refuses, or says something that cannot be understood
    │   └── LinkLost              it cannot be reached, or has fallen silent
    ├── WorkerDied                a process of the run died: (role, index, pid, exitcode)
    └── LauncherDied              the process that starts the others died

A message says what was got, what was expected, and what to do. Expected events (a late action, a missed tick,
a lapped frame) are counters in shared memory, never exceptions.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterable
from enum import Enum

#: What a terminal acts on, or that no terminal can be sent: controls but line ends and tabs, changes of the writing
#: direction, halves of surrogate pairs.
_UNSEEN = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for codes in (range(9), range(11, 32), range(127, 160), range(0x202A, 0x202F), range(0x2066, 0x206A))
    for code in codes
} | {code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)}


def printable(text: str) -> str:
    """Text from a file, a world or another process, as it can be shown: what a terminal would obey is escaped."""
    return text.translate(_UNSEEN)


#: Nothing can be opened: this process, or the machine, has no file descriptor left.
NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
#: What says so in words alone: an import that cannot open a library, and posix_ipc.
_NO_DESCRIPTOR_WORDS = {
    os.strerror(errno.EMFILE): errno.EMFILE,
    os.strerror(errno.ENFILE): errno.ENFILE,
    "maximum number of files open": errno.EMFILE,
    "limit on the total number of open files": errno.ENFILE,
}


def no_descriptor(error: BaseException) -> int:
    """EMFILE or ENFILE if the error came of no file descriptor being left; 0: of something else."""
    code = getattr(error, "errno", None)
    if code in NO_DESCRIPTOR:
        return int(code)
    if code is not None or not isinstance(error, (OSError, ImportError)):
        return 0
    return next((code for words, code in _NO_DESCRIPTOR_WORDS.items() if words in str(error)), 0)


def shortage_behind(error: BaseException) -> BaseException | None:
    """What `error` was made of, if that was a lack of descriptors, processes or memory: no setting is wrong then."""
    cause: BaseException | None = error
    seen: list[BaseException] = []
    while cause is not None and cause not in seen:  # one may be raised from itself
        lacks = isinstance(cause, OSError) and cause.errno in (errno.EAGAIN, errno.ENOMEM)
        if lacks or isinstance(cause, MemoryError) or no_descriptor(cause):
            return cause
        seen.append(cause)
        cause = cause.__cause__
    return None


class RtcoreError(Exception):
    """Base of all errors that rtcore raises on purpose. Its text is safe to print, whatever it quotes."""

    def __str__(self) -> str:
        return printable(super().__str__())


#: How a note of the run's header begins that is a warning.
WARNING_NOTE = "WARNING: "


class RtcoreWarning(UserWarning):
    """What may be wrong with a run that goes on all the same: the warnings of its header."""


class ConfigError(RtcoreError):
    """A setting, or an environment's space, that rtcore cannot run with."""


class LayoutMismatchError(RtcoreError):
    """A shared segment has another magic, layout version or size than this build of rtcore expects."""


class UnsupportedPlatformError(RtcoreError):
    """The machine lacks what a protocol rests on: the memory order of x86-64, or of ARM64 with the C extension."""


class SharedMemoryError(RtcoreError):
    """A segment could not be created or mapped; the message names what to free or to raise."""


class StartupError(RtcoreError):
    """A process of the run did not become ready."""


class EnvironmentFailed(RtcoreError):
    """The environment raised, or returned something outside its declared observation space."""


class EnvironmentHung(RtcoreError):
    """The environment stopped answering (often inside C code) and had to be killed."""


class PolicyError(RtcoreError):
    """A policy raised, or its output is wrong."""


class PolicyHung(PolicyError):
    """A worker hung in the policy, more often than it may be restarted."""


class PolicyConfigError(ConfigError, PolicyError):
    """The policy that was asked for does not exist, does not take these arguments, or is for other worlds."""


class OperatorError(RtcoreError):
    """Who may step in (`operator`) cannot be there, raised, or returned what is no action of the world."""


class ContractBroken(RtcoreError):
    """The run did not keep what was required of it, or cannot any more; `conditions`: a sentence for each of those."""

    def __init__(self, conditions: list[str]) -> None:
        # To Exception.args, so that the error survives pickling between processes.
        super().__init__(conditions)
        self.conditions = conditions

    def __str__(self) -> str:
        return printable(f"the contract is broken: {'; '.join(self.conditions)}")


class RecordError(RtcoreError):
    """A file of the run's folder cannot be written; the message names the folder and the reason."""


class ChannelError(RtcoreError):
    """Another process of the run has gone, keeps silent, or sent what is no message."""


class LinkError(RtcoreError):
    """A worker on another host refuses what it is asked for, or says something that cannot be understood."""


class LinkLost(LinkError):
    """A worker on another host cannot be reached, or has fallen silent."""


class WorkerDied(RtcoreError):
    """A process of the run died unasked.

    `role` is "env", "worker", "learner", "holder" or "recorder"; `index` its position among its role; `exitcode` as in
    `multiprocessing.Process.exitcode`: negative means killed by that signal, None means not known.
    """

    def __init__(self, role: str, index: int, pid: int, exitcode: int | None) -> None:
        # All four go to Exception.args, so that the error survives pickling between processes.
        super().__init__(role, index, pid, exitcode)
        self.role = role
        self.index = index
        self.pid = pid
        self.exitcode = exitcode

    def __str__(self) -> str:
        return f"{self.role} {self.index} (pid {self.pid}) died: {explain_exit(self.exitcode)}"


class LauncherDied(RtcoreError):
    """The process that starts and watches the others died; the run cannot go on without it."""


def words_of(error: BaseException) -> str:
    """The text of any exception, also of one that fails when it is asked for it."""
    try:
        return str(error)
    except Exception as failure:
        return f"(its text cannot be had: {type(failure).__name__} in its __str__)"


def text_of(error: BaseException) -> str:
    """Kind and text of any exception."""
    text = words_of(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def describe_exit(exitcode: int | None) -> str:
    """How a process ended, in words. `exitcode` as in `WorkerDied`."""
    if exitcode is None:
        return "exit code unknown"
    if exitcode >= 0:
        return f"exit code {exitcode}"
    try:
        name = signal.Signals(-exitcode).name
    except ValueError:
        name = f"signal {-exitcode}"
    return f"killed by {name}"


def explain_exit(exitcode: int | None) -> str:
    """How a process ended, and where its reason is found."""
    where = "out of memory? see dmesg" if exitcode == -signal.SIGKILL else "its own error output, above, says why"
    return f"{describe_exit(exitcode)}; {where}"


def key_of(member: Enum) -> str:
    """What files, summaries and colours call a member of an enum: its own name in small letters."""
    return member.name.lower()


def counted(count: int, what: str) -> str:
    """ "1 tick", "2 ticks"."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def shortened(text: str, num_chars: int) -> str:
    """Whole if it has at most `num_chars` characters; else its beginning and its end, saying what is missing."""
    if len(text) <= num_chars:
        return text
    head, tail = num_chars * 3 // 4, num_chars // 4
    return f"{text[:head]} ... {len(text) - head - tail:,} characters left out ... {text[-tail:]}"


def nearest(name: str, known: Iterable[str], otherwise: str | None = None) -> str:
    """A sentence: which of the `known` names was probably meant, or `otherwise` all of them."""
    import difflib  # noqa: PLC0415 - only where something is wrong

    names = list(known)
    close = difflib.get_close_matches(name.replace("-", "_").lower(), names, n=2, cutoff=0.7)
    if close:
        return f"Did you mean {' or '.join(repr(key) for key in close)}?"
    return otherwise or f"Expected one of {', '.join(names)}"
