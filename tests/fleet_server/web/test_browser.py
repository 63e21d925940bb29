"""Pages in a real browser: the chart is drawn, nothing is blocked or thrown, text is readable, nothing overflows."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from sqlalchemy.orm import Session

from fleet_server import db
from fleet_server.cli.serve import listen, url_of
from fleet_server.errors import Unavailable
from fleet_server.models import CalibrationKind, StandardKind, observation_id
from fleet_server.services import (
    calibrating,
    campaigning,
    changing,
    city_states,
    grouping,
    guiding,
    layering,
    ordering,
    revising,
    standards,
)
from fleet_server.services.calibrating import NewCalibration, NewPoint
from fleet_server.services.campaign_targets import Target
from fleet_server.services.campaigning import Plan
from fleet_server.services.selecting import Selection
from fleet_server.services.standards import NewStandard
from fleet_server.web import assets, navigation
from tests.fleet_server import small_world
from tests.fleet_server.services.campaign_fleet import add_release
from tests.fleet_server.world_fixtures import World

pytestmark = pytest.mark.needs_chromium

_PATIENCE_S = 20
_PAGES = (
    "/",
    "/fleet/",
    "/fleet/nodes/n-000002",
    "/fleet/quarantine",
    "/fleet/sites",
    "/fleet/sites/1",
    "/fleet/sites/new",
    "/field/nodes/n-000001",
    "/field/nodes/n-000001/swap",
    "/fleet/packs/1",
    "/fleet/account",
    "/fleet/people",
    "/fleet/people/1",
    "/fleet/audit",
    "/reset",
    "/fleet/configuration",
    "/fleet/configuration/changes/1",
    "/fleet/groups",
    "/fleet/groups/1",
    "/fleet/drift",
    "/fleet/commands",
    "/fleet/campaigns",
    "/fleet/campaigns/new",
    "/fleet/campaigns/1",
    "/fleet/releases",
    "/fleet/releases/1",
    "/fleet/releases/nodes",
    "/fleet/alerts",
    "/fleet/alerts/settings",
    "/fleet/sites/import",
    "/fleet/credentials",
    "/fleet/tokens",
    "/field/",
    "/field/work",
    "/field/work/new",
    "/field/nodes/n-000001/replace",
    "/fleet/calibrations",
    "/fleet/calibrations/probes",
    "/fleet/calibrations/probes/n-000002/o2",
    "/fleet/corrections/of/n-000002/o2",
    "/fleet/calibrations/standards",
    "/fleet/calibrations/new?serial=n-000002/o2",
    "/fleet/calibrations/21",
    "/fleet/calibrations/22",
    "/fleet/revisions",
    "/fleet/revisions/1",
    "/fleet/revisions/2",
    f"/fleet/observations/{observation_id(1, small_world.NOW)}",
    f"/fleet/observations/{observation_id(1, small_world.NOW)}/uncertainty",
    "/field/nodes/n-000002/calibrate",
    "/field/calibrations/21",
    "/city/trees",
    "/city/waters",
    "/city/trees?view=print",
    "/api/docs",
)

# Pixels of a canvas that are painted, and those in the band's translucent blue.
_PAINTED = """
const canvas = arguments[0], context = canvas.getContext("2d");
const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
let painted = 0, band = 0;
for (let i = 0; i < pixels.length; i += 4) {
  if (pixels[i + 3] > 0) painted++;
  if (pixels[i + 3] > 20 && pixels[i + 3] < 80 && pixels[i + 2] > pixels[i] + 60) band++;
}
return [painted, band];
"""

# Text whose contrast with the ground behind it is less than WCAG's 4.5 : 1 (3 : 1 for large text).
_FAINT = """
const part = (c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
const light = (c) => 0.2126 * part(c[0]) + 0.7152 * part(c[1]) + 0.0722 * part(c[2]);
const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
const ground = (e) => {
  for (; e; e = e.parentElement) {
    const c = numbers(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] === 1) return c;
  }
  return [255, 255, 255];
};
const faint = [];
for (const e of document.body.querySelectorAll("*")) {
  const hasText = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!hasText || !e.getClientRects().length) continue;
  const style = getComputedStyle(e), size = parseFloat(style.fontSize);
  const [a, b] = [light(numbers(style.color)), light(ground(e))].sort((x, y) => y - x);
  const isLarge = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
  if ((a + 0.05) / (b + 0.05) < (isLarge ? 3 : 4.5)) faint.push(e.textContent.trim().slice(0, 40));
}
return faint;
"""


# Cells of a stacked table whose content is torn into several boxes beside each other: they are grids of label and content.
_TORN = """
const parts = (e) => [...e.childNodes].filter((n) => n.nodeType === 1 || n.textContent.trim());
return [...document.querySelectorAll("table.stack td[data-label]")]
  .filter((e) => parts(e).length > 1 && getComputedStyle(e).display === "grid")
  .map((e) => e.textContent.trim().slice(0, 40));
"""

# Text that leaves its card to the right.
_OUTSIDE = """
return [...document.querySelectorAll(".card *")]
  .filter((e) => e.getBoundingClientRect().right > e.closest(".card").getBoundingClientRect().right - 8)
  .map((e) => e.textContent.trim().slice(0, 40));
