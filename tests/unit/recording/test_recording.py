"""What goes into a recording comes out of it, and what the ring lapped is counted; Minari reads the same."""

from __future__ import annotations

import json
import sys
from fractions import Fraction
from pathlib import Path

import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces

from rtcore.config.flags import parse_config
from rtcore.config.run import make_config
from rtcore.errors import ConfigError
from rtcore.files.outside import SUMS
from rtcore.memory.layout import FRAME_HEADER, LOG_RECORD, FrameHeader, Layout
from rtcore.memory.ring import FrameRing, JobLog, SequenceRing
from rtcore.recording.mending import mend
from rtcore.recording.minari import episodes_of, write_minari
from rtcore.recording.reader import Recording
from rtcore.recording.ring_reader import RingReader
from rtcore.recording.schema import FOLDER, MAIN_FILE, TICKS_FILE
from rtcore.recording.writer import RecordingWriter, chunking
from rtcore.scheduling.dispatch import Outcome, Source, TickKind
from rtcore.scheduling.jobs import JobRow
from rtcore.spaces import ActionSpec, Block, ObservationSpec, PolicyNeeds
from rtcore.virtual.simulate import Simulation
from tests.support.recorded_runs import recorded

pytestmark = pytest.mark.unit

OBSERVATION = ObservationSpec.from_space(spaces.Box(0, 255, (5, 3), np.uint8))
ACTIONS = {
    "discrete": spaces.Discrete(5, start=2),
    "box": spaces.Box(-2, 2, (3,), np.float32),
    "multi-discrete": spaces.MultiDiscrete([3, 4]),
    "multi-binary": spaces.MultiBinary(4),
}


class Bench:
    """A ring and a job log that the test writes, and a recording that is made of them."""

    def __init__(
        self, folder: Path, *, slots=64, action=ACTIONS["discrete"], rate_hz=Fraction(60), first=0, kept=None
    ) -> None:
        self.action = ActionSpec.from_space(action)
        self.ring = FrameRing.private(OBSERVATION, self.action.nbytes, slots, kept)
        layout = Layout(1, 2, slots, 8, 8, 1)
        buffer = memoryview(bytearray(layout.log_bytes))
        SequenceRing.over(buffer, layout.ring_control_at, slots).format()
        self.log = JobLog(buffer, layout)
        about = {
            "config": {"env_id": "some/World-v0", "policy": "mlp"},
            "world": {"observation": OBSERVATION.to_json(), "action": self.action.to_json()},
            "rate_hz": str(rate_hz),
            "rtcore_version": "0",
            "first_frame_seq": first,
            "first_log_seq": first,
        }
        row = self.ring.row_dtype(np.dtype((self.action.np_dtype, self.action.shape)))
        self.writer = RecordingWriter(folder, OBSERVATION, self.action, rate_hz, row, about, kept)
        self.reader = RingReader(self.writer, self.ring, self.log, first, first)
        self.rng = np.random.default_rng(5)
        self.frames, self.headers, self.actions, self.jobs, self.kept = [], [], [], [], []

    def publish(self, count, **fields):
        """Frames with random contents; `fields` of their headers."""
        for _ in range(count):
            frame = self.rng.integers(0, 256, OBSERVATION.shape).astype(np.uint8)
            values = {name: int(self.rng.integers(0, 2)) for name in FRAME_HEADER.fields[1:]}
            values |= {"reward": float(self.rng.normal()), "episode_return": float(self.rng.normal())}
            values |= {"tick": 2 * len(self.frames) + 7, "start_ns": int(self.rng.integers(1 << 62)), "obs_tick": 3}
            values |= fields
            self.action.to_space().seed(int(self.rng.integers(1 << 30)))
            action = np.asarray(self.action.sample(self.rng), self.action.np_dtype)
            header = FrameHeader(self.ring.next_seq, **values)
            self.kept.append(self.rng.bytes(self.ring.kept.nbytes))
            self.ring.publish(frame, header, action.tobytes(), self.kept[-1])
            self.frames.append(frame)
            self.headers.append(header)
            self.actions.append(action)

    def end_jobs(self, count):
        for _ in range(count):
            values = {name: int(self.rng.integers(0, 1 << 60)) for name in LOG_RECORD.fields}
            values |= {name: values[name] % 2 for name in ("hold", "outcome")} | {"log_seq": self.log.next_seq}
            self.jobs.append(JobRow(**values))
            self.log.append(self.jobs[-1])


