"""Messages of any length between two ends that may both be full: whole, in order, and never a wait for ever."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import resource
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.channel import Channel
from rtcore.cli.exits import EXIT_BAD_INPUT, EXIT_FAILED, say_error
from rtcore.errors import ChannelError, ConfigError, EnvironmentFailed, PolicyError
from rtcore.messages import End, Failed, Forked, LearnerReady, WeightSizes
from tests.support.drawn import examples
from tests.support.launcher_parts import Say

pytestmark = pytest.mark.unit

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@contextlib.contextmanager
def both_ends(send_bytes: int | None = None) -> Iterator[tuple[Channel, Channel]]:
    """`send_bytes`: what the kernel keeps of what was sent and not read."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    if send_bytes is not None:
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_bytes)
    left, right = Channel(ours), Channel(theirs)
    try:
        yield left, right
    finally:
        left.close()
        right.close()


def drain(channel: Channel) -> list[Any]:
    found = []
    while (message := channel.next()) is not None:
        found.append(message)
    return found


@given(st.lists(json_values, max_size=5))
@examples(60)
def test_what_is_posted_arrives_whole_and_in_order(values: list[Any]) -> None:
    with both_ends() as (left, right):
        for value in values:
            left.post(Say(value))
        assert drain(right) == [Say(value) for value in values]


@given(st.lists(st.integers(0, 700_000), min_size=1, max_size=4), st.lists(st.integers(0, 700_000), max_size=4))
@examples(25)
def test_two_ends_that_are_both_full_take_turns_and_lose_nothing(there: list[int], back: list[int]) -> None:
    with both_ends(send_bytes=4096) as (left, right):
        for end, sizes in ((left, there), (right, back)):
            for size in sizes:
                end.post(Say("x" * size))
        at_left: list[Any] = []
        at_right: list[Any] = []
        while left.num_unsent or right.num_unsent:
            left.flush()
            at_right += drain(right)
            right.flush()
            at_left += drain(left)
        at_right += drain(right)
        at_left += drain(left)
        assert [len(message.value) for message in at_right] == there
        assert [len(message.value) for message in at_left] == back


@given(st.lists(st.integers(1, 400), min_size=1, max_size=40))
@examples(40)
def test_a_message_is_the_same_however_the_kernel_cuts_it(cuts: list[int]) -> None:
    with both_ends() as (left, right), both_ends() as (raw, _):
        raw.close()
        left.post(WeightSizes({"\u4e16" * 50: 3}))
        left.post(End(soon=True))
        sent = right._socket.recv(1 << 16)
        found, at = [], 0
        for cut in [*cuts, len(sent)]:
            left._socket.send(sent[at : at + cut]) if sent[at : at + cut] else None
            at += cut
            found += drain(right)
        assert found == [WeightSizes({"\u4e16" * 50: 3}), End(soon=True)]


def test_two_blocking_ends_that_send_more_than_the_kernel_keeps_do_not_wait_for_each_other_for_ever() -> None:
    with both_ends(send_bytes=4096) as (left, right):
        big, arrived = "x" * 5_000_000, []

        def talk(end: Channel) -> None:
            end.send(Say(big))
            arrived.append(end.expect(Say, 60).value == big)

        other = threading.Thread(target=talk, args=(right,), daemon=True)
        other.start()
        talk(left)
        other.join(150)
        assert arrived == [True, True]


def test_numbers_that_json_has_not_arrive_too() -> None:
    with both_ends() as (left, right):
        left.post(Say([math.inf, -math.inf, 2**70, np.float32(1.5), np.arange(3)]))
        assert right.next() == Say([math.inf, -math.inf, 2**70, 1.5, [0, 1, 2]])
        left.post(Say(math.nan))
        message = right.next()
        assert isinstance(message, Say)
        assert math.isnan(message.value)


def test_what_is_not_json_is_refused_where_it_is_sent_and_the_channel_goes_on() -> None:
    with both_ends() as (left, right):
        with pytest.raises(TypeError, match=r"got a object .* expected numbers, strings"):
            left.post(Say(object()))
        left.post(Say(1))
        assert right.next() == Say(1)


def test_a_descriptor_comes_with_the_message_that_it_belongs_to() -> None:
    with both_ends(send_bytes=4096) as (left, right):
        files = [os.memfd_create(f"file {number}") for number in range(3)]
        for number, file in enumerate(files):
            os.write(file, b"%d" % number)
            left.post(Say("x" * 20_000))
            left.post(Forked(number, 100 + number, file))
        found: list[Any] = []
        while left.num_unsent:
            left.flush()
            found += drain(right)
        forked = [message for message in found + drain(right) if isinstance(message, Forked)]
        assert [message.token for message in forked] == [0, 1, 2]
        for message in forked:
            assert os.pread(message.descriptor, 9, 0) == b"%d" % message.token
            assert not os.get_inheritable(message.descriptor)
            os.close(message.descriptor)
        for file in files:
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.fstat(file)


def test_a_descriptor_for_which_there_is_no_room_is_minus_one_and_the_next_one_is_its_own() -> None:
    with both_ends() as (left, right):
        left.post(Forked(0, 1, os.memfd_create("file")))
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.ExitStack() as fillers:
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
            try:
                with contextlib.suppress(OSError):
                    while True:
                        fillers.callback(os.close, os.dup(0))
                first = right.next()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        left.post(Forked(1, 1, os.memfd_create("file")))
        second = right.next()
        assert isinstance(first, Forked)
        assert isinstance(second, Forked)
        assert (first.token, first.descriptor, second.token) == (0, -1, 1)
        os.close(second.descriptor)


