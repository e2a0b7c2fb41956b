"""A recording becomes an mp4 with a frame per tick of real time, whole or not at all."""

from __future__ import annotations

import json
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from gymnasium import spaces

from rtcore.cli.run import main
from rtcore.config.flags import parse_command
from rtcore.config.run import make_config
from rtcore.errors import ConfigError, RecordError
from rtcore.recording.reader import Recording
from rtcore.recording.schema import FOLDER, TICKS_FILE
from rtcore.report.video import encoder
from rtcore.report.video.encoder import Mp4Writer, even, exact_rate
from rtcore.report.video.film import Scene, moments, notes_of, video_file, write_video
from rtcore.report.video.panel import Gap
from tests.support.filmed import KEYS, RATE_HZ, film, header
from tests.support.recorded_runs import recorded

pytestmark = pytest.mark.unit


def decoded(path):
    """(pixels of all frames, when each is shown [s], width and height)"""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames, times = [], []
        for frame in container.decode(stream):
            frames.append(frame.to_ndarray(format="rgb24"))
            times.append(frame.pts * stream.time_base)
        return frames, times, (stream.width, stream.height)


def images(count):
    """Grey ramps that move on from frame to frame."""
    ramp = np.add.outer(np.arange(20), np.arange(31)) * 4
    return [(ramp + 3 * number).astype(np.uint8) for number in range(count)]


def noisy(count, shape=(20, 31)):
    return np.random.default_rng(0).integers(0, 256, (count, *shape)).astype(np.uint8)


