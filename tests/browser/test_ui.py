"""What people see of a small experiment in MLflow's page, in a real browser: `make test-browser`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import ConsoleMessage, Locator, Page, Request, sync_playwright

pytestmark = pytest.mark.browser

EXPERIMENT = """\
title: Is the bias worth anything?
recipe: smoke
baseline: Swin-T
rows:
  Swin-T: {}
  Net1: {parameterization: [query_key]}
  Net7: {preset: net7}
seeds: 2
"""
HARNESS = (sys.executable, "-m", "harness.cli")
OF_MLFLOW = ("/ajax-api/2.0/mlflow/users/current", "ResizeObserver loop completed")
"""What is not ours: a page without accounts asks who one is, and a chart that is resized twice in a frame."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where `harness ui` shows a store of a few runs."""
    folder = tmp_path_factory.mktemp("looked_at")
    (folder / "bias.yaml").write_text(EXPERIMENT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [*HARNESS, "run", "bias.yaml", "--set", "training.epochs=3"]
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    server = subprocess.Popen([*HARNESS, "ui"], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    yield next(line.split()[1] for line in server.stdout if line.startswith("open http"))
    server.send_signal(signal.SIGINT)
    assert server.wait(timeout=30) == 0


@pytest.fixture(scope="module")
def browser_path() -> str:
    """A Chromium: named, or on the path."""
    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    assert found, (
        "no Chromium: install Debian's (apt-get install chromium), or name one: make test-browser CHROMIUM=/path"
    )
    return found


@pytest.fixture
def page(browser_path: str) -> Iterator[Page]:
    """A page that has seen no error of ours when the test ends."""
    errors: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        told = f"{message.text} {message.location}"
        if message.type == "error" and not any(known in told for known in OF_MLFLOW):
            errors.append(told)

    def see(request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # what a page asks for while it is left
            errors.append(f"{request.url}: {request.failure}")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=browser_path, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        opened = browser.new_page(viewport={"width": 1500, "height": 950})
        opened.set_default_timeout(60_000)
        opened.on("console", hear)
        opened.on("requestfailed", see)
        yield opened
        browser.close()
    assert errors == []


def ask(address: str, path: str, body: object) -> dict[str, list[dict[str, dict[str, str]]]]:
    """MLflow's own answer."""
    data, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{address}/api/2.0/mlflow/{path}", data, headers)) as answer:
        return json.load(answer)  # type: ignore[no-any-return]


def find_server(address: str) -> str:
    return address.partition("/#")[0]


def find_parent(address: str) -> str:
    found = ask(find_server(address), "runs/search", {"experiment_ids": ["1"], "filter": "tags.kind = 'invocation'"})
    return found["runs"][0]["info"]["run_id"]


def keep(seen: Page | Locator, name: str) -> None:
    """A picture for the guide, where somebody asks for it: SCREENSHOTS=docs/images."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        seen.screenshot(path=Path(folder) / f"{name}.png")


def close_assistant(page: Page) -> None:
    page.get_by_role("button", name="Close").first.click()


def is_inside(found: Locator, width: int) -> bool:
    """Whether all of an element lies in a window of this width."""
    box = found.bounding_box()
    return box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width


@pytest.mark.parametrize("width", [1366, 1600])
def test_the_printed_address_shows_rows_seeds_status_and_scores(address: str, page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 850})
    page.goto(address)
    for row in ("Net7", "Linear classifier"):
        page.get_by_text(f"Group: {row}", exact=True).first.wait_for()
        for seed in (0, 1):
            page.get_by_text(f"{row} seed {seed}", exact=True).first.wait_for()
    for column in ("row", "seed", "status", "test/top1", "val/top1"):
        header = page.get_by_role("columnheader", name=column, exact=True).first
        header.wait_for()
        assert is_inside(header, width), column
    close_assistant(page)
    keep(page, "runs")


@pytest.mark.parametrize("width", [1366, 1600])
def test_the_first_charts_are_scores_by_row(address: str, page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 850})
    page.goto(f"{address}&compareRunsMode=CHART")
    for row in ("Swin-T", "Net1", "Net7"):
        page.get_by_text(f"Group: {row}", exact=True).wait_for()
    for chart in ("val/top1", "test/top1"):
        title = page.get_by_text(chart, exact=True).first
        title.wait_for()
        assert is_inside(title, width), chart
    close_assistant(page)
    keep(page, "charts")


def test_the_parent_is_described_by_its_table(address: str, page: Page) -> None:
    page.goto(f"{find_server(address)}/#/experiments/1/runs/{find_parent(address)}?workflowType=machine_learning")
    page.get_by_text("Is the bias worth anything?").first.wait_for()
    close_assistant(page)
    page.get_by_text("Show more").first.click()
    for shown in ("Δ to Swin-T", "verdict", "Net7"):
        page.get_by_text(shown).first.wait_for()
    keep(page, "parent")


def test_the_parents_page_shows_table_and_figures(address: str, page: Page) -> None:
    page.goto(f"{find_server(address)}/#/experiments/1/runs/{find_parent(address)}/artifacts/bias.html")
    shown = page.frame_locator("iframe")
    close_assistant(page)
    shown.get_by_role("heading", name="Is the bias worth anything?").wait_for()
    for title in ("Table", "Differences to the baseline, seed by seed"):
        shown.get_by_role("heading", name=title, exact=True).wait_for()
    assert shown.locator("svg").count() >= 3
    assert shown.get_by_role("cell", name="Net7", exact=True).count() >= 1
    keep(page.locator("iframe"), "report")
