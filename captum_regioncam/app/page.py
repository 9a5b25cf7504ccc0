"""The page: controls, and what each of them does. Only this module imports Gradio, which takes seconds."""

import logging
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from captum_regioncam.app.downloads import FILES
from captum_regioncam.app.explainer import MOST_BYTES, MOST_PIXELS, Explainer, Photo
from captum_regioncam.app.figures import figures, message, probability_text
from captum_regioncam.app.results import BOXES, VIEWS, Settings, results_of
from captum_regioncam.errors import reason_of
from captum_regioncam.evaluation.titles import TITLES
from captum_regioncam.extras import extra
from captum_regioncam.files.inputs import MEGABYTE
from captum_regioncam.files.photos import PHOTO_SUFFIXES
from captum_regioncam.visualization import SEEN

with extra("app"):
    import gradio as gr

__all__ = ["CSS", "SESSIONS", "build_page", "theme"]

_log = logging.getLogger(__name__)

SESSIONS = 8
"""How many users' photos are kept; the oldest is dropped first."""
_KEPT = 3600  # seconds that a photo, or a file in the temporary folder, is kept after its last use
_CLASSES, _LIKELIEST = 6, 5  # the most classes that can be chosen, and that are listed
_HINT = "Drop a photo, or try it with the cat."
_NOTHING = "Choose at least one class and one method."
_LABELS = {"pictures": "Pictures (PNG)", "maps": "Maps (NPY)", "masks": "Masks (PNG)"}
_LOST = "This photo is no longer kept. Drop it again."

CSS = """
footer { display: none !important; }
.gradio-container { max-width: 1240px !important; margin: 0 auto !important; }
.figures { display: grid; grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); gap: 12px; }
.figures figure { margin: 0; min-width: 0; }
.figures img { width: 100%; max-height: 72vh; object-fit: contain; object-position: left top; border-radius: 6px; }
.figures figcaption { overflow-wrap: anywhere; line-height: 1.35; margin-top: 4px; }
.figures .method { display: block; }
.figures small { display: block; opacity: 0.75; }
.figures .warning { margin: 2px 0; padding: 2px 6px; border-radius: 4px; background: #fde68a; color: #422006; }
p.hint, p.problem { padding: 24px; border-radius: 8px; border: 1px dashed var(--border-color-primary); }
p.problem { border: 1px solid #dc2626; background: #fee2e2; color: #7f1d1d; overflow-wrap: anywhere; }
@media (max-width: 700px) {
  .figures { grid-template-columns: repeat(var(--narrow), minmax(0, 1fr)); }
  #results { order: -1; }
}
"""

_SAVE = """(file) => {
  if (!file) return;
  const link = document.createElement("a");
  link.href = file.url;
  link.download = file.orig_name;
  document.body.append(link);
  link.click();
  link.remove();
}"""


def _uploaded(payload: Any) -> tuple[str, str] | None:
    """Return the path, which Gradio has found to be in its temporary folder, and the name of an uploaded file."""
    if payload is None or not payload.path:
        return None
    return payload.path, payload.orig_name or Path(payload.path).name


def theme() -> Any:
    """Return the page's theme, with the system's fonts: Gradio's own come from one of Google's servers."""
    fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
    return gr.themes.Default(primary_hue="teal", **fonts).set(
        block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300"
    )


