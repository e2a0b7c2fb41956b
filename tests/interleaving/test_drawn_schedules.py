"""The protocols under schedules that seeds draw: nothing is broken, and what is broken on purpose is found."""

import json
import random

import pytest

from rtcore.cli.torture import _do
from rtcore.torture.explorer import Deadlock, NoEnd, Priorities, Run, Scenario, Uniform, play
from rtcore.torture.protocols import (
    PROTOCOLS,
    HeldProtocol,
    MasterProtocol,
    Parts,
    RecordingProtocol,
    ResetsProtocol,
    RingProtocol,
    SlotsProtocol,
    StoreProtocol,
)
from rtcore.torture.schedules import Tally, play_seed
from rtcore.torture.stepped import FileLock, SteppedBuffer, give_way, stepped_protocols, wait_until
from tests.support import broken_protocols as broken

pytestmark = pytest.mark.interleaving

#: Of each protocol.
NUM_SCHEDULES = 100


@pytest.fixture(scope="module")
def tally():
    whole = Tally()
    with stepped_protocols():
        for seed in range(NUM_SCHEDULES * len(PROTOCOLS)):
            play_seed(seed, whole)
    return whole


def test_no_drawn_schedule_breaks_a_protocol(tally):
    assert not tally.broken, "\n".join(map(str, tally.broken))
    assert set(tally.schedules.values()) == {NUM_SCHEDULES}


def test_every_outcome_and_most_pairs_of_points_come_in_a_few_schedules(tally):
    assert tally.unreached() == []
    shares = {name: len(tally.pairs[name]) / len(tally.possible(name)) for name in tally.schedules}
    assert min(shares.values()) > 0.5, shares


#: Each with the protocol that has to find it, and the seed to begin at where it takes many (docs/reliability.md).
BROKEN = {
    "commit before the payload": (RingProtocol, {"ring": broken.CommitBeforeThePayload}),
    "begin after the payload": (RingProtocol, {"ring": broken.BeginAfterThePayload}),
    "frame checked before the copy": (RingProtocol, {"ring": broken.FrameCheckedBeforeTheCopy}),
    "no check at all": (RingProtocol, {"ring": broken.NoCheckAtAll}),
    "no look at what is done": (RingProtocol, {"ring": broken.NoLookAtWhatIsDone}),
    "lapped check off by one": (RingProtocol, {"ring": broken.LappedCheckOffByOne}),
    "kept after the frame": (RingProtocol, {"ring": broken.KeptAfterTheFrame}),
    "kept read after the check": (RingProtocol, {"ring": broken.KeptReadAfterTheCheck}),
    "rows checked before the copy": (RecordingProtocol, {"ring": broken.RowsCheckedBeforeTheCopy}),
    "lapped rows are kept": (RecordingProtocol, {"reader": broken.KeepsLappedRows}),
    "requested after the check": (RecordingProtocol, {"drain": broken.RequestedAfterTheCheck}),
    "log check off by one": (RecordingProtocol, {"log": broken.LogCheckOffByOne}),
    "one entry only": (SlotsProtocol, {"slots": broken.OneEntryOnly}, 700),
    "published before the entry": (SlotsProtocol, {"slots": broken.PublishedBeforeTheEntry}),
    "entry checked before the copy": (SlotsProtocol, {"slots": broken.EntryCheckedBeforeTheCopy}),
    "entry check off by one": (SlotsProtocol, {"slots": broken.CheckOffByOne}, 1210),
    "payload after the publication": (SlotsProtocol, {"slots": broken.PayloadAfterThePublication}),
    "payload read after the check": (SlotsProtocol, {"slots": broken.PayloadReadAfterTheCheck}, 820),
    "one payload for both entries": (SlotsProtocol, {"slots": broken.OnePayloadForBothEntries}),
    "number first": (SlotsProtocol, {"jobs": broken.NumberFirst}),
    "number packed with the rest": (SlotsProtocol, {"jobs": broken.NumberPackedWithTheRest}),
    "context after the number": (SlotsProtocol, {"jobs": broken.ContextAfterTheNumber}),
    "no second look": (StoreProtocol, {"store": broken.NoSecondLook}),
    "claims after the second look": (StoreProtocol, {"store": broken.ClaimsAfterTheSecondLook}),
    "ignores claims": (StoreProtocol, {"store": broken.IgnoresClaims}),
    "looks before it is its turn": (StoreProtocol, {"store": broken.LooksBeforeItIsItsTurn}),
    "ignores claims on a device": (HeldProtocol, {"store": broken.IgnoresClaims}),
    "commit before the slot": (MasterProtocol, {"master": broken.CommitBeforeTheSlot}),
    "updates in place": (MasterProtocol, {"master": broken.UpdatesInPlace}),
    "says so too early": (ResetsProtocol, {"orders": broken.SaysSoTooEarly}),
    "looks at the word first": (ResetsProtocol, {"player": broken.LooksAtTheWordFirst}),
}
#: Schedules that each may take. The seeds are always the same ones: so is what they find.
MOST_SCHEDULES = 400


