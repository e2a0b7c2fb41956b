"""Segments: created private, checked on attach, removed with their run and never with another's."""

import contextlib
import errno
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from rtcore.errors import LayoutMismatchError, SharedMemoryError, UnsupportedPlatformError
from rtcore.memory import segments as shm
from rtcore.memory.counters import Words
from rtcore.memory.layout import LAYOUT_VERSION, MAGIC, SEGMENT_HEADER, Layout
from rtcore.memory.owners import Standing, dead_runs, judge_run, reap_dead_runs
from rtcore.memory.segments import (
    attach_segment,
    create_segment,
    files_of,
    layout_of,
    left_of,
    new_measurement_id,
    new_run_id,
    part_bytes,
    parts_of,
    unlink_all,
)
from rtcore.memory.shared import SharedRun
from rtcore.spaces import ObservationSpec

pytestmark = pytest.mark.process

LAYOUT = Layout(max_workers=1, ring_slots=2, log_slots=2, frame_bytes=64, action_bytes=8, chunk=1)
TRACED = replace(LAYOUT, trace_slots=8)
OBSERVATION = ObservationSpec((64,), "uint8", (0,), (255,))


@pytest.fixture
def run_id(request):
    run_id = getattr(request, "param", new_run_id)()
    yield run_id
    unlink_all(run_id)
    assert files_of(run_id) == []


@pytest.fixture
def apart(run_id, monkeypatch):
    """Moves the run's memory, which may then seem dead: any run that another test starts removes what is, here."""
    with tempfile.TemporaryDirectory(dir=shm.SHM_DIR) as folder:

        def move():
            for path in files_of(run_id):
                path.rename(Path(folder, path.name))
            monkeypatch.setattr(shm, "SHM_DIR", Path(folder))

        yield move


def overwrite(segment, field, value):
    at = 8 * SEGMENT_HEADER.index[field]
    segment.buf[at : at + 8] = value.to_bytes(8, "little")


# -- create, attach, unlink --------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", parts_of(TRACED))
def test_what_one_writes_another_reads(run_id, part):
    created = create_segment(run_id, part, TRACED)
    attached = attach_segment(run_id, part, TRACED)
    assert len(attached.buf) == part_bytes(TRACED, part)
    attached.buf[-8:] = b"12345678"
    assert bytes(created.buf[-8:]) == b"12345678"
    created.close()
    attached.close()


@pytest.mark.parametrize("layout", [LAYOUT, TRACED], ids=["untraced", "traced"])
def test_a_run_has_its_segments_under_its_name(run_id, layout):
    SharedRun.create(run_id, layout, OBSERVATION).close()
    parts = ["control", "slots", "ring", "log", "description", *(["trace"] if layout is TRACED else [])]
    names = {f"rtcore-{run_id}-{part}" for part in parts}
    assert {path.name for path in files_of(run_id)} == names
    unlink_all(run_id)
    assert files_of(run_id) == []


def test_nobody_else_may_look(run_id):
    SharedRun.create(run_id, LAYOUT, OBSERVATION).close()
    assert {stat.S_IMODE(path.stat().st_mode) for path in files_of(run_id)} == {0o600}


def test_a_mapping_outlives_its_name(run_id):
    created = create_segment(run_id, "log", LAYOUT)
    attached = attach_segment(run_id, "log")
    unlink_all(run_id)
    created.buf[-1] = 7
    assert attached.buf[-1] == 7
    created.close()
    attached.close()


def test_a_read_only_attachment_cannot_write(run_id):
    create_segment(run_id, "log", LAYOUT).close()
    attached = attach_segment(run_id, "log", readonly=True)
    with pytest.raises(TypeError, match="read-only"):
        attached.buf[-1] = 1
    attached.close()


def test_the_control_segment_says_what_layout_its_run_has(run_id):
    create_segment(run_id, "control", LAYOUT).close()
    control = attach_segment(run_id, "control")
    assert layout_of(control) == LAYOUT
    control.close()


def test_two_runs_of_one_process_have_different_names():
    assert len({new_run_id() for _ in range(50)}) == 50


def test_a_name_cannot_be_created_twice(run_id):
    create_segment(run_id, "log", LAYOUT).close()
    with pytest.raises(Exception, match="exists"):
        create_segment(run_id, "log", LAYOUT)


# -- what does not fit is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(("field", "value"), [("magic", 1), ("layout_version", 999), ("size_bytes", 8)])
def test_a_segment_with_another_stamp_is_refused(run_id, field, value):
    created = create_segment(run_id, "ring", LAYOUT)
    overwrite(created, field, value)
    with pytest.raises(LayoutMismatchError, match=f"rtcore-{run_id}-ring.*Use the rtcore that started this run"):
        attach_segment(run_id, "ring")
    created.close()


