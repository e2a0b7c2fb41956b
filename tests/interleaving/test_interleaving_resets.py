"""Asking for an episode, under every schedule of the env process and the thread that plays."""

from types import SimpleNamespace

import pytest

from rtcore.loop.resets import ResetOrders, reset_order
from rtcore.runtime.player import Player
from rtcore.torture.explorer import Scenario, explore
from rtcore.torture.stepped import SteppedWords, wait_until
from tests.support import broken_protocols

pytestmark = pytest.mark.interleaving

WORDS = ("reset_seq", "reset_seen", "reset_frame_seq", "job_seq", "job_frame_seq", "answered_seq", "newest_frame")


class Named:
    """Words by name, each access a step."""

    def __init__(self, memory):
        self._words = SteppedWords(memoryview(memory))

    def __getitem__(self, name):
        return self._words[WORDS.index(name)]

    def __setitem__(self, name, value):
        self._words[WORDS.index(name)] = value


def raw(memory, name):
    """A look that is no step: for what an actor waits for."""
    return memoryview(memory).cast("q")[WORDS.index(name)]


class Places:
    """One place: what `JobSlots` and `ActionSlots` are to a player. Their own protocols have their own tests."""

    def __init__(self, words, discarded):
        self.words, self.discarded = words, discarded

    def newest(self, place):
        return self.words["job_seq"]

    def read(self, place):
        return SimpleNamespace(frame_seq=self.words["job_frame_seq"], obs_tick=0, due_tick=1, generation=1)

    def write(self, place, answer):
        self.discarded.append(self.words["job_frame_seq"])
        self.words["answered_seq"] = answer.job_seq


class SteppedPlayer(Player):
    """Waits for a change instead of for time to pass."""

    def __init__(self, memory, outbox, discarded):
        self.memory = memory
        self.words = Named(memory)
        places = Places(self.words, discarded)
        self.outbox = outbox
        shared = SimpleNamespace(
            ring=SimpleNamespace(
                empty_frames=lambda count: Frames(),
                sequence=SimpleNamespace(newest=lambda: self.words["newest_frame"]),
            ),
            jobs=places,
            slots=places,
            env_status=self.words,
            worker_status=[{}],
            layout=SimpleNamespace(max_workers=1, chunk=1, action_bytes=8),
        )
        self.before = b""
        super().__init__(shared, 1, self.ask, lambda: None)
        # A job of the old episode that is answered, as it is after a step.
        self._answered = [0]

    def ask(self, seed, options):
        self.outbox.append(reset_order(1, seed, options))
        self.words["reset_seq"] = 1
        return 1

    def _outstanding(self):
        self.before = bytes(self.memory)
        return super()._outstanding()

    def _discard_before(self, frame_seq):
        # What changed since the look before this one is no reason to go on waiting.
        before = self.before
        super()._discard_before(frame_seq)
        self.before = before

    def _pause(self, poll_ns=0):
        before = self.before
        wait_until(lambda: bytes(self.memory) != before)
        self.before = bytes(self.memory)

    def _read_frame(self, frame_seq, *, fresh=False):
        return frame_seq

    def _is_last(self, newest_seq):
        return False  # no episode ends in here


class Frames:
    def __getitem__(self, index):
        return None


class LooksAtTheWordFirst(broken_protocols.LooksAtTheWordFirst, SteppedPlayer):
    pass


def asking(player_class=SteppedPlayer, orders_class=ResetOrders, ticks_before=2):
    def make():
        memory = bytearray(8 * len(WORDS))
        start = memoryview(memory).cast("q")
        start[WORDS.index("newest_frame")] = 10
        outbox, discarded, finished, orders_seen = [], [], [], []

        def tick(words, orders, state):
            """`TickLoop.run_tick`, as far as jobs and resets go."""
            if state["busy"] and words["answered_seq"] == state["job_seq"]:
                state["busy"] = False
            if orders.begin_if_requested():
                state["first"] = state["frame"]
            if not state["busy"]:
                state["busy"] = True
                state["job_seq"] += 1
                words["job_frame_seq"] = state["frame"]
                words["job_seq"] = state["job_seq"]
            words["newest_frame"] = state["frame"]
            state["frame"] += 1

        def env():
            words = Named(memory)
            state = {"busy": False, "job_seq": 0, "frame": 11, "first": None}

            class Ring:
                @property
                def next_seq(self):
                    return state["frame"]

            shared = SimpleNamespace(run_control=words, env_status=words, env_counters={}, ring=Ring())
            channel = SimpleNamespace(next=lambda: outbox.pop(0) if outbox else None)
            orders = orders_class(shared, channel, lambda *order: orders_seen.append(order), 1)
            for _ in range(ticks_before):
                tick(words, orders, state)
            wait_until(lambda: raw(memory, "reset_seq") == 1)
            while state["first"] is None:
                tick(words, orders, state)
            while not finished:
                # A tick that has nothing new to find changes nothing but the frame: it is left out.
                answered = state["job_seq"]
                wait_until(lambda seq=answered: finished or raw(memory, "answered_seq") == seq)
                if not finished:
                    tick(words, orders, state)
            return state["first"]

        def play():
            player = player_class(memory, outbox, discarded)
            first_seen = player.reset(7, {"level": 1})
            finished.append(True)
            return first_seen, tuple(discarded), tuple(frame for _, _, frame in player._outstanding())

        return Scenario([memory], {"env": env, "player": play})

    return make


def wrong(results):
    """A job of the new episode was thrown away, or a frame of the old one was taken for one of the new."""
    first_seen, discarded, left = results["player"]
    first = results["env"]
    return first_seen < first or any(frame >= first for frame in discarded) or not left


def test_an_episode_that_is_asked_for_begins_with_a_frame_of_its_own_that_has_a_job():
    exploration = explore(asking())
    assert exploration.outcomes
    assert not [schedule for schedule, results in exploration.outcomes if wrong(results)]
    frames_thrown_away = {len(results["player"][1]) for _, results in exploration.outcomes}
    assert {1, 2} <= frames_thrown_away, "jobs of the old episode were in the way at different moments"
    late = {results["player"][0] - results["env"] for _, results in exploration.outcomes}
    assert {0, 1} <= late, "the place was free for the first frame, and was not"


@pytest.mark.parametrize(
    ("player_class", "orders_class"),
    [(LooksAtTheWordFirst, ResetOrders), (SteppedPlayer, broken_protocols.SaysSoTooEarly)],
    ids=["the word before the jobs", "the word before the frame's number"],
)
def test_broken_variants_are_caught(player_class, orders_class):
    exploration = explore(asking(player_class, orders_class), until=wrong)
    assert any(wrong(results) for _, results in exploration.outcomes)
