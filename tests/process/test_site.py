"""The site as `make site` builds it, looked at in a browser."""

from __future__ import annotations

import functools
import gzip
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mkdocs", reason="not installed: make site")
pytest.importorskip("selenium", reason="driving a browser needs selenium: pip install selenium")

from selenium.webdriver.remote.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

from tests.support.browser import chromium

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
#: In pixels: a small phone, a laptop.
PHONE, LAPTOP = (360, 740), (1280, 900)
#: The page has loaded, and what it loaded is in the browser's list.
IS_WHOLE = "return document.readyState === 'complete' && performance.getEntriesByType('resource').length > 4"
PATIENCE_S = 150


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Its address, and its folder. Built with every warning an error: links, anchors, names of the API."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert built.returncode == 0, built.stderr
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", folder
        server.shutdown()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    with chromium(tmp_path_factory.mktemp("profile")) as window:
        yield window


def look(browser: WebDriver, size: tuple[int, int], address: str, script: str) -> Any:
    """What a script says of a page on a screen of this size."""
    screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size is PHONE}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    browser.get(address)
    # A browser that has only just started may say that it is there before anything of the page is.
    WebDriverWait(browser, PATIENCE_S).until(lambda it: it.execute_script(IS_WHOLE))
    return browser.execute_script(f"return {script}")


def transferred(file: Path) -> int:
    """Bytes on the way: text goes compressed, as every server of pages does it."""
    content = file.read_bytes()
    return len(content) if file.suffix == ".png" else len(gzip.compress(content))


def test_the_first_page_is_under_a_megabyte_and_nothing_comes_from_elsewhere(
    site: tuple[str, Path], browser: WebDriver
) -> None:
    address, folder = site
    loaded = look(browser, LAPTOP, address, "performance.getEntriesByType('resource').map(one => one.name)")
    assert not [name for name in loaded if not name.startswith(address)]
    # The search's words come when the page is there, whether this list has them yet or not.
    names = {"index.html", "search/search_index.json", *(name.removeprefix(address) for name in loaded)}
    weights = {name: transferred(folder / name) for name in names if (folder / name).is_file()}
    assert len(weights) > 5
    assert sum(weights.values()) < 1e6, weights


def test_every_page_fits_a_phone_and_every_picture_has_a_text(site: tuple[str, Path], browser: WebDriver) -> None:
    address, folder = site
    pages = sorted(str(path.parent.relative_to(folder)) for path in folder.rglob("index.html"))
    assert len(pages) > 40
    script = (
        "[document.documentElement.scrollWidth > innerWidth, "
        "[...document.images].filter(one => one.alt.length < 5).map(one => one.src)]"
    )
    found = {page: look(browser, PHONE, f"{address}{page}/", script) for page in pages}
    assert not {page: said for page, said in found.items() if said != [False, []]}


def test_the_search_finds_a_page_and_a_name_of_the_api(site: tuple[str, Path]) -> None:
    words = (site[1] / "search/search_index.json").read_text()
    assert '"location":"reference/runtime/#rtcore.runtime.runtime.Runtime.sample"' in words
    assert '"location":"install/' in words