def test_a_segment_of_another_size_than_the_layout_asks_for_is_refused(run_id):
    create_segment(run_id, "ring", LAYOUT).close()
    other = Layout(max_workers=1, ring_slots=3, log_slots=2, frame_bytes=64, action_bytes=8, chunk=1)
    with pytest.raises(LayoutMismatchError):
        attach_segment(run_id, "ring", other)


def test_a_segment_cut_short_is_refused(run_id):
    create_segment(run_id, "ring", LAYOUT).close()
    os.truncate(shm.SHM_DIR / f"rtcore-{run_id}-ring", 256)
    with pytest.raises(LayoutMismatchError, match="in a file of 256"):
        attach_segment(run_id, "ring")


@pytest.mark.parametrize("num_bytes", [0, 4, 8])
def test_a_segment_too_short_for_a_header_is_refused(run_id, num_bytes):
    create_segment(run_id, "ring", LAYOUT).close()
    os.truncate(shm.SHM_DIR / f"rtcore-{run_id}-ring", num_bytes)
    with pytest.raises(LayoutMismatchError):
        attach_segment(run_id, "ring")


def test_a_run_that_is_over_is_named_in_the_error():
    with pytest.raises(LayoutMismatchError, match="run 'no-such-run' is over or never was"):
        attach_segment("no-such-run", "control")


def test_a_ring_larger_than_the_room_says_what_to_lower(run_id):
    slots = shm.free_bytes() // 1_000_000 + 1_000
    huge = Layout(max_workers=1, ring_slots=slots, log_slots=2, frame_bytes=1_000_000, action_bytes=8, chunk=1)
    with pytest.raises(SharedMemoryError, match=r"no room in /dev/shm for the ring segment.*--ring-slots"):
        create_segment(run_id, "ring", huge)
    assert files_of(run_id) == []


def test_room_that_vanishes_between_asking_and_taking_is_the_same_error_and_leaves_nothing(run_id, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SharedMemoryError, match="--ring-slots"):
        create_segment(run_id, "ring", LAYOUT)
    assert files_of(run_id) == []


@pytest.mark.parametrize("machine", ("riscv64", "ppc64le", "armv7l", "aarch64_be"))
def test_another_machine_is_refused_by_name(monkeypatch, machine):
    shm.check_platform()
    monkeypatch.setattr(shm.platform, "machine", lambda: machine)
    monkeypatch.setattr(shm._tick, "compiled", object())
    with pytest.raises(UnsupportedPlatformError, match=machine):
        shm.check_platform()


def test_arm64_is_let_in_with_the_extension_and_never_without(monkeypatch):
    monkeypatch.setattr(shm.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(shm._tick, "compiled", object())
    shm.check_platform()
    monkeypatch.setattr(shm._tick, "compiled", None)
    with pytest.raises(UnsupportedPlatformError, match=r"aarch64: .*RTCORE_TICK.*python3-dev"):
        shm.check_platform()
    monkeypatch.setattr(shm._tick, "compiled", object())
    monkeypatch.setattr(shm.sys, "platform", "darwin")
    with pytest.raises(UnsupportedPlatformError, match="use Linux"):
        shm.check_platform()


# -- what dead runs leave behind ---------------------------------------------------------------------------------

_LEAVE_A_RUN_BEHIND = """
import signal, sys
from rtcore.memory import segments as shm
from rtcore.memory.layout import Layout
layout = Layout(**eval(sys.argv[2]))
for part in shm.parts_of(layout):
    shm.create_segment(sys.argv[1], part, layout)
print("ready", flush=True)
signal.pause()
"""


@pytest.fixture
def other_process(run_id):
    """A process that owns a run, and waits."""
    arguments = [sys.executable, "-c", _LEAVE_A_RUN_BEHIND, run_id, repr(LAYOUT.to_json())]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def test_a_killed_runs_segments_are_reaped(run_id, other_process, apart):
    apart()
    other_process.send_signal(signal.SIGKILL)
    other_process.wait()
    assert len(files_of(run_id)) == 5
    assert run_id in dead_runs()
    assert run_id in reap_dead_runs()
    assert files_of(run_id) == []


def test_a_live_runs_segments_are_not(run_id, other_process):
    assert run_id not in reap_dead_runs()
    assert len(files_of(run_id)) == 5


def test_a_pid_that_was_given_to_another_process_does_not_keep_a_dead_run_alive(run_id, apart):
    control = create_segment(run_id, "control", LAYOUT)
    apart()
    assert run_id not in dead_runs()
    overwrite(control, "owner_start_ticks", shm.process_start_ticks(os.getpid()) - 1)
    assert run_id in dead_runs()
    control.close()


def test_a_run_of_another_pid_namespace_is_left_alone(run_id, apart):
    """Its owner's pid means nothing here: a container may share /dev/shm and not the process ids."""
    control = create_segment(run_id, "control", LAYOUT)
    apart()
    overwrite(control, "owner_start_ticks", 1)
    assert run_id in dead_runs()
    overwrite(control, "owner_pid_namespace", shm.pid_namespace() + 1)
    assert run_id not in reap_dead_runs()
    control.close()


@pytest.mark.parametrize("version", [LAYOUT_VERSION - 1, LAYOUT_VERSION + 1])
def test_a_run_of_another_layout_version_is_left_alone(run_id, apart, version):
    """Where that version keeps its owner is not known here: what this one's offsets say proves nothing."""
    control = create_segment(run_id, "control", LAYOUT)
    apart()
    overwrite(control, "owner_start_ticks", 1)
    assert run_id in dead_runs()
    overwrite(control, "layout_version", version)
    assert judge_run(run_id) == (Standing.OTHER_LAYOUT, -1, version)
    assert run_id not in reap_dead_runs()
    assert len(files_of(run_id)) == 1
    control.close()


def test_an_owner_that_only_waits_for_its_parent_is_dead(run_id, other_process, apart):
    apart()
    assert judge_run(run_id).standing is Standing.LIVE
    other_process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, other_process.pid, os.WEXITED | os.WNOWAIT)
    assert judge_run(run_id).standing is Standing.DEAD


