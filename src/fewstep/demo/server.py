"""The server of the demo: Gradio's application behind its guard, at an address.

Nothing is kept between two questions: a page sends all that its answer depends on, so that users cannot see or change
what is another's.
"""

from __future__ import annotations

import socket
import warnings
from importlib.resources import files
from typing import Any

import gradio as gr
import uvicorn
from fastapi import FastAPI

from fewstep.demo.guard import guard, is_local
from fewstep.demo.models import Models
from fewstep.demo.pages.characters import characters
from fewstep.demo.pages.functions import functions

WAITING = 100
"""The most questions of all users that wait for their answers."""


class Server:
    """Serves the demo at an address, until it is closed.

    Answers are computed one after another: torch then has the processor to itself, and many users wait in turn rather
    than for each other.

    Args:
        models: for the pages.
        host: address to listen at; by default nobody but this machine can reach it.
        port: likewise; 0 takes a free one.

    Raises:
        OSError: for an address that there is not, or that is taken.
    """

    def __init__(self, models: Models, host: str = "127.0.0.1", port: int = 0) -> None:
        self.local = is_local(host)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.create_server((host, port), family=family)
        quiet: dict[str, Any] = {"ws": "none", "log_level": "warning", "timeout_graceful_shutdown": 1}
        self._server = uvicorn.Server(uvicorn.Config(app(models, self.local), **quiet))

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        host, port = self.socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/"

    @property
    def started(self) -> bool:
        """Whether it answers."""
        return bool(self._server.started)

    def serve_forever(self) -> None:
        """Serve until :meth:`shutdown`, or Ctrl-C."""
        self._server.run(sockets=[self.socket])

    def shutdown(self) -> None:
        """End :meth:`serve_forever`."""
        self._server.should_exit = True

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()


def app(models: Models, local: bool) -> FastAPI:
    """Gradio's application of both pages, as it needs no network, behind its guard.

    Args:
        models: for the pages.
        local: whether only this machine reaches it.
    """
    pages: Any
    with gr.Blocks(title="fewstep", analytics_enabled=False) as pages:
        gr.Navbar(main_page_name="Characters")
        characters(models.characters, models.names["characters"])
    with pages.route("Functions", "/functions"):
        gr.Navbar(main_page_name="Characters")
        functions(models.functions, models.tasks, models.names["functions"])
    pages.queue(max_size=WAITING, api_open=False, default_concurrency_limit=1)
    served = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    served.middleware("http")(guard(local))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "SSR mode", UserWarning)  # it is off
        return gr.mount_gradio_app(
            served,
            pages,
            "/",
            theme=gr.themes.Default(
                primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["monospace"]
            ),  # no web fonts
            css=(files("fewstep.demo.pages") / "demo.css").read_text(encoding="utf-8"),
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            show_error=False,
            mcp_server=False,
            pwa=False,
        )
