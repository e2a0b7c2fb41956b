"""A signal while a process is half started is put off, not lost."""

import signal

import pytest

from rtcore.profile.children import uninterrupted

pytestmark = pytest.mark.unit


class Stopped(BaseException):
    pass


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def stopping(request):
    def stop(signum, frame):
        raise Stopped(signum)

    before = signal.signal(request.param, stop)
    yield request.param
    signal.signal(request.param, before)


def test_a_signal_in_the_block_comes_at_its_end(stopping):
    steps = []
    with pytest.raises(Stopped) as caught, uninterrupted():
        signal.raise_signal(stopping)
        steps.append("the block went on")
    assert steps == ["the block went on"]
    assert caught.value.args == (stopping,)


def test_without_a_signal_nothing_happens_and_the_handler_is_back(stopping):
    handler = signal.getsignal(stopping)
    with uninterrupted():
        assert signal.getsignal(stopping) is not handler
    assert signal.getsignal(stopping) is handler


def test_a_signal_that_is_ignored_stays_ignored(stopping):
    signal.signal(stopping, signal.SIG_IGN)
    with uninterrupted():
        signal.raise_signal(stopping)