@pytest.mark.parametrize("kind", ACTIONS)
def test_every_field_frame_action_and_job_comes_back_bit_for_bit(tmp_path, kind):
    bench = Bench(tmp_path, action=ACTIONS[kind], slots=512)
    # Single rows, more than a chunk, and what fills no chunk.
    for count in (1, 3, 130, 60, 7):
        bench.publish(count)
        bench.end_jobs(count + 1)
        bench.reader.collect()
        bench.writer.flush(everything=count == 3)
    bench.writer.close()
    with Recording(tmp_path) as recording:
        assert (recording.end, recording.num_ticks, recording.num_jobs) == ("complete", 201, 206)
        assert (recording.lost_frames, recording.lost_jobs) == (0, 0)
        ticks = list(recording.ticks())
        assert [tick.header for tick in ticks] == bench.headers
        assert [type(value) for value in ticks[0].header] == [type(value) for value in bench.headers[0]]
        assert all(np.array_equal(tick.frame, frame) for tick, frame in zip(ticks, bench.frames, strict=True))
        assert [tick.action.tobytes() for tick in ticks] == [action.tobytes() for action in bench.actions]
        assert recording.column("delay_ticks").tolist() == [header.tick - 3 for header in bench.headers]
        jobs = recording.jobs()
        assert [*zip(*(jobs[name].tolist() for name in jobs), strict=True)] == bench.jobs
        assert [tick.header for tick in recording.ticks(190, 195)] == bench.headers[190:195]
        assert recording.action == bench.action
        assert recording.observation == OBSERVATION


def test_chunks_are_written_once_so_that_nothing_of_the_file_is_wasted(tmp_path):
    bench = Bench(tmp_path, slots=2048)
    bench.publish(600)
    bench.reader.collect()
    bench.writer.close()
    with h5py.File(tmp_path / TICKS_FILE) as file:
        used = sum(dataset.id.get_storage_size() for dataset in file["ticks"].values())
        assert {file["ticks/tick"].chunks, file["ticks/frame"].chunks} == {(60,), (60, 5, 3)}
        size = (tmp_path / TICKS_FILE).stat().st_size
        empty = 60_000  # what the names, meanings and indices of 50 datasets take
        assert size < used + empty


def test_a_recorder_holds_no_chunks_that_it_has_written(tmp_path):
    """HDF5 would keep up to 1 MiB for each dataset: some 50 MB, reached after hours."""
    bench = Bench(tmp_path, slots=2048)
    _, slots, num_bytes, _ = bench.writer._file.id.get_access_plist().get_cache()
    assert (slots, num_bytes) == (0, 0)
    index = bench.writer._file.id.get_mdc_config()
    assert (index.max_size, index.incr_mode) == (1 << 18, 0), "nor the list of them: 2 MB in a million ticks"
    bench.writer.close()


@pytest.mark.parametrize(
    ("rate_hz", "frame_bytes"), [(60, 6_220_800), (60, 100_800), (1000, 16), (1, 50_000_000), (7, 3)]
)
def test_a_chunk_is_bounded_and_a_whole_number_of_chunks_of_frames(rate_hz, frame_bytes):
    frames, rows = chunking(Fraction(rate_hz), frame_bytes)
    assert rows % frames == 0
    assert frames == 1 or frames * frame_bytes <= 1 << 20
    assert rows == 1 or rows * frame_bytes <= 1 << 26


