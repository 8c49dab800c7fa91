"""The page in headless Chromium: by pointer and keyboard, light and dark, wide and narrow, without a network."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.records.record import Failure, LossPoint, Status
from tests.analysis.test_eval_sets import record, two  # noqa: F401 - a fixture
from tests.factories import failed_record, make_estimate
from tests.report.conftest import Case
from tests.report.html.conftest import OOM, Report
from tests.report.html.test_page import HOSTILE, VISIBLE

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
QUIET = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")  # fmt: skip
CONTROLS = "select, input, button, summary, nav a, section > .scroll"
COLOURS = ("--ink", "--soft", "--accent", "--good", "--bad")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright (extra [browser])")
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"needs a browser: none of {', '.join(BROWSERS)} is installed")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=list(QUIET))
        yield started
        started.close()


class Opened:
    """A page, and what it said and asked for."""

    def __init__(self, browser: Browser, path: Path, **options: Any) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page: Page = browser.new_page(**({"viewport": {"width": 1200, "height": 900}} | options))
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url.partition(":")[0]))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("#front-plot svg")
        self.page.wait_for_selector("#curves-plot svg")
        self.page.wait_for_selector("#memory-plot svg")

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)

    def points(self) -> int:
        return self.page.locator("#front-plot [aria-roledescription='point']").count()


@pytest.fixture
def file(report: Report, tmp_path: Path) -> Path:
    return report.write(tmp_path / "index.html")


@pytest.fixture
def opened(browser: Browser, file: Path) -> Iterator[Opened]:
    """Wide and light; says nothing on the console and asks for nothing, whatever a test does with it."""
    made = Opened(browser, file, color_scheme="light")
    yield made
    assert made.said == []
    assert set(made.asked) <= {"file", "data"}
    assert made.asked.count("file") == 1
    made.page.close()


def test_axes_switch_and_the_front_follows(opened: Opened, report: Report) -> None:
    assert "#Params (%)" in opened.text("#front-plot")
    assert opened.points() == 9  # eight measured, one out of memory at the edge
    assert "Question only 61.67" in opened.text("#front-plot")
    before = opened.text("#front-words")
    opened.page.select_option("#x-axis", label="Trainable (M)")
    opened.page.select_option("#y-axis", value="open")
    opened.page.wait_for_function("document.querySelector('#front-plot').textContent.includes('Trainable (M)')")
    assert opened.text("#front-words") != before
    opened.page.select_option("#x-axis", label="Memory, predicted (GiB)")
    opened.page.wait_for_function("document.querySelector('#front-legend').textContent.includes('hollow')")
    opened.page.check("#with-published")
    opened.page.select_option("#x-axis", label="#Params (%)")
    opened.page.wait_for_function("document.querySelector('#front-legend').textContent.includes('published')")
    assert opened.points() == 9 + 10
    assert report.cells[4].cell_id in opened.text("#front-words")


def test_the_filter_holds_for_plot_table_curves_and_cells(opened: Opened) -> None:
    opened.page.select_option("[data-filter='key:vit']", "F")
    opened.page.wait_for_function(
        "document.querySelectorAll(\"#front-plot [aria-roledescription='point']\").length === 4"
    )
    assert opened.text("#filter-count") == "4 of 10 rows shown."
    assert opened.page.locator("#results tbody tr[data-row]:visible").count() == 4
    assert opened.page.locator("#curves-cells input").count() == 4
    assert opened.page.locator("#cell-list details").count() == 4
    opened.page.fill("[data-filter='text']", "no such cell")
    opened.page.wait_for_function("document.querySelector('#front-words').textContent.startsWith('None of the rows')")
    opened.page.click("#filter-reset")
    opened.page.wait_for_function(
        "document.querySelectorAll(\"#front-plot [aria-roledescription='point']\").length === 9"
    )
    opened.page.select_option("[data-filter='status']", "oom")
    assert opened.text("#filter-count") == "1 of 10 rows shown."


def test_the_table_sorts_by_numbers_and_keeps_what_is_missing_last(opened: Opened) -> None:
    place = opened.page.locator("#results thead th").count() - 5  # before published, deviation, status and cell id
    head = opened.page.locator("#results thead th").nth(place)

    def column() -> list[str]:
        return opened.page.locator(f"#results tbody tr[data-row] > :nth-child({place + 1})").all_inner_texts()

    assert "Global" in head.inner_text()
    assert head.get_attribute("aria-sort") == "none"
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    values = [float(text.split()[0]) for text in column() if text != "—"]
    assert len(values) == 8
    assert values == sorted(values)
    head.locator("button").focus()
    opened.page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert [float(text.split()[0]) for text in column()[:8]] == values[::-1]
    assert column()[8:] == ["—", "—"]
    assert opened.page.locator("#results tbody tr").last.get_attribute("class") == "baseline"


def test_the_keyboard_reaches_everything_and_sees_where_it_is(opened: Opened) -> None:
    wanted = opened.page.evaluate(
        f"[...document.querySelectorAll('{CONTROLS}')].filter(e => e.offsetParent && !e.disabled).length"
    )
    opened.page.evaluate("document.body.focus()")
    reached, invisible, card = 0, [], ""
    for _ in range(600):
        opened.page.keyboard.press("Tab")
        tag, matches, outline, shown = opened.page.evaluate(
            "(() => { const e = document.activeElement, s = getComputedStyle(e), c = document.getElementById('card');"
            f"return [e.tagName, e.matches('{CONTROLS}'), s.outlineStyle + s.outlineWidth,"
            " c.hidden ? '' : c.textContent]; })()"
        )
        if tag == "BODY":
            break
        reached += bool(matches)
        card = card or shown
        if outline.startswith("none") or outline.endswith("none0px"):
            invisible.append(tag)
    assert reached == wanted
    assert invisible == []
    assert "95 % CI" in card


def test_hovering_a_point_shows_all_its_facts_and_its_cell(opened: Opened, report: Report) -> None:
    opened.page.locator("#front-plot [aria-roledescription='point']").nth(5).hover()
    card = opened.text("#card")
    assert report.cells[5].label in card
    assert report.cells[5].cell_id in card
    assert all(fact in card for fact in ("Memory (GiB)", "#Params (%)", "Energy (kJ)", "Seeds", "95 % CI"))


def test_answers_are_filtered_and_shown_with_their_image(opened: Opened, report: Report) -> None:
    assert opened.text("#question-count") == "1 to 12 of 60 examples."
    image = opened.page.locator("#question-list img").first
    assert image.evaluate("image => image.naturalWidth") == 64
    opened.page.select_option("#question-a", label=report.cells[5].label)
    opened.page.select_option("#question-b", label=report.cells[0].label)
    told = opened.text("#question-count")
    right = {i for i in range(60) if i % 17 > 2 and i % 2}
    assert told == f"1 to 12 of {len(right)} examples."
    opened.page.fill("#question-text", "is there a shape 21?")
    assert opened.text("#question-count") == "1 to 1 of 1 example."
    card = opened.text("#question-list")
    assert "✓ right yes" in card
    assert "✗ wrong no" in card
    assert report.cells[5].cell_id in card
    opened.page.fill("#question-text", "")
    opened.page.select_option("#question-a", "")
    opened.page.select_option("#question-b", "")
    opened.page.click("#question-next")
    assert opened.text("#question-count") == "13 to 24 of 60 examples."


def test_a_cells_id_leads_to_everything_about_it(opened: Opened, report: Report) -> None:
    cell = report.cells[4]
    opened.page.select_option("[data-filter='key:vit']", "LoRA")
    opened.page.click(f"#summary a[href='#cell-{cell.cell_id}'] >> nth=0")
    details = opened.page.locator(f"#cell-{cell.cell_id}")
    details.locator("table").wait_for()
    assert details.get_attribute("open") is not None
    assert "memory.train.allocated_peak_bytes" in details.inner_text()
    assert "last line" in opened.text("#failures")
    assert report.cells[OOM].cell_id in opened.text("#failures")


def test_curves_and_memory_are_chosen(opened: Opened) -> None:
    lines = "#curves-plot .mark-line path"
    assert opened.page.locator(lines).count() == 8
    opened.page.locator("#curves-cells input").first.uncheck()
    opened.page.wait_for_function(f"document.querySelectorAll('{lines}').length === 7")
    opened.page.click("#curves-none")
    opened.page.wait_for_function("document.querySelector('#curves-plot').textContent === 'Choose cells below.'")
    assert "measured" in opened.text("#memory-legend")
    before = opened.text("#memory-table")
    opened.page.select_option("#phase", "eval")
    opened.page.wait_for_function("before => document.querySelector('#memory-table').innerText !== before", arg=before)


def test_curves_are_read_by_pointer_and_keyboard(opened: Opened, report: Report) -> None:
    rows = opened.page.locator("#curves-table tbody tr")

    def losses() -> list[str]:
        return [row.locator("td").first.inner_text() for row in rows.all()]

    assert rows.count() == 8
    assert opened.text("#curves-at") == "200"
    assert losses() == ["0.1500"] * 8
    opened.page.hover("#curves-plot", position={"x": 70, "y": 100})
    assert opened.text("#curves-at") == "10"
    assert losses() == ["3.0000"] * 8
    assert report.cells[3].cell_id in opened.text("#curves-table")
    rule = "#curves-plot .mark-rule.role-mark line"
    before = opened.page.locator(rule).get_attribute("transform")
    opened.page.focus("#curves-step")
    opened.page.keyboard.press("ArrowRight")
    assert opened.text("#curves-at") == "20"
    assert losses() == ["1.5000"] * 8
    moved = f"before => document.querySelector('{rule}').getAttribute('transform') !== before"
    opened.page.wait_for_function(moved, arg=before)
    assert opened.page.get_attribute("#curves-step", "aria-valuetext") == "step 20"
    opened.page.locator("#curves-cells input").first.uncheck()
    opened.page.wait_for_function("document.querySelectorAll('#curves-table tbody tr').length === 7")
    assert opened.text("#curves-at") == "20"  # stays where it was read


def test_memory_is_split_by_phase_and_kind_in_numbers(opened: Opened, report: Report) -> None:
    def row() -> dict[str, str]:
        heads = opened.page.locator("#memory-table thead th").all_inner_texts()
        cells = opened.page.locator("#memory-table tbody tr").first.locator("th, td").all_inner_texts()
        return dict(zip(heads, cells, strict=True))

    train = row()
    assert (train["weights"], train["activations"]) == ("0.38", "1.13")
    assert (train["allocated, predicted"], train["allocated, measured"]) == ("1.50", "2.00")
    assert (train["process, predicted"], train["process, measured"]) == ("2.25", "4.00")
    assert train["Cell id"] == report.cells[0].cell_id
    opened.page.select_option("#phase", "eval")
    opened.page.wait_for_function("document.querySelector('#memory-table td').innerText === '0.25'")
    assert row()["allocated, predicted"] == "1.00"


def test_published_values_and_deviations_stand_in_the_table_or_not(opened: Opened) -> None:
    heads = opened.page.locator("#results thead th:visible")
    assert "#Params (%), published" in heads.all_text_contents()
    row = opened.page.locator("#results tbody tr").first.locator("td")
    assert {"0.163", "20.34†"} <= set(row.all_text_contents())
    opened.page.uncheck("#published-columns")
    assert not [text for text in heads.all_text_contents() if "published" in text or "deviation" in text]


def test_environment_and_settings_of_a_cell_are_there(opened: Opened, report: Report) -> None:
    opened.page.click("#common summary")
    assert "environment.device" in opened.text("#common")
    assert "NVIDIA A100" in opened.text("#common")
    own = opened.page.locator(f"#cell-{report.cells[2].cell_id}")
    own.locator("summary").click()
    own.locator("table").wait_for()
    assert "params.trainable" in own.inner_text()


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_schemes_can_be_read(browser: Browser, file: Path, scheme: str) -> None:
    opened = Opened(browser, file, color_scheme=scheme)

    def value(name: str) -> str:
        return str(
            opened.page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('{name}').trim()")
        )

    assert (luminance(value("--page")) > 0.5) == (scheme == "light")
    pairs = [(ink, page) for ink in COLOURS for page in ("--page", "--panel", "--bar")] + [("--warn", "--warn-page")]
    for ink, page in pairs:
        high, low = sorted((luminance(value(ink)), luminance(value(page))), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, page)
    fills = opened.page.eval_on_selector_all(
        "#front-plot text", "texts => texts.map(text => text.getAttribute('fill'))"
    )
    allowed = {value(name) for name in ("--ink", "--soft", "--bad")}
    assert set(fills) <= allowed
    assert opened.said == []
    opened.page.close()


def test_a_phone_never_scrolls_sideways(browser: Browser, file: Path) -> None:
    opened = Opened(browser, file, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 360
    opened.page.locator("#front-plot [aria-roledescription='point']").nth(2).tap()
    assert opened.page.locator("#card").is_visible()
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 360
    opened.page.locator("#curves-plot").tap(position={"x": 70, "y": 100})
    assert opened.text("#curves-at") == "10"
    for table in ("#results", "#memory-table", "#curves-table"):
        wide = "head => { head.textContent = 'embedding=encoder_decoder'; return head.scrollWidth > head.clientWidth; }"
        assert not opened.page.locator(f"{table} tbody th").first.evaluate(wide), table
    small = opened.page.eval_on_selector_all(
        "select, button:not(thead button), input[type=search]",
        "all => all.filter(e => e.offsetParent && e.getBoundingClientRect().height < 32).map(e => e.id || e.outerHTML)",
    )
    assert small == []
    assert opened.said == []
    opened.page.close()


def test_print_and_reduced_motion(opened: Opened) -> None:
    opened.page.emulate_media(reduced_motion="reduce")
    assert opened.page.evaluate("getComputedStyle(document.documentElement).scrollBehavior") == "auto"
    opened.page.emulate_media(media="print", color_scheme="dark")
    assert not opened.page.is_visible("#filters")
    assert opened.page.is_visible("#results")
    assert (
        opened.page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--page').trim()") == "#fff"
    )


def test_hostile_texts_stay_texts(browser: Browser, report: Report, tmp_path: Path) -> None:
    report.cells = [cell.model_copy(update={"label": f"{HOSTILE} {i}"}) for i, cell in enumerate(report.cells)]
    error = Failure(type=HOSTILE, message=HOSTILE, phase="train", log_tail=HOSTILE)
    failed = failed_record(report.cells[1], Status.ERROR, "train").model_copy(update={"error": error})
    report.records[report.cells[1].cell_id] = failed
    opened = Opened(browser, report.write(tmp_path / "hostile.html"))
    for details in opened.page.locator("#cells details summary").all():
        details.click()
    opened.page.locator("#front-plot [aria-roledescription='point']").first.hover()
    assert VISIBLE in opened.text("#card")
    assert VISIBLE in opened.text("#failures")
    assert opened.page.evaluate("window.pwned") is None
    assert opened.page.locator("img[src='x']").count() == 0
    assert opened.said == []
    opened.page.close()


def test_each_task_has_a_front_and_a_floor_of_its_own(browser: Browser, two: Case, tmp_path: Path) -> None:  # noqa: F811
    """The worst image model beats every language model, which keep a front all the same."""
    for place, cell in enumerate(two.cells):
        two.put(place, record(cell, correct=90 + 60 * (place > 2) + 10 * place, params=place % 3 + 1))
        estimate, curve = make_estimate(), [LossPoint(step=9, loss=1.0, lr=1e-3)]
        two.put(place, two.records[cell.cell_id].model_copy(update={"estimate": estimate, "loss_curve": curve}))
    made = Report(two.spec, two.cells, tmp_path, two.records)
    opened = Opened(browser, made.write(tmp_path / "two.html"))
    opened.page.select_option("#x-axis", value="params")
    words = opened.text("#front-words").partition("Dominated, ")[0]
    llama, vit = words.removeprefix("On the front of llama: ").split("On the front of vit: ")
    assert two.cells[0].cell_id in llama
    assert two.cells[3].cell_id in vit
    floors = opened.text("#front-plot")
    assert "Most common answer, llama 33.33" in floors
    assert "Majority class, vit 10.16" in floors
    opened.page.select_option("[data-filter='key:variant']", "vit")
    opened.page.wait_for_function("!document.querySelector('#front-words').textContent.includes('llama')")
    opened.page.click("#filter-reset")
    methods = opened.page.locator("[data-filter='method'] option").all_inner_texts()
    assert methods[0] == "all"
    opened.page.select_option("[data-filter='method']", methods[1])
    expected = sum(methods[1] in cell.parts.values() for cell in two.cells)
    assert opened.text("#filter-count") == f"{expected} of 6 rows shown."
    assert opened.said == []
    opened.page.close()


def test_a_page_without_records_works(browser: Browser, report: Report, tmp_path: Path) -> None:
    report.records = {}
    said: list[str] = []
    page = browser.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto(report.write(tmp_path / "empty.html").as_uri())
    page.wait_for_function("document.querySelector('#filter-count').textContent !== ''")
    assert re.search("0 of 10 cells ended well", page.inner_text("#summary"))
    assert "Nothing was measured" in page.inner_text("#front-words")
    assert said == []
    page.close()
