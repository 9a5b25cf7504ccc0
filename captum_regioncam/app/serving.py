"""The page's server: on this computer alone unless it is shared, with a temporary folder that is removed at the end."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from captum_regioncam.app.explainer import MOST_BYTES, Explainer
from captum_regioncam.errors import Argument, ArgumentError

__all__ = ["served"]

_ADDRESS = "127.0.0.1"
_FOLDER = "GRADIO_TEMP_DIR"  # Gradio reads it when it is imported, and when a page is built


@contextmanager
def served(
    explainer: Explainer, *, port: int | None = None, share: bool = False, contrast: float = 4.0
) -> Iterator[str]:
    """Serve the page, and yield its address.

    Args:
        explainer: the network.
        port: the page's port. Default: the first free one from 7860.
        share: also serve the page at a public address, through Gradio's servers.
        contrast: where the slider for Region-CAM's contrast begins.

    Raises:
        ArgumentError: the port cannot be used, no port is free, or there is no public address.
        ImportError: the extra ``app`` is not installed.
    """
    before = os.environ.get(_FOLDER)
    with tempfile.TemporaryDirectory(prefix="captum_regioncam-", ignore_cleanup_errors=True) as folder:
        os.environ[_FOLDER] = folder
        try:
            from captum_regioncam.app.page import CSS, SESSIONS, build_page, theme

            page = build_page(explainer, contrast=contrast, sample=_sample())
            try:
                _, local, public = page.launch(
                    server_name=_ADDRESS, server_port=port, share=share, prevent_thread_lock=True, quiet=True,
                    inline=False, inbrowser=False, max_file_size=MOST_BYTES, state_session_capacity=SESSIONS,
                    allowed_paths=[], enable_monitoring=False, ssr_mode=False, pwa=False, mcp_server=False,
                    run_history=False, footer_links=[], css=CSS, theme=theme(),
                )  # fmt: skip
            except OSError as error:
                raise ArgumentError(
                    Argument("port", port), f": is in use, or may not be opened ({error}); choose another."
                ) from error
            try:
                if share and not public:
                    raise ArgumentError(
                        Argument("share", True), ": Gradio's servers gave no public address; is there a connection?"
                    )
                yield public or local
            finally:
                page.close(verbose=False)
        finally:
            if before is None:
                del os.environ[_FOLDER]
            else:
                os.environ[_FOLDER] = before


def _sample() -> str | None:
    """Return the file of scikit-image's cat, if it is installed."""
    try:
        import skimage
    except ImportError:
        return None
    path = os.path.join(os.path.dirname(skimage.__file__), "data", "chelsea.png")
    return path if os.path.isfile(path) else None