def test_frames_that_the_ring_lapped_are_counted_exactly_and_those_around_them_are_whole(tmp_path):
    bench = Bench(tmp_path, slots=16)
    bench.publish(10)
    bench.reader.collect()
    bench.publish(90)
    bench.reader.collect()
    bench.publish(5)
    bench.reader.collect()
    bench.writer.close()
    with Recording(tmp_path) as recording:
        seqs = recording.column("frame_seq").tolist()
        lost = 105 - len(seqs)
        assert seqs == [*range(10), *range(10 + lost, 105)]
        assert 90 - 16 < lost <= 90 - 16 + 4 + 1, "no more are given up than the lead that a lapped reader needs"
        assert recording.lost_frames == lost
        assert recording.end == f"{lost} frames lost"
        assert recording.about["lost_frames"] == lost
        for tick in recording.ticks():
            assert tick.header == bench.headers[tick.header.frame_seq]
            assert np.array_equal(tick.frame, bench.frames[tick.header.frame_seq])


def test_lapped_job_records_are_counted_apart(tmp_path):
    bench = Bench(tmp_path, slots=16)
    bench.publish(3)
    bench.end_jobs(100)
    bench.reader.collect()
    bench.writer.close()
    with Recording(tmp_path) as recording:
        lost = 100 - recording.num_jobs
        assert lost >= 84
        assert (recording.end, recording.lost_frames) == (f"{lost} jobs lost", 0)
        assert recording.lost_jobs == recording.about["lost_jobs"] == lost


KEPT = PolicyNeeds(
    extras=Block.of("extras", {"logp": ((), "float32"), "features": ((2, 3), "uint16"), "explored": ((), "int8")}),
    state=Block.of("state", {"h": (5, "float64")}),
).kept