def test_the_video_has_every_tick_at_its_exact_time_and_the_frames_are_what_was_seen(tmp_path):
    seen = images(50)
    film(tmp_path, seen, [header(tick) for tick in range(50)], [tick % 7 for tick in range(50)], meanings=KEYS)
    told = []
    with Recording(tmp_path) as recording:
        made = write_video({"": recording}, tmp_path / "v.mp4", progress=lambda *args: told.append(args))
        scene = Scene(recording)
        expected = [scene.draw(moment, frame).copy() for moment, frame in moments(recording.ticks())]
    assert (made.frames, made.held, made.bytes) == (50, 0, (tmp_path / "v.mp4").stat().st_size)
    assert told == [(done, 50) for done in range(1, 51)]
    frames, times, size = decoded(tmp_path / "v.mp4")
    assert times == [tick / RATE_HZ for tick in range(50)]
    assert size == (scene.width, scene.height)
    assert [side % 2 for side in size] == [0, 0]
    # Every seventh pixel: enough to know a frame by.
    shown, drawn = (np.array([pixels[::7, ::7] for pixels in film], np.int64) for film in (frames, expected))
    area = tuple(slice(-(-side.start // 7), side.stop // 7) for side in scene.frame_area)
    for tick in range(50):
        off = abs(shown[tick][area] - drawn[(slice(None), *area)]).mean(axis=(1, 2, 3))
        assert off[tick] < 3, tick
        assert int(off.argmin()) == tick, "no other frame is closer"
        assert abs(shown[tick][area].mean() - seen[tick].mean()) < 3, tick
        assert abs(shown[tick] - drawn[tick]).mean() < 4, "and the panel is there"


def test_skipped_ticks_hold_the_frame_before_them_and_say_so(tmp_path):
    headers = [header(0), header(1), header(5, frame_seq=2, skipped_ticks=3), header(6, frame_seq=3)]
    film(tmp_path, images(4), headers, [0] * 4)
    with Recording(tmp_path) as recording:
        found = list(moments(recording.ticks()))
        made = write_video({"": recording}, tmp_path / "v.mp4")
        area = Scene(recording).frame_area
    assert [(moment.tick, moment.gap, frame is None) for moment, frame in found] == [
        (0, None, False),
        (1, None, False),
        *((tick, Gap.SKIPPED, True) for tick in (2, 3, 4)),
        (5, None, False),
        (6, None, False),
    ]
    assert all(moment.action is None for moment, _ in found[2:5]), "a tick that never ran applied nothing"
    assert (made.frames, made.held) == (7, 3)
    frames, times, _ = decoded(tmp_path / "v.mp4")
    assert times == [tick / RATE_HZ for tick in range(7)]
    for held in (2, 3, 4):
        assert abs(frames[held][area].astype(int) - frames[1][area]).mean() < 1
        assert abs(frames[held].astype(int) - frames[1]).mean() > 1, "the panel says skipped"
    assert abs(frames[5][area].astype(int) - frames[4][area]).mean() > 1


def test_frames_that_the_recorder_lost_are_told_from_ticks_that_never_ran(tmp_path):
    film(tmp_path, images(3), [header(0), header(1), header(9, frame_seq=6, skipped_ticks=2)], [0] * 3)
    with Recording(tmp_path) as recording:
        gaps = [(moment.tick, moment.gap) for moment, _ in moments(recording.ticks())]
        assert notes_of(recording) == ["recording lost 4 frames"]
        assert write_video({"": recording}, tmp_path / "v.mp4").frames == 10
    assert gaps == [
        (0, None),
        (1, None),
        *((tick, Gap.NOT_RECORDED) for tick in range(2, 7)),
        *((tick, Gap.SKIPPED) for tick in (7, 8)),
        (9, None),
    ]


def test_an_unfinished_recording_becomes_a_video_that_says_so(tmp_path):
    film(tmp_path, images(20), [header(tick) for tick in range(20)], [0] * 20, is_finished=False)
    film(tmp_path / "whole", images(20), [header(tick) for tick in range(20)], [0] * 20)
    with Recording(tmp_path) as broken, Recording(tmp_path / "whole") as whole:
        assert (notes_of(broken), notes_of(whole)) == (["recording unfinished: end is missing"], [])
        assert write_video({"": broken}, tmp_path / "v.mp4").frames == 20
        drawn = [Scene(recording).draw(*next(moments(recording.ticks()))) for recording in (broken, whole)]
    assert not np.array_equal(*drawn)
    assert len(decoded(tmp_path / "v.mp4")[0]) == 20


@pytest.mark.parametrize("shape", [(33, 51, 3), (431, 8), (9, 721)])
def test_images_with_odd_sides_become_videos_with_even_ones(tmp_path, shape):
    space = spaces.Box(0, 255, shape, np.uint8)
    film(tmp_path, noisy(3, shape), [header(tick) for tick in range(3)], [0] * 3, observation=space)
    with Recording(tmp_path) as recording:
        write_video({"": recording}, tmp_path / "v.mp4")
        scene = Scene(recording)
    frames, _, (width, height) = decoded(tmp_path / "v.mp4")
    assert len(frames) == 3
    assert (width, height) == (even(scene.width), even(scene.height)) == (scene.width, scene.height)


def test_a_recording_without_a_frame_is_refused_by_name(tmp_path):
    path = film(tmp_path, [], [], [])
    with Recording(tmp_path) as recording, pytest.raises(ConfigError, match=r"ticks.hdf5 holds no frame"):
        write_video({"": recording}, tmp_path / "v.mp4")
    assert sorted(file.name for file in tmp_path.iterdir()) == [FOLDER.parts[0]]
    assert path.exists()


class Interrupted(BaseException):
    """As Ctrl-C is."""


@pytest.mark.parametrize("error", [Interrupted, RuntimeError])
def test_what_breaks_a_video_off_leaves_neither_part_of_it_nor_the_one_before_changed(tmp_path, error):
    film(tmp_path, images(30), [header(tick) for tick in range(30)], [0] * 30)
    (tmp_path / "v.mp4").write_text("the one before")

    def stop(done, of):
        if done == 20:
            raise error

    with Recording(tmp_path) as recording, pytest.raises(error):
        write_video({"": recording}, tmp_path / "v.mp4", progress=stop)
    assert (tmp_path / "v.mp4").read_text() == "the one before"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["recording", "v.mp4"]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    film(tmp_path, images(2), [header(tick) for tick in range(2)], [0] * 2)
    with Recording(tmp_path) as recording, pytest.raises(RecordError, match=r"nowhere/v.mp4.part cannot be written"):
        write_video({"": recording}, tmp_path / "nowhere" / "v.mp4")


@pytest.mark.parametrize(
    "rate", [Fraction(262144, 4389), Fraction(60), Fraction(23891, 400), Fraction(1000), Fraction(1, 4)]
)
def test_rates_are_exact(tmp_path, rate):
    with Mp4Writer(tmp_path / "v.mp4", 16, 16, rate) as video:
        for level in range(9):
            video.add(np.full((16, 16, 3), level * 28, np.uint8))
    assert decoded(tmp_path / "v.mp4")[1] == [tick / rate for tick in range(9)]


def test_a_rate_that_no_mp4_can_hold_is_the_nearest_that_it_can():
    rate = Fraction(59_727_500_569_606, 10**12)
    near = exact_rate(rate)
    assert max(near.as_integer_ratio()) < 2**31
    assert abs(near - rate) < rate / 10**12


def test_the_video_lies_in_the_folder_of_its_run_or_beside_a_file_that_was_moved(tmp_path):
    assert video_file(tmp_path / FOLDER / TICKS_FILE) == tmp_path / "video.mp4"
    assert video_file(tmp_path / "kept" / TICKS_FILE) == tmp_path / "kept" / "video.mp4"


# -- rtcore-run --------------------------------------------------------------------------------------------------


def test_video_keeps_a_recording_and_has_a_folder():
    config = make_config(video=True)
    assert (config.output.record, str(config.output.out)) == (True, "runs/latest")
    command = parse_command(["--replay", "x", "--video", "--ticks", "30"])
    assert (str(command.replay), command.config.output.video, command.config.timing.ticks) == ("x", True, 30)


def test_a_simulated_run_becomes_a_video(tmp_path, capsys):
    flags = [
        "--clock",
        "virtual",
        "--env-id",
        "tests.support.virtual_worlds:Signs",
        "--policy",
        "random",
        "--latency",
        "constant:25",
    ]
    with pytest.raises(SystemExit) as ended:
        main(
            [*flags, "--workers", "2", "--ticks", "60", "--video", "--no-live", "--no-pictures", "--out", str(tmp_path)]
        )
    assert ended.value.code == 0
    assert f"{tmp_path / 'video.mp4'} (60 frames;" in capsys.readouterr().out
    assert len(decoded(tmp_path / "video.mp4")[0]) == 60
    assert json.loads((tmp_path / "config.json").read_text())["config"]["record"] is True
    with Recording(tmp_path) as recording:
        assert recording.world["action_meanings"] == [], "this world names none"


def test_the_video_of_an_earlier_run_goes_with_it(tmp_path):
    (tmp_path / "video.mp4").write_text("of another run")
    flags = [
        "--clock",
        "virtual",
        "--env-id",
        "tests.support.virtual_worlds:Signs",
        "--policy",
        "random",
        "--latency",
        "constant:25",
    ]
    with pytest.raises(SystemExit):
        main([*flags, "--workers", "2", "--ticks", "20", "--no-live", "--no-pictures", "--out", str(tmp_path)])
    assert not (tmp_path / "video.mp4").exists()


def test_a_recording_is_drawn_later_without_its_world_and_in_part(tmp_path, capsys):
    recorded(tmp_path, ticks=50)
    with pytest.raises(SystemExit) as ended:
        main(["--replay", str(tmp_path), "--video", "--ticks", "30"])
    assert ended.value.code == 0
    assert "video.mp4 (30 frames;" in capsys.readouterr().out
    assert len(decoded(tmp_path / "video.mp4")[0]) == 30


def test_a_missing_encoder_is_told_before_anything_starts(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    out = tmp_path / "run"
    with pytest.raises(SystemExit) as ended:
        main(["--video", "--out", str(out)])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "a video needs av" in said
    assert "rtcore[record]" in said
    assert not out.exists()


def test_an_av_without_the_encoder_is_told(monkeypatch):
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    with pytest.raises(ConfigError, match="no encoder libx264"):
        encoder.require_av()
