"""The socket a server listens at, its address for people, and whether its TLS files are usable."""

from __future__ import annotations

import os
import socket
import ssl
from pathlib import Path

from quire.server.args import ServerArgs

_BACKLOG = 2048
_MAX_PORT = 65535


def listening_socket(args: ServerArgs) -> socket.socket:
    """The listening socket; ``ValueError`` if it cannot be opened."""
    listener = _unix_socket(args.uds) if args.uds is not None else _tcp_socket(args)
    listener.listen(_BACKLOG)
    return listener


def check_tls(args: ServerArgs) -> None:
    """``ValueError`` for TLS files that cannot be used, before anything is started."""
    if args.ssl_certfile is None:
        if args.ssl_keyfile or args.ssl_ca_certs or args.ssl_cert_reqs:
            raise ValueError("TLS needs --ssl-certfile beside the other --ssl- flags")
        return
    _check_cert_reqs(args)
    flags = ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs")
    named = {f"--{name.replace('_', '-')}": getattr(args, name) for name in flags}
    for flag, name in named.items():
        if name is not None and not os.access(name, os.R_OK):
            raise ValueError(f"{flag} {name} cannot be read; check the path and its permissions")
    context = oldest_is_tls_1_2(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    given = " ".join(f"{flag} {name}" for flag, name in named.items() if name is not None)
    try:
        context.load_cert_chain(
            args.ssl_certfile, args.ssl_keyfile, password=lambda: _refuse_encrypted(args)
        )
        if args.ssl_ca_certs is not None:
            context.load_verify_locations(args.ssl_ca_certs)
        context.set_ciphers(args.ssl_ciphers)
    except (ssl.SSLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise ValueError(f"TLS cannot be set up with {given}: {reason}") from error


def _check_cert_reqs(args: ServerArgs) -> None:
    """``ValueError`` for an unknown --ssl-cert-reqs, or for one that lacks its CA."""
    reqs = args.ssl_cert_reqs
    if reqs not in list(ssl.VerifyMode):
        raise ValueError(f"--ssl-cert-reqs {reqs}: give 0 (none), 1 (optional) or 2 (required)")
    if reqs != ssl.CERT_NONE and args.ssl_ca_certs is None:
        raise ValueError(
            f"--ssl-cert-reqs {reqs} needs --ssl-ca-certs, the CA that signs clients' certificates"
        )


def _refuse_encrypted(args: ServerArgs) -> str:
    """``ValueError`` for an encrypted key, which OpenSSL would ask a pass phrase for."""
    flag, name = "--ssl-keyfile", args.ssl_keyfile
    if name is None:
        flag, name = "--ssl-certfile", args.ssl_certfile
    raise ValueError(f"{flag} {name} is encrypted; give one without a pass phrase")


def oldest_is_tls_1_2(context: ssl.SSLContext) -> ssl.SSLContext:
    """Refuse TLS older than 1.2, whatever the system's OpenSSL allows; returns ``context``."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def address_of(listener: socket.socket, args: ServerArgs) -> str:
    """The server's address for people, with a hint if only this machine can reach it."""
    if args.uds is not None:
        return f"unix:{args.uds}"
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    url = f"http{'s' if args.ssl_certfile else ''}://{shown}:{port}"
    if host in ("127.0.0.1", "::1"):
        return f"{url} (this machine only; --host 0.0.0.0 for all interfaces)"
    return url


def remove_unix_socket(args: ServerArgs) -> None:
    """Remove the file of a Unix socket, which is still there when the socket is closed."""
    if args.uds is not None:
        Path(args.uds).unlink(missing_ok=True)


def _tcp_socket(args: ServerArgs) -> socket.socket:
    if not 0 <= args.port <= _MAX_PORT:
        raise ValueError(f"--port {args.port}: give 0 (any that is free) to {_MAX_PORT}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            args.host, args.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _cannot_listen(args, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _cannot_listen(args, error) from error
    return listener


def _cannot_listen(args: ServerArgs, error: OSError) -> ValueError:
    reason = error.strerror or error
    return ValueError(
        f"cannot listen at {args.host}:{args.port}: {reason}; choose another --port (0: any that "
        "is free) or --host"
    )


def _unix_socket(name: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if Path(name).is_socket() and not _answers(name):
            Path(name).unlink()  # left behind by a server that was killed
        listener.bind(name)
    except OSError as error:
        listener.close()
        raise ValueError(
            f"cannot listen at the Unix socket {name}: {error.strerror or error}; choose another "
            "--uds"
        ) from error
    return listener


def _answers(name: str) -> bool:
    """Whether a process listens at this Unix socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        return client.connect_ex(name) == 0