def build_page(explainer: Explainer, *, contrast: float = 4.0, sample: str | None = None) -> Any:
    """Build the page.

    Args:
        explainer: the network.
        contrast: where the slider for Region-CAM's contrast begins.
        sample: the file of a photo that the page offers.

    Returns:
        The ``gradio.Blocks``.
    """
    act = _Actions(explainer)
    names = [(TITLES[name], name) for name in reversed(TITLES) if name in explainer.attributions]
    formats = ", ".join(sorted({suffix[1:].upper() for suffix in PHOTO_SUFFIXES} - {"JPG", "TIF"}))
    limits = f"{formats}; at most {MOST_BYTES // MEGABYTE} MB and {MOST_PIXELS // 1_000_000} megapixels"
    page = gr.Blocks(title="Region-CAM", analytics_enabled=False, delete_cache=(600, _KEPT))
    with page:
        session = gr.State(None, time_to_live=_KEPT)
        gr.Markdown(
            f"# Region-CAM\nWhere does `{explainer.classifier.settings['model']}` see a class in your photo? "
            "Drop a photo, choose classes and methods, and cut the maps into masks and boxes."
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                upload = gr.Image(
                    label="Photo", sources=["upload", "clipboard"], height=260, buttons=["fullscreen"],
                    placeholder=f"Drop a photo here, or click to choose one\n{limits}", elem_id="photo",
                )  # fmt: skip
                upload.preprocess = _uploaded  # Gradio would open the file itself, whatever it is
                cat = gr.Button("Try it with a cat", size="sm", visible=sample is not None)
                likeliest = gr.Label(
                    label="What the network sees", num_top_classes=_LIKELIEST, show_heading=False, visible=False,
                    elem_id="likeliest",
                )  # fmt: skip
                classes = gr.Dropdown(
                    choices=[], value=[], multiselect=True, max_choices=_CLASSES, label="Classes", elem_id="classes",
                    info=f"Type to search, or click a class that the network sees. Up to {_CLASSES}.",
                )  # fmt: skip
                methods = gr.CheckboxGroup(
                    choices=names, value=[names[0][1]], label="Methods, side by side", elem_id="methods",
                )  # fmt: skip
            with gr.Column(scale=3, min_width=320):
                results = gr.HTML(message(_HINT), elem_id="results")
                with gr.Group():
                    with gr.Row():
                        view = gr.Radio(
                            [name.capitalize() for name in VIEWS], value="Overlay", label="View", min_width=200,
                            info="Cut-out: everything outside the mask is grey and light.", elem_id="view",
                        )  # fmt: skip
                        boxes = gr.Radio(
                            [name.capitalize() for name in BOXES], value="None", label="Boxes", min_width=200,
                            info="Around the regions of the mask.", elem_id="boxes",
                        )  # fmt: skip
                    refine = gr.Checkbox(
                        False, label="Refine", elem_id="refine",
                        info="Move the edges of the maps to those of the photo. This improves masks, but not boxes.",
                    )  # fmt: skip
                    with gr.Row():
                        threshold = gr.Slider(
                            0, 0.95, 0.15, step=0.01, label="Threshold", min_width=200, elem_id="threshold",
                            info="The mask is where a map is above this share of its maximum.",
                        )  # fmt: skip
                        power = gr.Slider(
                            0.5, max(10.0, contrast), contrast, step=0.1, label="Contrast", min_width=200,
                            info="The power to which Region-CAM's maps are raised.", elem_id="contrast",
                        )  # fmt: skip
                gr.Markdown(
                    "Download at the photo's size <small>(several pictures or masks come in a ZIP; maps are float32, "
                    "methods x classes x height x width)</small>"
                )
                with gr.Row():
                    buttons = {
                        what: gr.Button(label, size="sm", min_width=90, elem_id=f"download-{what}")
                        for what, label in _LABELS.items()
                    }
                file = gr.File(visible=False)
        controls = [session, classes, methods, view, boxes, refine, threshold, power]
        quiet = {"api_visibility": "private", "queue": True}
        shown = {"outputs": [session, results], "show_progress_on": results, "trigger_mode": "always_last", **quiet}
        came = {"outputs": [session, upload, likeliest, classes], **quiet}
        for event in (
            upload.upload(act.receive, upload, **came),
            upload.clear(act.forget, None, **came),
            cat.click(lambda: act.receive((sample, Path(sample).name) if sample else None), None, **came),
        ):
            event.then(act.show, controls, **shown)
        likeliest.select(act.toggle, [session, classes], classes, **quiet).then(act.show, controls, **shown)
        changes = [classes.input, methods.input, view.input, boxes.input, refine.input, threshold.input, power.input]
        gr.on(changes, act.show, controls, **shown)
        for what, button in buttons.items():
            made = button.click(act.download(what), controls, file, **quiet)
            made.success(None, file, None, js=_SAVE, **quiet)
    page.queue(max_size=64, default_concurrency_limit=4)
    return page


class _Actions:
    """What the events call. A session is a photo, a message of what was wrong with one, or None."""

    def __init__(self, explainer: Explainer) -> None:
        self.explainer = explainer

    def receive(self, uploaded: tuple[str, str] | None) -> tuple[Any, ...]:
        """Show the network an uploaded photo, and return the session, preview, most likely classes and choices."""
        if uploaded is None:
            return self.forget()
        try:
            photo = self.explainer.show(*uploaded)
        except Exception as error:
            return self._problem(uploaded[1], error), *self.forget()[1:]
        first, *others = photo.likeliest(_LIKELIEST)
        top = [first, *(index for index in others if photo.probabilities[index] >= SEEN)]
        seen = gr.update(value={self._name(index): photo.probabilities[index] for index in top}, visible=True)
        return photo, photo.shown, seen, gr.update(choices=self._choices(photo), value=[first])

    def forget(self) -> tuple[Any, ...]:
        """Start again without a photo."""
        return None, None, gr.update(value=None, visible=False), gr.update(choices=[], value=[])

    def show(self, session: Photo | str | None, *controls: Any) -> tuple[Photo | str | None, str]:
        """Return the session, which counts as used now, and the results."""
        if not isinstance(session, Photo):
            return session, message(_HINT if session is None else session, "problem" if session else "hint")
        settings = _settings(session, *controls)
        if not settings.classes or not settings.methods:
            return session, message(_NOTHING)
        try:
            return session, figures(list(results_of(self.explainer, session, settings)))
        except Exception as error:
            return session, message(self._problem(session.name, error), "problem")

    def toggle(self, session: Photo | None, classes: list[int], event: gr.SelectData) -> list[int]:
        """Add the class that was clicked, or remove it if it is chosen already."""
        found = re.search(r"\((\d+)\)$", str(event.value))
        if not isinstance(session, Photo) or found is None:
            return classes
        index = int(found[1])
        if index in classes:
            return [one for one in classes if one != index]
        return [*classes, index][-_CLASSES:]

    def download(self, what: str) -> Callable[..., str]:
        """Make the function that writes a file to the temporary folder."""

        def write(session: Photo | str | None, *controls: Any) -> str:
            if not isinstance(session, Photo):
                raise gr.Error(_LOST if session is None else session, title="There is no photo")
            settings = _settings(session, *controls)
            if not settings.classes or not settings.methods:
                raise gr.Error(_NOTHING)
            try:
                name, content = FILES[what](self.explainer, session, settings)
            except Exception as error:
                raise gr.Error(self._problem(session.name, error)) from error
            path = Path(tempfile.mkdtemp(dir=gr.utils.get_upload_folder())) / name
            path.write_bytes(content)
            return str(path)

        return write

    def _problem(self, name: str, error: Exception) -> str:
        """Return what went wrong, with the photo's name. Errors that users cannot fix are logged with a traceback."""
        if not isinstance(error, ValueError):
            _log.error("%s", name, exc_info=error)
        reason = reason_of(error)
        return reason if name in reason else f"{name}: {reason}"

    def _choices(self, photo: Photo) -> list[tuple[str, int]]:
        """Return all classes with all of their names, the most likely first."""
        names = self.explainer.classifier.class_names
        found = []
        for index in photo.likeliest(len(photo.probabilities)):
            name = names[index] if index < len(names) else "class"
            p = photo.probabilities[index]
            found.append((f"{name} ({index}) · {probability_text(p)}{'' if p >= SEEN else ', not seen'}", index))
        return found

    def _name(self, index: int) -> str:
        return f"{self.explainer.classifier.class_name(index)} ({index})"


def _settings(
    photo: Photo, classes: Any, methods: Any, view: Any, boxes: Any, refine: Any, threshold: Any, contrast: Any
) -> Settings:
    return Settings(
        tuple(dict.fromkeys(int(index) for index in classes if 0 <= int(index) < len(photo.probabilities)))[:_CLASSES],
        tuple(method for method in reversed(TITLES) if method in methods),
        float(contrast), bool(refine), float(threshold), str(view).lower(), str(boxes).lower(),
    )  # fmt: skip
