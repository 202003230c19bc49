"""`began explore`: a page in the browser to play with trained generators."""

import ipaddress
import os
import sys
import tempfile

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
            server_name=cfg.host,
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
    except OSError as error:
        raise UserError(f"port={cfg.port}, host={cfg.host}: {error}; choose others") from None
    say(f"{url} (Ctrl-C ends it)")
    blocks.block_thread()


def is_local(host: str) -> bool:
    """Return whether only this machine can reach the host."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