@pytest.mark.parametrize("run_id", [new_measurement_id], indirect=True)
def test_what_a_killed_measurement_left_is_reaped_like_a_run(run_id, apart):
    control = create_segment(run_id, "control", LAYOUT)
    assert judge_run(run_id).standing is Standing.LIVE
    apart()
    overwrite(control, "owner_start_ticks", 1)
    assert run_id in reap_dead_runs()
    assert files_of(run_id) == []
    control.close()


@pytest.mark.parametrize("content", [b"", b"x" * 16, bytes(4096)], ids=["empty", "short", "zeros"])
def test_a_segment_without_a_head_is_being_made_until_its_maker_is_gone_or_much_too_late(content):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    ours, theirs = new_run_id(), f"{ended.pid}-abcdef"
    paths = {run_id: shm.SHM_DIR / f"rtcore-{run_id}-control" for run_id in (ours, theirs, f"{ended.pid}-ipc-abcdef")}
    try:
        for path in paths.values():
            path.write_bytes(content)
        standings = [judge_run(run_id).standing for run_id in paths]
        assert standings == [Standing.BEING_MADE, Standing.BROKEN, Standing.BROKEN]
        made_s = paths[ours].stat().st_mtime
        os.utime(paths[ours], (made_s - 60, made_s - 60))
        assert judge_run(ours).standing is Standing.BROKEN
        assert not set(paths) & set(reap_dead_runs()), "nothing says for certain whose they are"
    finally:
        for path in paths.values():
            path.unlink()
    assert judge_run(ours).standing is Standing.GONE


def test_what_is_not_ours_is_left_alone(run_id):
    path = shm.SHM_DIR / f"rtcore-{run_id}-control"
    for content in (b"", b"x" * 16, bytes(256)):
        path.write_bytes(content)
        assert run_id not in reap_dead_runs()
        assert path.exists()


# -- names that anybody may make ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """In the place of /dev/shm, so that no other run meets what is put there."""
    monkeypatch.setattr(shm, "SHM_DIR", tmp_path)
    return tmp_path


def head_of(pid, start_ticks):
    head = bytearray(4096)
    words = Words(SEGMENT_HEADER, memoryview(head))
    words["magic"], words["layout_version"], words["size_bytes"] = MAGIC, LAYOUT_VERSION, len(head)
    words["owner_pid"], words["owner_start_ticks"] = pid, start_ticks
    words["owner_pid_namespace"] = shm.pid_namespace()
    return bytes(head)


DEAD_HEAD = head_of(99999999, 1)


def test_every_part_of_a_dead_run_is_reaped_and_nothing_that_is_named_like_one(folder):
    run_id, live = "99999999-abcdef", f"{os.getpid()}-abcdef"
    own = [f"rtcore-{run_id}-{part}" for part in ("control", "slots", "params", "learner", "holder0", "holder12")]
    own.append(f"sem.rtcore-{run_id}-w3")
    strange = [
        *("rtcore-*-control", f"rtcore-{run_id}x-control", f"rtcore-{run_id}-holderx", "rtcore--control"),
        *(f"rtcore-{run_id}-control.bak", "rtcore-1-ABCDEF-control", f"rtcore-{live}?-control"),
    ]
    others = [f"rtcore-{live}-control", f"rtcore-{live}-params"]
    for name in (*own, *strange):
        (folder / name).write_bytes(DEAD_HEAD)
    for name in others:
        (folder / name).write_bytes(head_of(os.getpid(), shm.process_start_ticks(os.getpid())))
    assert reap_dead_runs() == [run_id]
    assert sorted(path.name for path in folder.iterdir()) == sorted(strange + others)


