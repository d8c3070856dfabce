"""``fewstep demo``: draw and click in a browser, and watch a learner adapt."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, TypeAlias

import tyro

from fewstep.commands.arguments import checked
from fewstep.commands.console import point_to, say, warn
from fewstep.core.ranges import Whole

Port: TypeAlias = Annotated[int, Whole(0, 65535)]


@checked
def demo(
    run: tyro.conf.Positional[Path | None] = None, host: str = "127.0.0.1", port: Port = 7860, device: str = "cpu"
) -> None:
    """Draw characters of your own and see LEO name them; click points and see it sample functions.

    Args:
        run: folder of a trained run, or a model's file, in place of the one that ships: of Omniglot or of sine-or-line
            tasks.
        host: address to listen at. Only this machine reaches 127.0.0.1; at 0.0.0.0 every machine of the network reaches
            it, without a password.
        port: likewise; 0 takes a free one.
        device: "cpu", "cuda" or "cuda:1"; auto is a GPU where there is one.
    """
    if find_spec("gradio") is None:
        raise ValueError("the demo is made with Gradio, which is not installed: pip install 'fewstep[demo]'")
    from fewstep.demo.models import models
    from fewstep.demo.server import Server

    chosen = models(run, device)
    try:
        server = Server(chosen, host, port)
    except OSError as error:
        raise ValueError(
            f"cannot listen at {host}, port {port}: {error.strerror}; --port 0 takes a free one"
        ) from error
    with server:
        if not server.local:
            warn("open to others", f"whoever reaches {host} can use this demo; there is no password", "red")
        point_to("the demo is at", server.url)
        say("stop it with Ctrl-C")
        server.serve_forever()
