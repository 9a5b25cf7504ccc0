"""The page in a browser, with the built-in network: one server and one browser for all."""

import gc
import os
import shutil
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from captum_regioncam.app.explainer import Explainer
from captum_regioncam.app.serving import served
from captum_regioncam.errors import ArgumentError
from captum_regioncam.evaluation import Classifier

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
FITS = "document.documentElement.scrollWidth <= window.innerWidth"

pytestmark = [
    pytest.mark.slow,
    # Of Gradio and what it needs: it leaves a socket open when it looks whether a port is taken.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@contextmanager
def browser():
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        reason = f"needs a browser: install one of {', '.join(BROWSERS)}"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=found, args=FLAGS)
        yield chromium
        chromium.close()


def check_what_a_browser_does_not_do(explainer, cat):
    """Events without a photo, with classes that it has not, or whose work fails."""
    import gradio

    from captum_regioncam.app.page import _Actions, _uploaded

    actions = _Actions(explainer)
    assert _uploaded(None) is None
    assert actions.receive(None)[:2] == (None, None)
    controls = [285, 2000], ["cam"], "Overlay", "None", False, 0.15, 4
    assert "Drop a photo" in actions.show(None, *controls)[1]
    photo, pixels, *_ = actions.receive((str(cat), "cat.png"))
    assert pixels.shape == (300, 451, 3)
    assert actions.show(photo, *controls)[1].count("<figure>") == 1
    assert "Choose at least one class" in actions.show(photo, [], *controls[1:])[1]
    assert "threshold=2.0: expects a number" in actions.show(photo, *controls[:5], 2, 4)[1]
    clicked = gradio.SelectData(None, {"index": 0, "value": "Egyptian cat (285)"})
    assert actions.toggle(photo, [1, 2], clicked) == [1, 2, 285]
    assert actions.toggle(photo, [1, 285], clicked) == [1]
    assert actions.toggle(photo, [1, 2, 3, 4, 5, 6], clicked) == [2, 3, 4, 5, 6, 285]
    assert actions.toggle(None, [1], clicked) == [1]
    write = actions.download("masks")
    for wrong, message in [
        ((None, *controls), "no longer kept"),
        (("x.png: broken", *controls), "x.png: broken"),
        ((photo, [], *controls[1:]), "at least one class"),
        ((photo, *controls[:5], 2, 4), "threshold=2.0"),
    ]:
        with pytest.raises(gradio.Error, match=message):
            write(*wrong)


def test_page(tmp_path, monkeypatch):
    from skimage.data import chelsea

    Image.fromarray(chelsea()).save(tmp_path / "cat.png")
    (tmp_path / "broken.jpg").write_text("not an image")
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    package = {path for path in Path(__file__).parents[2].joinpath("captum_regioncam").rglob("*") if path.suffix}
    explainer = Explainer.of(Classifier.load())
    with browser() as chromium, served(explainer) as address:
        folder = Path(os.environ["GRADIO_TEMP_DIR"])
        assert urlsplit(address).hostname == "127.0.0.1"
        with pytest.raises(ArgumentError, match="is in use"), served(explainer, port=urlsplit(address).port):
            pass
        page = chromium.new_page(viewport={"width": 1280, "height": 900})
        asked, errors = set(), []
        page.on("request", lambda request: asked.add(urlsplit(request.url).hostname))
        page.on("pageerror", lambda error: errors.append(error))
        page.goto(address)

        def text(selector="#results"):
            return page.inner_text(selector)

        def figures(count, more=""):
            page.wait_for_function(
                f"document.querySelectorAll('.figures figure').length == {count} && "
                f"document.querySelector('#results').innerText.includes('{more}')"
            )

        # A broken file, then a photo: its likeliest class is explained.
        page.set_input_files("#photo input[type=file]", tmp_path / "broken.jpg")
        page.wait_for_selector(".problem")
        assert text().strip() == "broken.jpg: not an image that can be read (JPEG, PNG, BMP, TIFF, WEBP, GIF)."
        page.set_input_files("#photo input[type=file]", tmp_path / "cat.png")
        figures(1, "Egyptian cat (285)")
        assert "tiger cat (282)" in text("#likeliest")
        covered = float(text().split("Mask: ")[1].split("%")[0])
        # A threshold, another class, and another method.
        page.fill("#threshold input[type=number]", "0.6")
        page.press("#threshold input[type=number]", "Enter")
        page.wait_for_function(f"!document.querySelector('#results').innerText.includes('Mask: {covered:.0f}%')")
        assert float(text().split("Mask: ")[1].split("%")[0]) < covered
        page.click("#classes input")
        page.fill("#classes input", "beagle")
        page.click("[role=option] >> text=beagle (162)")
        figures(2, "beagle (162)")
        assert "The network does not see this class" in text()
        page.click("#methods >> text=Grad-CAM")
        figures(4, "Grad-CAM")
        assert page.evaluate(FITS)
        # The files
        with page.expect_download() as maps:
            page.click("#download-maps")
        found = np.load(maps.value.path())
        assert (maps.value.suggested_filename, found.shape, found.dtype) == ("cat_cam.npy", (2, 2, 300, 451), "float32")
        page.click("#likeliest >> text=tiger cat")
        figures(6, "tiger cat (282)")
        assert any(path.suffix == ".npy" for path in folder.rglob("*"))
        # A telephone, where the session is another one
        page.set_viewport_size({"width": 400, "height": 800})
        page.goto(address)
        page.wait_for_selector("text=Drop a photo, or try it with the cat")
        page.click("text=Try it with a cat")
        figures(1, "Egyptian cat (285)")
        page.click("#view >> text=Cut-out")
        page.click("#refine input")
        assert page.evaluate(FITS)
        assert asked == {"127.0.0.1"}
        assert not errors
        check_what_a_browser_does_not_do(explainer, tmp_path / "cat.png")
    assert not folder.exists()
    assert "GRADIO_TEMP_DIR" not in os.environ
    after = {path for path in Path(__file__).parents[2].joinpath("captum_regioncam").rglob("*") if path.suffix}
    assert {path for path in after - package if path.suffix != ".pyc"} == set()
    gc.collect()  # what Gradio leaves open is told here, not in a later test