def test_a_closed_end_is_told_after_what_it_had_sent() -> None:
    with both_ends() as (left, right):
        left.post(LearnerReady("cpu"))
        left.close()
        assert right.receive(5) == LearnerReady("cpu")
        with pytest.raises(ChannelError, match="the other process is gone"):
            right.receive(5)
        assert right.is_closed
        right.send(End())
        assert not right.num_unsent, "dropped: nobody is there to read it"


def test_a_channel_that_its_own_process_closed_is_told_from_one_whose_other_end_is_gone() -> None:
    ours, theirs = Channel.pair()
    with theirs:
        descriptor = os.dup(ours.fileno())  # so that its number is not taken by anybody meanwhile
        os.close(ours.fileno())
        with pytest.raises(ChannelError, match="closes file descriptors that are not its own"):
            ours.receive(5)
        os.dup2(descriptor, ours.fileno())
        os.close(descriptor)
        ours.close()


def test_silence_is_told_from_an_answer_of_another_kind() -> None:
    with both_ends() as (left, right):
        assert right.receive(0) is None
        with pytest.raises(ChannelError, match="got nothing within 0 s; expected a LearnerReady"):
            right.expect(LearnerReady, 0)
        left.post(End())
        with pytest.raises(ChannelError, match="got a End within 5 s; expected a LearnerReady"):
            right.expect(LearnerReady, 5)


@pytest.mark.parametrize(
    "sent",
    [
        b"Traceback (most recent call last):\n",
        b"rtc\1\0" + (2).to_bytes(8, "little") + b"{}",
        b"rtc\1\0" + (14).to_bytes(8, "little") + b'["Popen", {}] ',
        b"rtc\1\0" + (200_000).to_bytes(8, "little") + b"[" * 200_000,
        b"rtc\1\1" + (21).to_bytes(8, "little") + b'["Forked", {"pid":1}]',
    ],
    ids=["another's text", "no pair", "an unknown kind", "too deep", "a descriptor that never came"],
)
def test_what_is_no_message_is_an_error_that_shows_it(sent: bytes) -> None:
    with both_ends() as (left, right):
        left._socket.setblocking(True)
        other = threading.Thread(target=left._socket.sendall, args=(sent,), daemon=True)
        other.start()
        with pytest.raises(ChannelError, match="got "):
            right.receive(30)
        assert right.is_closed, "nothing that follows can be relied upon"
        other.join(30)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")


def test_an_error_that_names_anothers_shows_where_that_one_was_raised_and_says_nothing_twice() -> None:
    try:
        try:
            {}["lost"]
        except KeyError as error:
            raise EnvironmentFailed("the world raised in step(0): KeyError: 'lost'") from error
    except EnvironmentFailed as error:
        failed = Failed.of(error)
    assert '{}["lost"]' in failed.traceback
    assert failed.text not in failed.traceback
    assert failed.traceback.count("Traceback") == 1


@pytest.mark.parametrize(
    "lack",
    [
        OSError(errno.EMFILE, "Too many open files", "blocks.gb"),
        OSError(errno.EAGAIN, "Resource temporarily unavailable"),
        ImportError("libz.so: cannot open shared object file: Too many open files"),
        MemoryError(),
    ],
    ids=lambda lack: type(lack).__name__,
)
def test_a_setting_that_nothing_was_left_to_read_with_is_not_blamed(lack: Exception) -> None:
    """Of the campaign, seeds 28011 and 30815."""
    refused = refused_for(lack)
    assert (Failed.of(refused).kind, Failed.of(refused).text) == (type(lack).__name__, str(lack))
    assert say_error("rtcore-run", refused) == EXIT_FAILED


def test_a_setting_that_cannot_be_read_is() -> None:
    lack = PermissionError(errno.EACCES, "Permission denied")
    lack.__cause__ = lack
    assert Failed.of(refused_for(lack)).kind == "ConfigError"
    assert say_error("rtcore-run", refused_for(lack)) == EXIT_BAD_INPUT


def refused_for(lack: Exception) -> ConfigError:
    refused = ConfigError("cannot use the ROM blocks.gb. Give an unmodified one.")
    refused.__cause__ = ValueError("cannot use the ROM blocks.gb")
    refused.__cause__.__cause__ = lack
    return refused


def test_what_a_child_raised_arrives_whole_or_says_how_much_is_missing() -> None:
    assert Failed.of(PolicyError("too few actions")) == Failed("PolicyError", "too few actions")
    assert Failed.of(ConfigError("no such setting")).traceback == ""
    long = Failed.of(RuntimeError("a" * 200_000 + "z"))
    assert long.text.startswith("aaaa")
    assert long.text.endswith("az")
    assert "192,001 characters left out" in long.text
    assert "characters left out" in long.traceback
    assert Failed.of(Unprintable()).text == "(its text cannot be had: ValueError in its __str__)"
    assert Failed.of(RuntimeError("\x1b[31mred\udcff\x00 \u4e16\n")).text == "\\x1b[31mred\\udcff\\x00 \u4e16\n"
