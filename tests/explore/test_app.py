"""The page in a real browser, headless Chromium: every control changes what is shown."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from PIL import Image

pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="wants Chromium"),
]
BEGAN = [sys.executable, "-m", "began_cli"]
ROOT = Path(__file__).parents[2]
WAIT = 30_000  # ms


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of `began explore` over two runs, the newer with an autoencoder."""
    folder = tmp_path_factory.mktemp("served")
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for loss, model in (("bgan", "dcgan"), ("began_paper", "began")):
        line = ["train", f"loss={loss}", f"model={model}", "dataset=mnist", "steps=200", *TINY]
        done = subprocess.run([*BEGAN, *line, f"out=outputs/{loss}"], cwd=folder, env=env)
        assert done.returncode == 0
    process = subprocess.Popen(
        [*BEGAN, "explore"], cwd=folder, env=env, stdout=subprocess.PIPE, text=True
    )
    yield process.stdout.readline().split()[0]
    process.terminate()
    process.wait()


@pytest.fixture(scope="module")
def page(served):
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(WAIT)
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(served)
        page.wait_for_selector("#seeds img")
        yield page
        browser.close()


def sources(page, where: str) -> list[str]:
    return page.eval_on_selector_all(f"{where} img", "all => all.map(image => image.src)")


class Changes:
    """Waits until the block's images differ from those before it."""

    def __init__(self, page, where: str) -> None:
        self.page, self.where = page, where

    def __enter__(self) -> None:
        self.before = sources(self.page, self.where)

    def __exit__(self, kind, *exception) -> None:
        if kind is not None:
            return
        end = time.monotonic() + WAIT / 1000
        while sources(self.page, self.where) == self.before:
            assert time.monotonic() < end, f"{self.where} stays as it was"
            time.sleep(0.05)
        self.page.wait_for_timeout(300)  # whatever else it has set off