def schedules_until_found(name, first=0, most=MOST_SCHEDULES):
    """How many seeds, from `first` on, until the fault shows; None if it does not."""
    protocol, parts, *_ = BROKEN[name]
    tally = Tally()
    for number in range(most):
        if play_seed(first + number, tally, Parts(**parts), protocol()) is not None:
            return number + 1
    return None


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_found(name):
    assert schedules_until_found(name, *BROKEN[name][2:]) is not None


def test_what_no_lock_keeps_apart_is_found():
    """Two learners at a time: a point of one directly follows what the lock keeps it from."""
    tally, found = Tally(), []
    for seed in range(60):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FileLock, "take", lambda lock: True)
            if (one := play_seed(seed, tally, protocol=MasterProtocol())) is not None:
                found.append(one.text)
    assert found


# -- the schedulers ------------------------------------------------------------------------------------------------


def two_writers(steps=3):
    memory = bytearray(16)
    words = SteppedBuffer(memoryview(memory)).cast("q")

    def write(index):
        for _ in range(steps):
            words[index] = words[index] + 1

    return Scenario([memory], {"a": lambda: write(0), "b": lambda: write(1)})


def test_priorities_without_a_change_let_one_actor_go_to_its_end():
    orders = {tuple(play(two_writers(), Priorities(random.Random(seed), 12, 0)).choices) for seed in range(20)}
    assert orders == {("a",) * 6 + ("b",) * 6, ("b",) * 6 + ("a",) * 6}


@pytest.mark.parametrize("changes", [1, 2, 3])
def test_priorities_bound_how_often_somebody_is_interrupted(changes):
    switches = set()
    for seed in range(200):
        choices = play(two_writers(), Priorities(random.Random(seed), 12, changes)).choices
        switches.add(sum(one != other for one, other in zip(choices, choices[1:], strict=False)))
    assert max(switches) == 1 + changes
    assert min(switches) >= 1


def test_a_seed_is_one_schedule():
    def choices(seed):
        return play(two_writers(), Uniform(random.Random(seed))).choices

    assert choices(5) == choices(5)
    assert len({tuple(choices(seed)) for seed in range(50)}) > 20


def test_who_sleeps_lets_others_go_first_and_who_never_ends_is_told():
    def make(ends):
        memory, told = bytearray(8), []

        def wait():
            while not told:
                give_way()

        def tell():
            words = SteppedBuffer(memoryview(memory)).cast("q")
            words[0] = 1
            if ends:
                told.append(True)

        return Scenario([memory], {"waits": wait, "tells": tell})

    for seed in range(5):
        assert isinstance(play(make(True), Priorities(random.Random(seed), 10, 0)), Run)
    with pytest.raises(NoEnd, match="waits"):
        play(make(False), Uniform(random.Random(0)))


def test_actors_that_wait_for_each_other_are_a_deadlock_in_a_drawn_schedule_too():
    def make():
        return Scenario([], {"a": lambda: wait_until(lambda: False)})

    with pytest.raises(Deadlock, match="wait for ever"):
        play(make(), Uniform(random.Random(0)))


def test_points_are_the_letters_of_the_protocols():
    """As the exhaustive explorer meets them, in a small case: the same ones, and nothing else."""
    frames = {(role, point) for role, point in points_of(RingProtocol()) if point}
    assert frames == {("writer", "W1"), ("writer", "W2"), ("reader", "R1"), ("reader", "R2")}
    store = {point for role, point in points_of(StoreProtocol()) if role == "worker"}
    assert store == {"R6", "W7", "R8", "R9"}


def points_of(protocol):
    tally = Tally()
    for seed in range(60):
        play_seed(seed, tally, protocol=protocol)
    return tally.points[protocol.name]


# -- the program -----------------------------------------------------------------------------------------------------


def test_the_program_counts_schedules_and_pairs(capsys):
    assert _do(["schedules", "--seeds", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["schedules"], told["by_protocol"], told["violations"]) == (1, {"parameter store": 1}, [])
    assert _do(["schedules", "--seeds", "3"]) == 0
    assert "pairs of lettered points" in capsys.readouterr().out


def test_a_broken_schedule_is_printed_with_the_command_that_shows_it_again():
    tally = Tally()
    found = None
    for seed in range(100):
        found = found or play_seed(seed, tally, Parts(ring=broken.NoCheckAtAll), RingProtocol())
    assert found.command == f"rtcore-torture schedules --seeds {found.seed}"
    assert "torn" in str(found)
    assert "readers" in found.sizes
    assert "(W1" in found.trace or "W1" in found.trace