"""


# What somebody who hears the page, or has only a keyboard, would miss (WCAG 2.1: 1.3.1, 2.1.1, 2.4.4, 4.1.1, 4.1.2).
_MISSED = """
const missed = [], all = (selector) => [...document.querySelectorAll(selector)];
const say = (what) => (e) => missed.push(`${what}: ${e.outerHTML.slice(0, 90)}`);
const text = (e) => (e.getAttribute("aria-label") || e.textContent || "").trim() || e.querySelector("img[alt]:not([alt=''])");
all("input:not([type=hidden], [hidden]), select, textarea:not([hidden])")
  .filter((e) => !e.labels.length && !e.hasAttribute("aria-label")).forEach(say("no label"));
all("button, a, summary").filter((e) => !text(e)).forEach(say("says nothing"));
all("th").filter((e) => !e.closest(".uplot") && !(e.scope && text(e))).forEach(say("heads nothing"));
all("img:not([alt])").forEach(say("no words for a picture"));
all(".scroll:not([tabindex='0'])").forEach(say("not scrolled by keys"));
all(".scroll:not([aria-label])").forEach(say("no name"));
const ids = all("[id]").map((e) => e.id);
all("[id]").filter((e) => ids.filter((id) => id === e.id).length > 1).forEach(say("id twice"));
all("a[href^='#']").filter((e) => !document.getElementById(e.getAttribute("href").slice(1))).forEach(say("leads nowhere"));
let level = 0;
for (const e of all("h1, h2, h3, h4")) {
  if (+e.tagName[1] > level + 1) say("heading jumps")(e);
  level = +e.tagName[1];
}
return missed;
"""


@pytest.fixture(scope="module")
def address(sqlite_world: World) -> Iterator[str]:
    assets.ensure_assets()
    with sqlite_world.sessions() as session:
        _want_something(session)
        city_states.evaluate_due(session, now=small_world.NOW)
    server = listen(sqlite_world.app(), "127.0.0.1", 0, threads=4)
    serving = threading.Thread(target=server.serve)
    serving.start()
    yield url_of(server)
    server.stop()
    serving.join()


def _want_something(session: Session) -> None:
    """A group of all nodes, a change of it and a command to it, each with something to show."""
    everybody = Selection(node_ids=tuple(plan.node_id for plan in small_world.NODES))
    made = grouping.create_group(session, "Innenstadt " + "west" * 12, now=small_world.NOW)
    grouping.add_members(session, made.id, everybody, now=small_world.NOW)
    layer, wish = layering.group_layer(made), {"server_name": "s" * 64, "mute_mv": 3300}
    changing.propose_change(session, layer, wish, now=small_world.NOW)
    ordering.order_for_many(session, everybody, "self_test", {}, now=small_world.NOW)
    _calibrate_something(session)
    _correct_something(session)
    release = add_release(session, "0.8.0-candidate.of.today")
    campaigning.create_campaign(
        session, release.id, Target(label="tree"), now=small_world.NOW, plan=Plan(canaries=1)
    )


def _calibrate_something(session: Session) -> None:
    """A standard, and a guided draft with a point that nobody would trust."""
    lot = "L" * 40
    air = NewStandard(StandardKind.SOLUTION, "dissolved_oxygen", "Nullösung", 0.03, ((20, 0),), lot)
    standards.add_standard(session, air, now=small_world.NOW)
    begun = guiding.begin_guided(session, "n-000002", "do", now=small_world.NOW)
    number = begun.calibration.id
    assert number == 21  # as the addresses above have it
    for step, indicated, reference in (("saturated", 8.123456, 9.0), ("zero", 3.0, 0.0)):
        point = NewPoint(indicated, reference, 0.05, step=step, temperature_c=20.0)
        calibrating.put_point(session, number, point, now=small_world.NOW)


def _correct_something(session: Session) -> None:
    """A draft whose approval would change values, and corrections: one that is done, one that is held up."""
    draft = NewCalibration(
        serial="n-000001/d30",
        property="soil_temperature",
        kind=CalibrationKind.OFFSET,
        performed_by="tina",
        performed_at=small_world.NOW - timedelta(hours=3),
        points=(NewPoint(0.5, 0.0, 0.02),),
    )
    made = calibrating.draft_calibration(session, draft, now=small_world.NOW)
    assert made.calibration.id == 22  # as the addresses above have it
    for reason in ("a" * 60, "The software computes differently."):
        with db.writing(session):
            revising.order_for_streams(
                session,
                [1, 2],
                kind="software",
                reason=reason,
                author="x" * 40,
                now=small_world.NOW,
            )
        if reason[0] == "a":
            while revising.advance(
                session, now=small_world.NOW, make_backup=lambda: "/backups/" + "b" * 60
            ):
                pass
    with pytest.raises(Unavailable):
        revising.advance(session, now=small_world.NOW, make_backup=_no_room)


def _no_room() -> str:
    raise Unavailable("There is no room for the backup.")


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[webdriver.Chrome]:
    """Chromium, logged in."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("Chromium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    # What is judged is a page at rest, not a colour on its way to another.
    still = "--force-prefers-reduced-motion"
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--lang=en-GB", still):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    opened.get(f"{address}/login")
    opened.find_element(By.ID, "name").send_keys(small_world.USER)
    opened.find_element(By.ID, "password").send_keys(small_world.PASSWORD)
    opened.find_element(By.CSS_SELECTOR, "main button").click()
    WebDriverWait(opened, _PATIENCE_S).until(lambda page: page.current_url.endswith("/fleet/"))
    yield opened
    opened.quit()