def tab(page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def fill(page, where: str, text: str) -> None:
    page.locator(f"{where} input, {where} textarea").first.fill(text)
    page.keyboard.press("Enter")


def choose(page, where: str, label: str) -> None:
    page.locator(f"{where} input").click()
    page.locator(where).get_by_role("option", name=label).click()
    page.get_by_role("option").first.wait_for(state="detached")  # the list has closed


def refused(page, where: str, message: str) -> None:
    """Waits for a sentence in place of the block's images."""
    page.locator(f"{where} .message", has_text=message).wait_for()


def test_it_opens_on_the_newest_run(page):
    assert page.locator("#first input").input_value() == "began_paper, step 200"
    assert len(sources(page, "#seeds")) == 36


def test_the_grid(page):
    tab(page, "Seeds")
    with Changes(page, "#seeds"):
        fill(page, "#start", "5")
    assert page.locator("#seeds img").first.get_attribute("data-seed") == "5"
    with Changes(page, "#seeds"):
        fill(page, "#count", "9")
    assert len(sources(page, "#seeds")) == 9
    for seed in ("6", "8"):
        page.locator(f'#seeds img[data-seed="{seed}"]').click()
        page.wait_for_selector(f'#seeds img.picked[data-seed="{seed}"]')
    page.locator('#seeds img[data-seed="6"]').click()
    page.wait_for_selector('#seeds img:not(.picked)[data-seed="6"]')
    for bad, said in (("-1", ", not -1"), ("1.5", ", not 1.5"), ("", "")):
        fill(page, "#start", bad)
        refused(page, "#seeds", f"First seed: wants a whole number from 0 to 10^18{said}")
    fill(page, "#start", "5")


def test_the_box_of_a_slider_takes_what_is_typed_key_by_key(page):
    tab(page, "Seeds")
    box = page.locator("#count input[type=number]")
    for typed, images in (("1", 4), ("16", 16), ("999", 100), ("-", 36), ("9", 9)):
        with Changes(page, "#seeds"):
            box.fill("")
            box.press_sequentially(typed)
        assert len(sources(page, "#seeds")) == images
        assert page.get_by_text("Error", exact=True).count() == 0


def test_a_walk(page):
    tab(page, "Walk")
    with Changes(page, "#walked"):
        fill(page, "#ends", "3, 4, 9")
    with Changes(page, "#walked"):
        fill(page, "#time", "0.3")
    with Changes(page, "#walked"):
        page.get_by_label("slerp").click()
    with Changes(page, "#animation"):
        page.locator("#animate").click()
    assert sources(page, "#animation")[0].startswith("data:image/webp")
    assert page.locator("#animation").inner_text() == "animation: began_paper, step 200"
    with Changes(page, "#animation"):
        page.get_by_label("lerp").first.click()
    assert sources(page, "#animation") == []
    fill(page, "#ends", "3")
    refused(page, "#walked", "a walk goes through 2 to 100 images")
    fill(page, "#ends", "3, picture")
    refused(page, "#walked", "no picture has been searched for")
    fill(page, "#ends", "3, many")
    refused(page, "#walked", "Through: cannot read many")


def test_axes(page):
    tab(page, "Axes")
    with Changes(page, "#turned"):
        fill(page, "#seed", "2")
    labels = page.locator("[id^=axis-] label").all_inner_texts()
    numbers = {int(label.split()[1]) for label in labels if label.startswith("axis")}
    assert numbers == set(range(8))  # of 8, all
    for i in range(8):
        value = page.locator(f"#axis-{i} input").first.input_value()
        with Changes(page, "#turned"):  # to the end that is farther
            fill(page, f"#axis-{i}", "-1" if float(value) > 0 else "1")
    turned, kept = sources(page, "#turned"), slider_values(page)
    fill(page, "#rank", "7")
    page.locator("#axis-2").wait_for(state="hidden")
    assert slider_values(page) == {axis: kept[axis] for axis in list(kept)[6:]}
    assert sources(page, "#turned") == turned  # all that was moved stays so
    fill(page, "#seed", "-1")
    refused(page, "#turned", "Seed: wants a whole number from 0 to 10^18, not -1")
    with Changes(page, "#turned"):
        fill(page, "#seed", "3")
    assert set(slider_values(page).values()).isdisjoint({"-1", "1"})  # begun anew


def slider_values(page) -> dict[str, str]:
    """Returns the numbers of the sliders shown, by their labels."""
    shown = page.locator("[id^=axis-]:visible")
    labels = shown.locator("label span").all_inner_texts()
    boxes = shown.locator("input[type=number]").all()
    return dict(zip(labels, [box.input_value() for box in boxes], strict=True))


def test_side_by_side_and_another_generator(page):
    tab(page, "Axes")
    with Changes(page, "#turned"):
        fill(page, "#axis-0", "0.9")
    turned = sources(page, "#turned")
    tab(page, "Seeds")
    before = sources(page, "#seeds")
    with Changes(page, "#seeds"):
        choose(page, "#second", "bgan, step 200")
    both = sources(page, "#seeds")
    assert both[: len(before)] == before
    tab(page, "Axes")
    page.wait_for_function("document.querySelectorAll('#turned img').length == 2")
    assert sources(page, "#turned")[0] == turned[0]
    tab(page, "Seeds")
    with Changes(page, "#seeds"):
        choose(page, "#first", "bgan, step 200")
    both = sources(page, "#seeds")
    assert both[: len(before)] == both[len(before) :]
    with Changes(page, "#seeds"):
        choose(page, "#second", "nothing")
    with Changes(page, "#seeds"):
        choose(page, "#first", "began_paper, step 200")
    page.locator("#refresh").click()


def upload(page, path: Path) -> None:
    clear = page.locator('#file button[aria-label="Clear"], #file button[aria-label*="Remove"]')
    if clear.count():
        clear.first.click()
    page.locator("#file input[type=file]").set_input_files(str(path))


WATCH = """() => {
  window.told = "";
  new MutationObserver(() => {
    const told = document.querySelector("#result").parentElement.innerText;
    if (!told.includes("found")) window.told += told;
  }).observe(document.body, {childList: true, subtree: true, characterData: true});
}"""


def test_a_picture(page, tmp_path):
    tab(page, "Picture")
    page.locator("#search").click()
    refused(page, "#result", "no picture yet: drop one first")
    Image.new("RGB", (40, 30), "white").save(tmp_path / "white.png")
    upload(page, tmp_path / "white.png")
    page.wait_for_selector("#judged img >> nth=1")
    told = page.locator("#judged").inner_text()
    assert "cropped to the centre square" in told
    assert "D's reconstruction: energy" in told
    fill(page, "#steps", "2000")
    page.evaluate(WATCH)
    page.locator("#search").click()
    page.wait_for_selector("#result img")
    assert page.evaluate("window.told").count("l1 error 0.") >= 1  # while it went on
    told = page.locator("#result").inner_text()
    assert "found: l1 error" in told
    assert "of the best of 1,000 samples" in told
    tab(page, "Walk")
    assert page.locator("#ends textarea").input_value().startswith("picture, ")
    with Changes(page, "#walked"):
        fill(page, "#time", "0.6")
    with Changes(page, "#walked"):
        fill(page, "#time", "0")
    found = page.locator("#result img").get_attribute("src")
    assert sources(page, "#walked") == [found]  # the walk begins at what was found


def test_wrong_pictures_get_a_sentence(page, tmp_path):
    tab(page, "Picture")
    (tmp_path / "text.txt").write_text("no image")
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for name in ("text.txt", "text.png", "empty.jpg"):
        upload(page, tmp_path / name)
        refused(page, "#judged", f"{name}: cannot be read as an image")
    Image.new("L", (1, 1)).save(tmp_path / "one.png")
    Image.fromarray(np.full((20, 20), 65535, np.uint16)).save(tmp_path / "sixteen.png")
    Image.new("RGBA", (50, 50)).save(tmp_path / "alpha.png")
    Image.new("L", (8000, 8000)).save(tmp_path / "huge.png")
    told = {"one": "padded", "sixteen": "resized", "alpha": "transparency", "huge": "resized"}
    for name, note in told.items():
        upload(page, tmp_path / f"{name}.png")
        page.locator("#judged", has_text=note).wait_for()
        page.wait_for_selector("#judged img")


def test_nothing_is_asked_of_another_machine(page, served):
    elsewhere = [url for url in page.asked if not url.startswith((served, "data:", "blob:"))]
    assert elsewhere == []
