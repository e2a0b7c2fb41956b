"""A real run becomes a video of every tick, from what its recorder kept."""

from __future__ import annotations

import json

import av
import numpy as np
import pytest

from rtcore.cli.run import main
from rtcore.recording.reader import Recording
from rtcore.report.video.film import Scene

pytestmark = pytest.mark.process


def test_a_game_becomes_a_video_in_real_time(tmp_path, capsys):
    flags = ["--policy", "synthetic", "--policy-args", "latency_ms=60", "--workers", "4", "--duration", "3"]
    with pytest.raises(SystemExit) as ended:
        main([*flags, "--no-live", "--no-pictures", "--video", "--out", str(tmp_path)])
    assert ended.value.code == 0
    assert f"{tmp_path / 'video.mp4'} (" in capsys.readouterr().out
    ticks = json.loads((tmp_path / "summary.json").read_text())["ticks"]
    with Recording(tmp_path) as recording, av.open(str(tmp_path / "video.mp4")) as container:
        assert recording.world["action_meanings"] == ["A", "B", "LEFT", "UP", "RIGHT", "DOWN", "NOOP"]
        area, rate_hz, seen = Scene(recording).frame_area, recording.rate_hz, recording.column("frame")
        numbers = recording.column("tick")
        stream = container.streams.video[0]
        shown = list(container.decode(stream))
        assert len(shown) == numbers[-1] - numbers[0] + 1 == ticks["count"] + ticks["skipped"]
        assert [frame.pts * stream.time_base for frame in shown] == [tick / rate_hz for tick in range(len(shown))]
        for row in range(0, len(numbers), 20):
            pixels = shown[numbers[row] - numbers[0]].to_ndarray(format="rgb24")[area]
            assert abs(pixels[2::5, 2::5, 0].astype(int) - seen[row].astype(int)).mean() < 4, row
        assert len({np.asarray(frame.to_ndarray(format="gray")).tobytes() for frame in shown}) > len(numbers) / 2, (
            "it is no picture that stands still"
        )