def test_node_page_draws_every_channel_with_its_uncertainty_band(
    browser: webdriver.Chrome, address: str
) -> None:
    browser.get_log("browser")
    browser.set_window_size(1200, 900)
    browser.get(f"{address}/fleet/nodes/n-000002?range=24h")
    WebDriverWait(browser, _PATIENCE_S).until(
        lambda page: len(page.find_elements(By.CSS_SELECTOR, ".chart.drawn canvas")) == 4
    )
    for canvas in browser.find_elements(By.CSS_SELECTOR, ".chart.drawn canvas"):
        painted, band = browser.execute_script(_PAINTED, canvas)
        assert painted > 1000
        assert band > 200
    assert browser.get_log("browser") == []


@pytest.mark.parametrize("path", _PAGES)
def test_page_is_clean_readable_and_fits_320_pixels(
    browser: webdriver.Chrome, address: str, path: str
) -> None:
    browser.get_log("browser")
    # A window of Chromium is never narrower than 500 px; the device metrics are what a phone's are.
    metrics = {"width": 320, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(address + path)
    width = browser.execute_script("return document.documentElement.scrollWidth")
    faint = browser.execute_script(_FAINT)
    torn = browser.execute_script(_TORN)
    missed = browser.execute_script(_MISSED)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert width <= 320
    assert faint == []
    assert torn == []
    assert missed == []
    assert browser.get_log("browser") == []


@pytest.mark.parametrize(("width", "path"), [(320, "/"), (1280, "/"), (320, "/fleet/sites/2")])
def test_german_words_are_longer_and_stay_within_their_cards(
    browser: webdriver.Chrome, address: str, width: int, path: str
) -> None:
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {"Accept-Language": "de"}})
    browser.get(address + path)
    language, outside = browser.execute_script(
        f"return [document.documentElement.lang, (() => {{{_OUTSIDE}}})()]"
    )
    browser.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {}})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert (language, outside) == ("de", [])


def test_keyboard_reaches_the_skip_link_first(browser: webdriver.Chrome, address: str) -> None:
    browser.get(f"{address}/")
    browser.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    focused = browser.switch_to.active_element
    assert focused.get_attribute("href").endswith("#content")
    assert focused.is_displayed()


def test_link_with_a_code_fills_the_form_and_leaves_no_code_in_the_address(
    browser: webdriver.Chrome, address: str
) -> None:
    browser.get(f"{address}/reset#one-time-code")
    field = browser.find_element(By.ID, "code")
    assert field.get_attribute("value") == "one-time-code"
    assert browser.current_url == f"{address}/reset"


@pytest.mark.parametrize(("width", "most_px"), [(1280, 64), (1024, 64), (390, 104), (320, 104)])
def test_head_is_one_line_of_links_in_german_and_the_menu_holds_the_others(
    browser: webdriver.Chrome, address: str, width: int, most_px: int
) -> None:
    """On a phone the city's name has a line of its own; the menu is a `details`, and the script only closes it."""
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Network.enable", {})
    browser.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {"Accept-Language": "de"}})
    browser.get(f"{address}/fleet/drift")
    browser.execute_cdp_cmd("Network.setExtraHTTPHeaders", {"headers": {}})
    height_px = browser.execute_script("return document.querySelector('header.top').offsetHeight")
    menu = browser.find_element(By.CSS_SELECTOR, ".menu")
    menu.find_element(By.TAG_NAME, "summary").send_keys(Keys.ENTER)
    seen = [link.text for link in browser.find_elements(By.CSS_SELECTOR, ".top nav a") if link.text]
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    menu.find_element(By.TAG_NAME, "summary").send_keys(Keys.ESCAPE)
    is_open = menu.get_attribute("open")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert height_px <= most_px
    assert len(seen) == len(set(seen)) == sum(len(group.links) for group in navigation.GROUPS)
    assert wide <= width
    assert is_open is None


def test_campaign_shows_what_becomes_of_it_without_being_loaded_again(
    browser: webdriver.Chrome, address: str, sqlite_world: World
) -> None:
    browser.get(f"{address}/fleet/campaigns/1")
    browser.execute_script("window.isTheSamePage = true")
    assert "draft" in browser.find_element(By.ID, "live").text
    with sqlite_world.sessions() as session:
        campaigning.start_campaign(session, 1, now=small_world.NOW)
    WebDriverWait(browser, _PATIENCE_S).until(
        lambda page: "awaits approval" in page.find_element(By.ID, "live").text
    )
    assert browser.execute_script("return window.isTheSamePage") is True