def test_what_came_with_the_actions_comes_back_bit_for_bit_alone_in_a_column_and_through_minari(tmp_path):
    bench = Bench(tmp_path / "data", slots=512, kept=KEPT)
    kinds = [TickKind.RESET, *[TickKind.ACTED] * 99, TickKind.RESET, *[TickKind.ACTED] * 49]
    for number, kind in enumerate(kinds):
        source = Source.HELD if kind is TickKind.RESET else Source.POLICY
        bench.publish(1, kind=kind, source=source, episode=number // 100, terminated=0, truncated=0)
    bench.reader.collect()
    bench.writer.close()
    with Recording(tmp_path / "data", is_known=True) as recording:
        assert recording.kept == KEPT
        given = [KEPT.views(block) for block in bench.kept]
        for name, column in {each: each.replace(".", "/") for each in KEPT.names}.items():
            assert recording.column(column).tobytes() == np.stack([views[name] for views in given]).tobytes()
        column = recording.column("extras/features", 100, 150)
        assert column.shape == (50, 2, 3)
        assert column.dtype == np.uint16
        write_minari(recording)
    first, second = minari.MinariDataset(tmp_path / "data")
    assert second.infos["extras"]["features"].tolist() == column.tolist()
    assert first.infos["state"]["h"].shape == (100, 5)


@pytest.mark.parametrize("name", ["", "a/b", "a.b", "log p", 3])
def test_an_extra_that_could_be_no_column_is_refused_by_name(name):
    with pytest.raises(ConfigError, match="letters, digits and _"):
        Block.of("policy_extras", {name: ((), "float32")})


def test_a_recording_begins_with_the_frame_it_is_told_to(tmp_path):
    bench = Bench(tmp_path, first=5)
    bench.publish(20)
    bench.reader.collect()
    bench.writer.close()
    with Recording(tmp_path) as recording:
        assert recording.column("frame_seq").tolist() == list(range(5, 20))
        assert (recording.end, recording.lost_frames) == ("complete", 0)


def test_a_recording_can_be_read_while_it_grows_and_is_unfinished_until_its_end(tmp_path):
    bench = Bench(tmp_path)
    bench.publish(50)
    bench.reader.collect()
    bench.writer.flush(everything=True)
    with Recording(tmp_path) as recording:
        assert (recording.end, recording.is_finished, recording.num_ticks) == ("unfinished", False, 50)
        assert [tick.header for tick in recording.ticks()] == bench.headers
    bench.publish(30)
    bench.reader.collect()
    bench.writer.close()
    with Recording(tmp_path) as recording:
        assert (recording.end, recording.num_ticks) == ("complete", 80)


def test_an_earlier_recording_in_the_folder_is_replaced(tmp_path):
    recorded(tmp_path, ticks=50)
    recorded(tmp_path, ticks=30)
    with Recording(tmp_path) as recording:
        assert recording.num_ticks == 30
    assert minari.MinariDataset(tmp_path / FOLDER).total_steps < 30


def test_the_file_says_what_it_is_of(tmp_path):
    recorded(tmp_path, seed=7)
    with h5py.File(tmp_path / FOLDER / TICKS_FILE) as file:
        about = dict(file.attrs)
        assert about["format"] == "rtcore recording"
        assert (about["seed"], about["env_id"], about["rate_hz"]) == (7, "tests.support.virtual_worlds:Signs", "100")
        assert bytes(about["end"]).strip() == b"complete"
        assert json.loads(about["config"])["seed"] == 7
        assert json.loads(about["world"])["noop_value"] == 0
        assert json.loads(file["ticks/kind"].attrs["values"]) == {
            str(int(kind)): kind.name.lower() for kind in TickKind
        }
        assert set(file["ticks"]) == {*FrameHeader._fields, "action", "frame", "delay_ticks"}
        assert set(file["jobs"]) == set(LOG_RECORD.fields)
        assert all(dataset.attrs["meaning"] for dataset in file["ticks"].values())


def test_a_run_is_recorded_as_its_ring_and_its_record_have_it(tmp_path):
    simulation = recorded(tmp_path, ring_slots=200)
    with Recording(tmp_path) as recording:
        assert [tick.header for tick in recording.ticks()] == list(simulation.record.ticks)
        frame = np.empty(2, np.float32)
        for tick in recording.ticks():
            simulation.ring.read(tick.header.frame_seq, frame)
            assert np.array_equal(tick.frame, frame)
            assert simulation.ring.read_action(tick.header.frame_seq) == tick.action.tobytes()
        jobs = recording.jobs()
        assert [*zip(*(jobs[name].tolist() for name in jobs), strict=True)] == [
            tuple(job) for job in simulation.record.jobs
        ]
    summary = simulation.summary()["recording"]
    assert summary == {
        "path": str(tmp_path / FOLDER / TICKS_FILE),
        "end": "complete",
        "frames": 120,
        "lost_frames": 0,
        "jobs": len(simulation.record.jobs),
        "lost_jobs": 0,
        "bytes": (tmp_path / FOLDER / TICKS_FILE).stat().st_size,
    }


def test_what_the_writer_counts_is_what_a_reader_finds_whenever_it_is_killed(tmp_path):
    bench = Bench(tmp_path)
    for everything in (False, True, False):
        bench.publish(25)
        bench.end_jobs(7)
        bench.reader.collect()
        bench.writer.flush(everything=everything)
        with Recording(tmp_path, is_known=True) as recording:
            assert bench.writer.counts == recording.counts
    assert (recording.num_ticks, recording.num_jobs) == (60, 14), "a chunk of frames, and those of the flush of all"
    bench.writer.abandon()


# -- as a Minari data set ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_reset", ["hold", "run"])
def test_minari_reads_the_episodes_as_the_world_made_them(tmp_path, on_reset):
    recorded(tmp_path, on_reset=on_reset, env_id="CartPole-v1", env_args={}, fps=100)
    data = minari.MinariDataset(tmp_path / FOLDER)
    with Recording(tmp_path) as recording:
        ticks = list(recording.ticks())
    resets = [row for row, tick in enumerate(ticks) if tick.header.kind == TickKind.RESET]
    assert data.total_episodes == len(resets) > 3
    assert data.total_steps == sum(tick.header.source != Source.HELD for tick in ticks)
    for episode, begin, end in zip(data, resets, [*resets[1:], len(ticks)], strict=True):
        steps = [tick for tick in ticks[begin:end] if tick.header.source != Source.HELD]
        seen = [ticks[begin], *steps]
        assert np.array_equal(episode.observations, [tick.frame for tick in seen])
        assert episode.actions.tolist() == [int(tick.action) for tick in steps]
        assert episode.rewards.tolist() == [tick.header.reward for tick in steps]
        assert episode.terminations.tolist() == [bool(tick.header.terminated) for tick in steps]
        assert episode.truncations.tolist() == [bool(tick.header.truncated) for tick in steps]
        assert (episode.terminations.dtype, episode.rewards.dtype) == (bool, np.float64)
        for name in ("tick", "source", "outcome", "worker", "policy_version", "due_tick"):
            assert episode.infos[name].tolist() == [getattr(tick.header, name) for tick in seen]
        delays = [tick.header.tick - tick.header.obs_tick if tick.header.obs_tick >= 0 else -1 for tick in seen]
        assert episode.infos["delay_ticks"].tolist() == delays
    assert data.spec.env_spec.id == "CartPole-v1"
    assert data.recover_environment().spec.id == "CartPole-v1"


@pytest.mark.parametrize("kind", ACTIONS)
def test_minari_knows_the_spaces(tmp_path, kind):
    bench = Bench(tmp_path, action=ACTIONS[kind])
    bench.publish(1, kind=TickKind.RESET, source=Source.HELD)
    bench.publish(5, kind=TickKind.ACTED, source=Source.POLICY)
    bench.reader.collect()
    bench.writer.close()
    with Recording(tmp_path) as recording:
        write_minari(recording)
    data = minari.MinariDataset(tmp_path)
    assert data.action_space == ACTIONS[kind]
    assert data.observation_space == OBSERVATION.to_space()
    assert np.array_equal(data[0].observations, bench.frames)
    assert np.array_equal(data[0].actions, bench.actions[1:])


def test_nothing_is_stored_twice(tmp_path):
    recorded(tmp_path, env_id="CartPole-v1", env_args={}, fps=100)
    with h5py.File(tmp_path / FOLDER / MAIN_FILE) as file:
        found = []
        file.visititems(lambda name, item: found.append(item.is_virtual) if isinstance(item, h5py.Dataset) else None)
        assert found
        assert all(found)


def test_views_without_the_recording_show_no_number_that_could_be_a_reward(tmp_path):
    recorded(tmp_path)
    (tmp_path / FOLDER / TICKS_FILE).unlink()
    assert np.isnan(minari.MinariDataset(tmp_path / FOLDER)[0].rewards).all()


def test_episodes_that_lack_frames_are_left_out_and_counted(tmp_path):
    bench = Bench(tmp_path, slots=16)

    def play(steps, over=True):
        bench.publish(1, kind=TickKind.RESET, source=Source.HELD, terminated=0, truncated=0)
        bench.publish(steps - 1, kind=TickKind.ACTED, source=Source.POLICY, terminated=0, truncated=0)
        bench.publish(1, kind=TickKind.ACTED, source=Source.POLICY, terminated=int(over), truncated=0)

    play(4)  # whole
    bench.reader.collect()
    play(6)
    play(30)  # these two are lost, but for the second one's end
    play(5)  # whole
    bench.reader.collect()
    play(7, over=False)  # the run's end cuts it off: all there is
    bench.reader.collect()
    bench.writer.close()
    with Recording(tmp_path) as recording:
        episodes, partial = episodes_of(recording)
        assert [episode.num_steps for episode in episodes] == [4, 5, 7]
        assert partial == 1
        write_minari(recording)
    data = minari.MinariDataset(tmp_path)
    assert [len(episode) for episode in data] == [4, 5, 7]


def test_an_episode_whose_end_was_lost_is_left_out(tmp_path):
    bench = Bench(tmp_path, slots=16)
    fields = {"source": Source.POLICY, "terminated": 0, "truncated": 0}
    bench.publish(1, kind=TickKind.RESET, **(fields | {"source": Source.HELD}))
    bench.publish(5, kind=TickKind.ACTED, **fields)
    bench.reader.collect()
    bench.publish(40, kind=TickKind.ACTED, **fields)
    bench.publish(12, kind=TickKind.RESET, **(fields | {"source": Source.HELD}))
    bench.publish(3, kind=TickKind.ACTED, **fields)
    bench.reader.collect()
    bench.writer.close()
    with Recording(tmp_path) as recording:
        episodes, partial = episodes_of(recording)
    assert ([episode.num_steps for episode in episodes], partial) == ([3], 1)


@pytest.mark.parametrize("played", [0, 40])
def test_a_recording_without_any_reset_is_a_view_without_episodes(tmp_path, played):
    """Seed 26524 of `rtcore-torture real`: the recorder was away while the ring lapped the only one."""
    bench = Bench(tmp_path, slots=16)
    if played:
        bench.publish(1, kind=TickKind.RESET, source=Source.HELD, terminated=0, truncated=0)
        bench.publish(played, kind=TickKind.ACTED, source=Source.POLICY, terminated=0, truncated=0)
        bench.reader.collect()
    bench.writer.close()
    with Recording(tmp_path) as recording:
        assert episodes_of(recording) == ([], int(played > 0))
        assert write_minari(recording) == 0
    assert len(minari.MinariDataset(tmp_path)) == 0


# -- settings ----------------------------------------------------------------------------------------------------


def test_recording_without_a_folder_goes_to_the_latest_run():
    config, _ = parse_config(["--record"])
    assert config.output.out == Path("runs/latest")


def test_without_h5py_recording_is_refused_with_the_extra_that_brings_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ConfigError, match=r"pip install 'rtcore\[record\]'"):
        Simulation(make_config(clock="virtual", policy="random", latency="constant:5", record=True, out=tmp_path))


