from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from quire.server.args import ServerArgs
from quire.server.listening import (
    address_of,
    check_tls,
    listening_socket,
    remove_unix_socket,
)
from tests.fakes.certificates import certificate_files


def test_the_address_has_the_port_and_the_hint() -> None:
    args = ServerArgs(port=0)
    with listening_socket(args) as listener:
        port = listener.getsockname()[1]
        assert address_of(listener, args).startswith(f"http://127.0.0.1:{port} (this machine only")
    args = ServerArgs(host="0.0.0.0", port=0)
    with listening_socket(args) as listener:
        assert address_of(listener, args) == f"http://0.0.0.0:{listener.getsockname()[1]}"


def test_a_port_in_use_is_one_clear_line() -> None:
    with listening_socket(ServerArgs(port=0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ValueError, match=f"127.0.0.1:{port}: Address already in use; choose"):
            listening_socket(ServerArgs(port=port))
    with pytest.raises(ValueError, match="--port 70000: give 0"):
        listening_socket(ServerArgs(port=70000))


def test_a_unix_socket_is_taken_over_only_from_the_dead(tmp_path: Path) -> None:
    args = ServerArgs(uds=str(tmp_path / "socket"))
    with listening_socket(args), pytest.raises(ValueError, match="Address already in use"):
        listening_socket(args)
    assert Path(str(args.uds)).is_socket(), "closed, its file stays"
    with listening_socket(args) as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(args.uds))
        assert address_of(listener, args) == f"unix:{args.uds}"
    remove_unix_socket(args)
    assert not Path(str(args.uds)).exists()


def test_no_other_file_is_removed_for_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(ValueError, match="Address already in use"):
        listening_socket(ServerArgs(uds=str(path)))
    assert path.read_text() == "data"


def test_tls_files_are_checked(tmp_path: Path) -> None:
    certificate, key = certificate_files(tmp_path)
    check_tls(ServerArgs())
    check_tls(ServerArgs(ssl_certfile=certificate, ssl_keyfile=key, ssl_ca_certs=certificate))
    missing = str(tmp_path / "missing")
    with pytest.raises(ValueError, match=f"--ssl-keyfile {missing} cannot be read"):
        check_tls(ServerArgs(ssl_certfile=certificate, ssl_keyfile=missing))
    with pytest.raises(ValueError, match="TLS cannot be set up with --ssl-certfile"):
        check_tls(ServerArgs(ssl_certfile=key, ssl_keyfile=key))
    with pytest.raises(ValueError, match="TLS cannot be set up"):
        check_tls(ServerArgs(ssl_certfile=certificate, ssl_keyfile=key, ssl_ciphers="NONSENSE"))
    with pytest.raises(ValueError, match="TLS needs --ssl-certfile"):
        check_tls(ServerArgs(ssl_cert_reqs=2))


def test_certificates_of_clients_need_their_ca(tmp_path: Path) -> None:
    certificate, key = certificate_files(tmp_path)
    own: dict[str, Any] = {"ssl_certfile": certificate, "ssl_keyfile": key}
    for reqs in (1, 2):
        check_tls(ServerArgs(**own, ssl_ca_certs=certificate, ssl_cert_reqs=reqs))
        with pytest.raises(ValueError, match=f"--ssl-cert-reqs {reqs} needs --ssl-ca-certs"):
            check_tls(ServerArgs(**own, ssl_cert_reqs=reqs))
    for reqs in (-1, 7):
        with pytest.raises(ValueError, match=f"--ssl-cert-reqs {reqs}: give 0 .none., 1"):
            check_tls(ServerArgs(**own, ssl_ca_certs=certificate, ssl_cert_reqs=reqs))


def test_an_encrypted_key_is_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    certificate, key = certificate_files(tmp_path, pass_phrase=b"secret")
    with pytest.raises(ValueError, match=f"^--ssl-keyfile {key} is encrypted; give one without"):
        check_tls(ServerArgs(ssl_certfile=certificate, ssl_keyfile=key))
    both = tmp_path / "both.pem"
    both.write_text(Path(certificate).read_text() + Path(key).read_text())
    with pytest.raises(ValueError, match=f"^--ssl-certfile {both} is encrypted"):
        check_tls(ServerArgs(ssl_certfile=str(both)))
