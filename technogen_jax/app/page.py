"""Opens the page: from the command, or from Python and notebooks with `launch`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from starlette.applications import Starlette

from technogen_jax.app import server
from technogen_jax.app.library import Library
from technogen_jax.common import compilation_cache, web_server

FIRST_PORT = 7860
_FRAME_HEIGHT = 900
_COLAB_NAME = ".googleusercontent.com"  # through which Colab shows a port of its machine


class Page:
    """A served page.

    Attributes:
        url: its address on this machine.
        port: its port.
        library: its models and runs.
        app: the ASGI application.
    """

    def __init__(self, library: Library, app: Starlette, served: web_server.Server) -> None:
        self.library, self.app, self._served = library, app, served
        self.url, self.port = served.url, served.port

    def wait(self) -> None:
        """Returns when the page is closed; Ctrl-C and signals raise here."""
        self._served.wait()

    def close(self) -> None:
        """Ends the page."""
        self.library.close()
        self._served.close()


def launch(
    *workdirs: str | os.PathLike,
    step: int | str = "latest",
    host: str = "127.0.0.1",
    port: int | None = None,
    name: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> Page:
    """Opens the page and returns it at once; the models are opened in the background.

    In a notebook the page appears below the cell.

    Args:
        workdirs: workdirs of runs, or exported files; none: the model that comes with TechnoGen.
        step: "latest", "best" or the step of a checkpoint.
        host: address to listen on; by default only this machine can connect.
        port: None: the first free port from 7860 on.
        name: other host names under which the page is reached, as behind a proxy.
        say: takes warnings and the address, a line each.

    Raises:
        OSError: the address cannot be listened on; says what to do.
    """
    compilation_cache.use_cache()
    notebook = _notebook()
    page = serve(Library(workdirs, step, say), host, port, name, notebook=notebook)
    page.library.start()
    if notebook == "colab":
        from google.colab import output

        output.serve_kernel_port_as_iframe(page.port, height=_FRAME_HEIGHT)
    elif notebook:
        from IPython.display import IFrame, display

        display(IFrame(page.url, "100%", _FRAME_HEIGHT))
    return page


def serve(
    library: Library,
    host: str = "127.0.0.1",
    port: int | None = None,
    name: Sequence[str] = (),
    *,
    notebook: str = "",
) -> Page:
    """Serves the page of a library in the background and returns it; `notebook` is "", "jupyter" or "colab"."""
    names = [*web_server.own_names(host), *name, *([_COLAB_NAME] if notebook == "colab" else [])]
    app = server.make_app(library, names=names, embedded=bool(notebook))
    served = web_server.Server(host, port, FIRST_PORT)
    served.start(app)
    return Page(library, app, served)


def _notebook() -> str:
    """Returns "colab", "jupyter", or "" outside of notebooks."""
    if "google.colab" in sys.modules:
        return "colab"
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return "jupyter" if type(shell).__name__ == "ZMQInteractiveShell" else ""
