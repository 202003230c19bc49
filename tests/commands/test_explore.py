import socket
import sys

import pytest

from began_cli.commands import explore


@pytest.mark.parametrize(
    ("host", "local"),
    [
        *[(host, True) for host in ("127.0.0.1", "localhost", "::1", "127.0.0.9")],
        *[(host, False) for host in ("0.0.0.0", "::", "192.168.1.2", "example.org")],
    ],
)
def test_hosts_that_only_this_machine_can_reach(host, local):
    assert explore.is_local(host) is local


def test_a_missing_gradio_names_the_extra(refusal, monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert "pip install 'began[explore]'" in refusal("explore")


def test_nothing_to_show(refusal, monkeypatch):
    pytest.importorskip("gradio")
    monkeypatch.setattr("began_cli.explore.views.list_pretrained", dict)
    assert "ckpt: no checkpoint under outputs/" in refusal("explore")
    assert "ckpt=nowhere: no such file" in refusal("explore ckpt=nowhere")
    assert "port=0: wants 1 to 65535" in refusal("explore port=0")


def test_a_port_that_is_taken_and_a_host_that_is_public(began, tiny_run):
    pytest.importorskip("gradio")
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, _, err = began("explore", f"ckpt={tiny_run}", "host=0.0.0.0", f"port={port}")
    assert code == 2
    warning, refused = err.splitlines()
    assert warning.startswith("warning: host=0.0.0.0: everyone who can reach this machine")
    assert refused.startswith(f"began explore: port={port}, host=0.0.0.0: ")
