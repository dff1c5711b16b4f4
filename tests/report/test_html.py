"""The HTML report, opened in a browser."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

from orchestrator.report.data import AtomReport, EdgeReport, MethodReport, Report, SegmentReport
from orchestrator.report.html import render_html
from tests.harness.browser import browser
from tests.report.made_up import made_up_report


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


class Page:
    """A report in the browser."""

    def __init__(self, driver: Any, file: Path) -> None:
        self.driver = driver
        driver.get_log("browser")  # what pages before left there
        driver.get(file.as_uri())

    def all(self, selector: str) -> list[Any]:
        found: list[Any] = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return found

    def one(self, selector: str) -> Any:
        (found,) = self.all(selector)
        return found

    def column(self, table: str, number: int) -> list[str]:
        """The texts of a column (from 1)."""
        return [cell.text for cell in self.all(f"#{table} tbody td:nth-child({number})")]

    def sort(self, table: str, title: str) -> str:
        """Clicks a column's head; returns the direction that it then shows."""
        (head,) = [th for th in self.all(f"#{table} th") if th.text.split()[0] == title]
        head.find_element(By.TAG_NAME, "button").click()
        direction: str = head.get_attribute("aria-sort")
        return direction

    def pixels(self) -> set[str]:
        """The colours of a sample of the graph."""
        found: list[str] = self.driver.execute_script(
            """const canvas = document.getElementById("canvas");
            const context = canvas.getContext("2d");
            const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
            const seen = new Set();
            for (let i = 0; i < data.length; i += 4) seen.add(data.slice(i, i + 3).join());
            return [...seen];"""
        )
        return set(found)

    def wait_until_drawn(self) -> None:
        """Waits until what changed is drawn."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(done));"
        )


@pytest.fixture
def page(chromium: Any, tmp_path: Path) -> Page:
    return opened(chromium, tmp_path, made_up_report())


def opened(driver: Any, folder: Path, report: Report) -> Page:
    file = folder / "report.html"
    file.write_text(render_html(report, "model.pte"), encoding="utf-8")
    return Page(driver, file)


def test_it_loads_without_errors_and_without_network(page: Page) -> None:
    assert page.driver.get_log("browser") == []
    assert page.driver.title == "model.pte - orchestrator report"
    assert page.one("html").get_attribute("data-ready") == "true"
    requests = page.driver.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert requests == []
    assert not re.search(r"(src|href)\s*=|https?://|@import|url\(", render_html(made_up_report()))


def test_it_shows_what_the_report_says(page: Page) -> None:
    text = page.one("#panels").text
    for part in ("7.28 ms", "predicted 7.13 ms", "xnnpack alone", "+69.7 %", "320 x", "-1.90 ms"):
        assert part in text
    assert page.column("segments", 2) == ["ggml", "xnnpack", "portable"]
    assert "features.0" in page.column("ops", 3)
    assert "Missing: aten.linalg_inv_ex.default" in text


@pytest.mark.parametrize(
    ("size", "line"),
    [
        (12_400_000, "12.4 MB of delegates' own memory, beside the file"),
        (0, "0 B of delegates' own memory, beside the file"),
        (None, None),
    ],
)
def test_it_shows_the_memory_that_delegates_hold(
    size: int | None, line: str | None, chromium: Any, tmp_path: Path
) -> None:
    report = made_up_report()
    method = report.methods[0]
    assert method.plan is not None
    plan = replace(method.plan, private_bytes=size)
    changed = replace(report, methods=(replace(method, plan=plan), *report.methods[1:]))
    lines = opened(chromium, tmp_path, changed).one("#summary").text.splitlines()
    assert [text for text in lines if "own memory" in text] == ([] if line is None else [line])


def test_the_graph_is_drawn_in_the_backends_colours(page: Page) -> None:
    page.wait_until_drawn()
    assert {"47,111,222", "201,122,0", "122,130,140"} <= page.pixels()


def test_search_narrows_the_table_and_finds_the_node(page: Page) -> None:
    search = page.one("#search")
    page.one("body").send_keys("/")
    assert page.driver.switch_to.active_element == search
    search.send_keys("TOPK")
    assert page.column("ops", 2) == ["topk"]
    assert page.one("#found").text == "1 found"
    search.send_keys(Keys.ENTER)
    assert page.one("#detail h3").text == "topk"
    assert "add a rule for it" in page.one("#detail").text
    search.send_keys(Keys.ESCAPE)
    assert len(page.column("ops", 2)) == 4


def test_search_steps_through_matches_both_ways(page: Page) -> None:
    search = page.one("#search")
    search.send_keys("hardtanh")
    titles = []
    for keys in (Keys.ENTER, Keys.ENTER, Keys.ENTER, Keys.SHIFT + Keys.ENTER):
        search.send_keys(keys)
        titles.append(page.one("#detail h3").text)
    first, second = "convolution + hardtanh", "hardtanh"
    assert titles == [first, second, first, second]


def test_tables_sort_both_ways_and_keep_gaps_last(page: Page) -> None:
    assert page.sort("segments", "Predicted") == "descending"
    assert page.column("segments", 1) == ["0", "1", "2"]
    assert page.sort("segments", "Predicted") == "ascending"
    assert page.column("segments", 1) == ["2", "1", "0"]
    for _ in range(2):
        page.sort("segments", "Measured")
        assert page.column("segments", 1)[-1] == "2"  # not measured
    assert page.sort("ops", "Op") == "ascending"
    assert page.column("ops", 2) == sorted(page.column("ops", 2), key=str.lower)


def test_a_segment_of_the_timeline_filters_the_ops(page: Page) -> None:
    bars = page.all(".bars button")
    assert len(bars) == 6  # three segments, measured and predicted
    bars[1].click()
    assert page.column("ops", 2) == ["mean.dim"]
    assert page.one("#ops-count").text == "1 of 4, segment 1"
    page.one("#clear").click()
    assert len(page.column("ops", 2)) == 4


def test_backends_can_be_filtered(page: Page) -> None:
    page.one("#filters input[value=ggml]").click()
    assert set(page.column("ops", 4)) == {"ggml"}


def test_the_keyboard_reaches_everything(page: Page) -> None:
    canvas = page.one("#canvas")
    canvas.send_keys(Keys.ARROW_DOWN)
    assert page.one("#detail h3").text == "convolution + hardtanh"
    canvas.send_keys(Keys.ARROW_DOWN)
    assert page.one("#detail h3").text == "hardtanh"
    assert page.one("#ops tr[aria-selected=true] td:first-child").text == "1"
    canvas.send_keys("+", "-", "0", Keys.ESCAPE)
    assert not page.one("#detail").is_displayed()
    row = page.all("#ops tbody tr")[0]
    row.send_keys(Keys.ARROW_DOWN)
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert page.one("#detail h3").text == "hardtanh"
    focusable = page.all("button, input, select, canvas, tr[tabindex]")
    assert all(item.get_attribute("tabindex") != "-1" for item in focusable)
    assert page.driver.get_log("browser") == []


def test_light_and_dark(page: Page) -> None:
    def background() -> str:
        found: str = page.one("body").value_of_css_property("background-color")
        return found

    light = background()
    page.one("#theme").click()
    page.wait_until_drawn()
    assert background() != light
    assert "20,24,29" in page.pixels()


def test_methods_can_be_chosen(page: Page) -> None:
    page.one("#method option[value='1']").click()
    assert "Method nothing" in page.one("#summary").text
    assert page.column("ops", 2) == []
    page.wait_until_drawn()
    assert page.driver.get_log("browser") == []


def test_a_report_that_contradicts_itself_still_opens(chromium: Any, tmp_path: Path) -> None:
    """A file may hold anything: edges in a circle, or to atoms that are not there."""
    report = made_up_report()
    edges = (EdgeReport("t", "act", ("conv", "nowhere")), EdgeReport("u", "nowhere", ("act",)))
    method = replace(report.methods[0], edges=(*report.methods[0].edges, *edges))
    page = opened(chromium, tmp_path, replace(report, methods=(method,)))
    page.all("#ops tbody tr")[0].click()
    page.wait_until_drawn()
    assert page.driver.get_log("browser") == []


def test_nothing_in_a_report_is_taken_for_html(chromium: Any, tmp_path: Path) -> None:
    hostile = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>@@DATA@@"
    report = made_up_report()
    method = report.methods[0]
    atoms = (replace(method.atoms[0], id=hostile, module=hostile, ops=(hostile,)),)
    edges = (EdgeReport(hostile, hostile, (hostile,)),)
    method = replace(method, name=hostile, atoms=atoms, edges=edges)
    page = opened(chromium, tmp_path, replace(report, methods=(method,), target=hostile))
    page.all("#ops tbody tr")[0].click()
    assert page.driver.title == "model.pte - orchestrator report"
    assert page.one("#detail h3").text == hostile
    assert not page.all("img")
    assert page.driver.get_log("browser") == []


def test_a_graph_of_1500_nodes_opens_and_answers(chromium: Any, tmp_path: Path) -> None:
    rng = random.Random(0)
    names = [f"n{index}" for index in range(1500)]
    atoms = tuple(
        AtomReport(
            name, (name,), ("aten.add.Tensor",), rng.choice(["ggml", "xnnpack"]), index // 100
        )
        for index, name in enumerate(names)
    )
    edges = tuple(
        EdgeReport(name, name, tuple({names[index + 1], rng.choice(names[index + 1 :])}))
        for index, name in enumerate(names[:-1])
    )
    segments = tuple(
        SegmentReport("ggml", tuple(names[i : i + 100]), {}) for i in range(0, 1500, 100)
    )
    report = Report(("ggml", "xnnpack"), (MethodReport("m", segments, atoms=atoms, edges=edges),))
    page = opened(chromium, tmp_path, report)
    # A frame never has to wait for all rows of the table.
    first, last = page.driver.execute_script(
        """const search = document.getElementById("search");
        const rows = () => document.querySelectorAll("#ops tbody tr").length;
        const counts = ["n1", ""].map((text) => {
          search.value = text;
          search.dispatchEvent(new Event("input"));
          return rows();
        });
        return counts;"""
    )
    assert 0 < first <= 100
    assert 0 < last <= 100
    WebDriverWait(page.driver, 60).until(lambda _: len(page.all("#ops tbody tr")) == 1500)
    page.one("#search").send_keys("n1499", Keys.ENTER)
    assert page.column("ops", 1) == ["1499"]
    page.wait_until_drawn()
    assert "31,95,208" in page.pixels()  # the frame around what was found
    page.one("#zoom-fit").click()
    page.wait_until_drawn()
    assert page.driver.get_log("browser") == []