@pytest.mark.parametrize("kind", ["pipe", "folder", "link to a dead run", "link to nothing", "socket"])
def test_what_is_no_file_is_neither_waited_for_nor_followed_nor_removed(folder, kind):
    run_id = "1-abcdef"
    path, elsewhere = folder / f"rtcore-{run_id}-control", folder / "elsewhere"
    elsewhere.write_bytes(DEAD_HEAD)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server, contextlib.chdir(folder):
            server.bind(path.name)
    else:
        path.symlink_to(elsewhere if "dead" in kind else "nowhere")
    assert judge_run(run_id).standing is Standing.UNREADABLE
    assert reap_dead_runs() == []
    unlink_all(run_id)
    assert path.is_symlink() or path.exists()
    assert elsewhere.exists()


def test_a_dead_run_of_another_user_is_not_taken_for_ones_own_and_nor_is_his_file_beside_it(folder, monkeypatch):
    dead, half = "99999999-aaaaaa", "99999999-bbbbbb"
    for name in (f"rtcore-{dead}-control", f"rtcore-{half}-control", f"rtcore-{half}-ring"):
        (folder / name).write_bytes(DEAD_HEAD)
    really = shm.is_own_file
    foreign = {f"rtcore-{dead}-control", f"rtcore-{half}-ring"}
    monkeypatch.setattr(shm, "is_own_file", lambda path: path.name not in foreign and really(path))
    assert reap_dead_runs() == [half]
    assert {path.name for path in folder.iterdir()} == foreign


@pytest.mark.parametrize(
    ("code", "what_to_do"), [(errno.EFBIG, "ulimit -f"), (errno.EMFILE, "ulimit -n"), (errno.EACCES, "rtcore-doctor")]
)
def test_a_segment_that_cannot_be_made_says_what_to_do_and_leaves_nothing(run_id, monkeypatch, code, what_to_do):
    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "ftruncate", refuse)
    with pytest.raises(SharedMemoryError, match=f"ring could not be made in /dev/shm.*{what_to_do}"):
        create_segment(run_id, "ring", LAYOUT)
    assert files_of(run_id) == []


def test_a_segment_for_which_no_file_descriptor_is_left_says_which_limit_to_raise(run_id):
    """posix_ipc says so in words of its own, without the kernel's number."""
    with no_file_descriptor_left(), pytest.raises(SharedMemoryError, match=r"maximum number of files open.*ulimit -n"):
        create_segment(run_id, "ring", LAYOUT)
    assert files_of(run_id) == []


# -- onlookers ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def no_file_descriptor_left():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Path("/dev/null").open() as lowest:
        number = lowest.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_run_whose_program_has_no_file_descriptor_left_ends_in_words(run_id, caplog):
    create_segment(run_id, "control", LAYOUT)
    with no_file_descriptor_left():
        unlink_all(run_id)
        known = left_of(run_id)
    assert known is None
    assert "cannot be looked for: [Errno 24] Too many open files" in caplog.text
    assert len(left_of(run_id)) == 1


def test_an_onlooker_reads_a_run_and_cannot_change_it(run_id):
    created = SharedRun.create(run_id, TRACED, OBSERVATION)
    watched = SharedRun.watch(run_id)
    assert watched.layout == TRACED
    assert watched.description.read() is None
    for change in (
        lambda: watched.run_control.words.__setitem__(0, 1),
        lambda: watched.env_counters.add("ticks"),
        lambda: watched.ring.sequence.begin(0),
        lambda: watched.trace_rings()[0].add(0, 0, 0),
    ):
        with pytest.raises(TypeError, match="read-only"):
            change()
    created.env_counters.add("ticks", 3)
    assert watched.env_counters["ticks"] == 3
    watched.close()
    created.close()


def test_an_onlooker_of_no_run_is_told_so():
    with pytest.raises(LayoutMismatchError, match="over or never was"):
        SharedRun.watch("no-such-run")


# -- the rings of a new run --------------------------------------------------------------------------------------


def test_the_rings_of_a_new_run_are_empty_for_whoever_attaches(run_id):
    created = SharedRun.create(run_id, LAYOUT, OBSERVATION)
    attached = SharedRun.attach(run_id, LAYOUT, OBSERVATION)
    for ring in (attached.ring, attached.log):
        assert (ring.sequence.newest(), ring.next_seq) == (-1, 0)
    attached.close()
    created.close()


def test_the_rings_of_a_new_run_are_empty_for_its_creator_too(run_id):
    created = SharedRun.create(run_id, LAYOUT, OBSERVATION)
    numbers = created.ring.next_seq, created.log.next_seq
    created.close()
    assert numbers == (0, 0)
