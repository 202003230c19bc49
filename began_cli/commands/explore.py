"""`began explore`: a page in the browser to play with trained generators."""

import errno
import ipaddress
import os
import socket
import sys
import tempfile
import time
from contextlib import suppress

from began_cli.device import pick_device
from began_cli.errors import UserError
from began_cli.generators.load import load
from began_cli.settings.commands import ExploreConfig
from began_cli.terminal import say


def main(cfg: ExploreConfig) -> None:
    """Serve the page until Ctrl-C; then delete the pictures that were uploaded."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    with tempfile.TemporaryDirectory(prefix="began-explore-") as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        serve(cfg)


def serve(cfg: ExploreConfig) -> None:
    """Serve the page until Ctrl-C."""
    check_address(cfg.host, cfg.port)
    try:
        import gradio
    except ImportError as error:
        raise UserError(
            f"explore: the package {error.name} is missing; python -m pip install 'began[explore]'"
        ) from None
    from began_cli.explore import app, views

    device = pick_device(cfg.device)
    first, second = (
        str(load(ckpt, device).path) if ckpt else None for ckpt in (cfg.ckpt, cfg.beside)
    )
    explorer = views.Explorer(device)
    if not (first or explorer.find_all()):
        raise UserError("ckpt: no checkpoint under outputs/; train first, or give ckpt=…")
    if not is_local(cfg.host):
        print(
            f"warning: host={cfg.host}: everyone who can reach this machine can use the page",
            file=sys.stderr,
        )
    blocks = app.build(explorer, first, second)
    try:
        _, url, _ = blocks.launch(
            server_name=f"[{cfg.host}]" if ":" in cfg.host else cfg.host,  # as in an address
            server_port=cfg.port,
            share=False,
            inbrowser=cfg.browser,
            quiet=True,
            show_error=True,
            prevent_thread_lock=True,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            max_file_size="200mb",
            theme=gradio.themes.Default(),
            css=app.CSS,
        )
    except OSError:  # between the check and now, or every port that Gradio tries
        raise UserError(f"port={cfg.port or '7860-7959'}: in use; choose another") from None
    say(f"{url} (Ctrl-C ends it)")
    with suppress(KeyboardInterrupt):
        while True:  # Gradio's own loop prints a line on Ctrl-C
            time.sleep(1)
    blocks.close(verbose=False)


def check_address(host: str, port: int | None) -> None:
    """Raise UserError if no page can be served at a host, or at a port, by default any.

    Gradio takes minutes to find out, as it tries a hundred ports.
    """
    try:
        family = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, port or 0), family=family).close()
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        if number == errno.EADDRINUSE:
            raise UserError(f"port={port}: in use; choose another") from None
        if number == errno.EACCES:
            raise UserError(f"port={port}: needs more rights; choose one from 1024") from None
        raise UserError(
            f"host={host}: no address of this machine; give one, such as 127.0.0.1, or 0.0.0.0 for "
            "all of them"
        ) from None


def is_local(host: str) -> bool:
    """Return whether only this machine can reach the host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
