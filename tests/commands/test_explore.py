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


@pytest.mark.parametrize("host", ["no.such.host.invalid", "203.0.113.7", "a..b"])
def test_a_host_that_is_not_this_machine_s(refusal, host):
    assert f"host={host}: no address of this machine" in refusal(f"explore host={host}")


def test_a_port_that_is_taken_and_a_host_that_is_public(began, tiny_run, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = ["explore", f"ckpt={tiny_run}", "host=0.0.0.0", f"port={port}"]
        refused = (2, "", f"began explore: port={port}: in use; choose another\n")
        assert began(*line) == refused
        pytest.importorskip("gradio")
        monkeypatch.setattr(explore, "check_address", lambda *_: None)  # taken after the check
        code, _, err = began(*line)
    warning, last = err.splitlines(keepends=True)
    assert warning.startswith("warning: host=0.0.0.0: everyone who can reach this machine")
    assert (code, "", last) == refused