def test_a_folder_without_a_recording_is_named(tmp_path):
    with pytest.raises(ConfigError, match=f"{tmp_path}: no recording"):
        Recording(tmp_path)


def test_outcomes_and_kinds_fit_their_columns():
    assert max(map(int, [*TickKind, *Source, *Outcome])) < 127


# -- what stays and what goes ------------------------------------------------------------------------------------


def test_an_earlier_recording_stays_until_another_run_begins_in_its_folder(tmp_path):
    recorded(tmp_path)
    with pytest.raises(ConfigError):
        recorded(tmp_path, env_id="NoSuch-v0", env_args={})
    with Recording(tmp_path) as recording:
        assert recording.num_ticks == 120
    recorded(tmp_path, record=False)
    assert not (tmp_path / FOLDER).exists()


def test_the_view_for_minari_is_left_out_where_somebody_waits_and_made_afterwards(tmp_path):
    recorded(tmp_path, env_id="CartPole-v1", env_args={}, fps=100)
    with Recording(tmp_path) as recording:
        path = recording.path

        def give_up(done: int, of: int) -> None:
            raise TimeoutError(0, f"left out after {done} of {of} episodes")

        (path.parent / MAIN_FILE).unlink()
        with pytest.raises(TimeoutError):
            write_minari(recording, give_up)
    assert {file.name for file in path.parent.iterdir()} == {TICKS_FILE, SUMS, "metadata.json"}
    ticks, episodes = mend(path)
    assert ticks == 120
    assert minari.MinariDataset(path.parent).total_episodes == episodes > 1
    with pytest.raises(ConfigError, match="nothing to mend"):
        mend(path)
