"""The report page in a real browser: it renders, asks the network for nothing, and zoom and hover work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from rtcore.cli.report import main as report
from rtcore.config.run import make_config
from rtcore.report.finished import write_results
from rtcore.results.out_folder import write_config
from rtcore.virtual.simulate import Simulation
from tests.support.browser import chromium

pytest.importorskip("plotly", reason="the page needs plotly: pip install 'rtcore[report]'")
pytest.importorskip("selenium", reason="driving a browser needs selenium: pip install selenium")

from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = [pytest.mark.process, pytest.mark.slow]

_PATIENCE_S = 60


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    with chromium(tmp_path_factory.mktemp("profile")) as window:
        yield window


def simulated(folder: Path, **fields: Any) -> Path:
    """A run on the virtual clock, with the files that `rtcore-run --out` writes."""
    chosen = {"latency": "lognormal:90,0.15", "workers": 7, "ticks": 1200} | fields
    config = make_config(
        clock="virtual", policy="synthetic", policy_args={"latency_ms": 100}, out=folder, live=False, **chosen
    )
    write_config(folder, config, ["rtcore-run"])
    simulation = Simulation(config)
    simulation.run()
    simulation.close()
    write_results(folder, simulation.summary(), simulation.stats(), simulation.record)
    return folder


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page_of(simulated(tmp_path_factory.mktemp("runs") / "one"))


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page_of(simulated(tmp_path_factory.mktemp("runs") / "long", ticks=36_000))


def page_of(*folders: Path) -> Path:
    page = folders[0] / "report.html"
    with pytest.raises(SystemExit) as left:
        report([str(folder) for folder in folders])
    assert left.value.code == 0
    return page


def opened(browser: WebDriver, page: Path) -> WebDriver:
    """The page, drawn. Nothing of an earlier page is left in the logs."""
    browser.get("about:blank")
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.get(page.as_uri())
    wait_for(browser, "return document.documentElement.dataset.ready === 'yes'")
    return browser


def wait_for(browser: WebDriver, script: str, patience_s: float | None = None) -> Any:
    return WebDriverWait(browser, patience_s or _PATIENCE_S).until(lambda window: window.execute_script(script))


def lanes_range(browser: WebDriver) -> list[float]:
    low, high = browser.execute_script("return document.getElementById('lanes-0').layout.xaxis.range")
    return [float(low), float(high)]


def drag_layer(browser: WebDriver, chart: str = "lanes-0") -> Any:
    layer = browser.find_element(By.CSS_SELECTOR, f"#{chart} .nsewdrag")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", layer)
    return layer


def drag(browser: WebDriver, chart: str, left: float, right: float) -> None:
    """With the mouse, over these shares of a chart's width."""
    layer = drag_layer(browser, chart)
    width = layer.rect["width"]
    at = [round((share - 0.5) * width) for share in (left, right)]
    actions = ActionChains(browser, duration=20).move_to_element_with_offset(layer, at[0], 0).click_and_hold()
    actions.move_by_offset((at[1] - at[0]) // 2, 3).move_by_offset(at[1] - at[0] - (at[1] - at[0]) // 2, 0)
    actions.release().perform()


def hover_text(browser: WebDriver, chart: str) -> str:
    """What the label says, once there is one."""
    labels = f"[...document.querySelectorAll('#{chart} .hoverlayer .hovertext text')]"
    return str(wait_for(browser, f"return {labels}.map(label => label.textContent).join(' ')"))


def network_requests(browser: WebDriver) -> list[str]:
    """Addresses that were asked for since the page was opened, other than files and data in the page itself."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert any(url.startswith("file:") for url in sent), "the log does not even show the page itself"
    return [url for url in sent if urlsplit(url).scheme not in ("file", "data", "blob", "about")]


def complaints(browser: WebDriver) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def test_the_page_renders_without_complaint_and_without_the_network(browser: WebDriver, one_run: Path) -> None:
    opened(browser, one_run)
    drawn = browser.execute_script("return [...document.querySelectorAll('.chart, .lanes, .overview')].map(c => c.id)")
    assert {"lanes-0", "overview-0", "distribution-0", "distribution-3", "outcomes-0"} <= set(drawn)
    for chart in drawn:
        marks = f"return document.querySelectorAll('#{chart} .points path, #{chart} .heatmaplayer image').length"
        assert browser.execute_script(marks) > 0, chart
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 1280
    assert complaints(browser) == []
    assert network_requests(browser) == []


def test_dragging_over_the_timeline_zooms_into_it_and_a_double_click_shows_the_whole_run(
    browser: WebDriver, one_run: Path
) -> None:
    opened(browser, one_run)
    low, high = lanes_range(browser)
    drag(browser, "lanes-0", 0.25, 0.75)
    wait_for(browser, f"return document.getElementById('lanes-0').layout.xaxis.range[1] < {high - 1}")
    zoomed = lanes_range(browser)
    size = high - low
    assert zoomed == pytest.approx([low + size / 4, high - size / 4], abs=size / 20)
    assert "All of them are drawn." in browser.find_element(By.ID, "view-0").text
    # On a busy machine the second click of a pair can come too late to make a double click of it.
    for _ in range(5):
        ActionChains(browser).double_click(drag_layer(browser)).perform()
        with suppress(TimeoutException):
            wait_for(browser, "return document.getElementById('lanes-0').layout.xaxis.range[1] >= 1200", 3)
            break
    assert lanes_range(browser) == [0, 1200]
    assert complaints(browser) == []


def test_pointing_at_a_bar_and_at_a_tick_shows_their_facts(browser: WebDriver, one_run: Path) -> None:
    opened(browser, one_run)
    point_at(browser, "#lanes-0 .xy .barlayer .trace:nth-child(2) .point path")
    text = hover_text(browser, "lanes-0")
    for fact in ("worker", "booked at tick", "inference", "ms"):
        assert fact in text
    point_at(browser, "#lanes-0 .xy2 .barlayer .point path")
    wait_for(browser, "return document.querySelector('#lanes-0 .hoverlayer')?.textContent.includes('began')")
    assert "episode" in hover_text(browser, "lanes-0")


def point_at(browser: WebDriver, selector: str) -> None:
    bars = browser.find_elements(By.CSS_SELECTOR, selector)
    assert bars, selector
    bar = bars[len(bars) // 2]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", bar)
    ActionChains(browser, duration=20).move_to_element_with_offset(bar, 1, 1).move_by_offset(1, 0).perform()


def test_ten_minutes_are_shown_whole_as_cells_that_count_every_inference(browser: WebDriver, long_run: Path) -> None:
    opened(browser, long_run)
    browser.find_element(By.CSS_SELECTOR, "[data-go=whole]").click()
    wait_for(browser, "return document.getElementById('lanes-0').layout.xaxis.range[1] >= 36000")
    text = browser.find_element(By.ID, "view-0").text
    assert "36,000 ticks that ran" in text
    assert "a cell stands for 60 ticks" in text
    counted = browser.execute_script(
        "return document.getElementById('lanes-0').data[0].hovertext.flat().flatMap("
        "t => [...t.replace(/<b>.*?<\\/b>/, '').matchAll(/ ([0-9,]+)/g)].map(m => +m[1].replaceAll(',', '')))"
        ".reduce((a, b) => a + b, 0)"
    )
    rows = (long_run.parent / "jobs.csv").read_text().splitlines()[1:]
    assert counted == len(rows)
    assert complaints(browser) == []


def test_trouble_is_one_click_away(browser: WebDriver, long_run: Path) -> None:
    opened(browser, long_run)
    before = lanes_range(browser)
    button = browser.find_element(By.CSS_SELECTOR, "[data-go=next]")
    button.click()
    wait_for(browser, f"return document.getElementById('lanes-0').layout.xaxis.range[0] > {before[0] + 0.5}")
    low, high = lanes_range(browser)
    names = browser.execute_script(
        "return document.getElementById('lanes-0').data.filter(t => t.yaxis === 'y2').map(t => t.marker.color)"
    )
    assert high - low == pytest.approx(before[1] - before[0])
    assert "#D55E00" in names  # a missed tick is in view


def test_two_runs_move_together_and_stand_side_by_side(browser: WebDriver, tmp_path: Path) -> None:
    runs = [simulated(tmp_path / "even"), simulated(tmp_path / "lone", stagger="sequential", ticks=900)]
    opened(browser, page_of(*runs))
    assert len(browser.find_elements(By.CSS_SELECTOR, ".lanes")) == 2
    heads = [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "table.numbers thead th")]
    assert [head for head in heads if head] == ["even", "lone", "ratio"]
    drag(browser, "lanes-0", 0.3, 0.6)
    ranges = "[...document.querySelectorAll('.lanes')].map(l => l.layout.xaxis.range.map(Math.round).join())"
    wait_for(browser, f"return new Set({ranges}).size === 1")
    traces = browser.execute_script("return document.getElementById('distribution-2').data.map(t => t.name)")
    assert traces == ["even", "lone"]
    assert complaints(browser) == []
    assert network_requests(browser) == []
