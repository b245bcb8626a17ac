"""Sends requests to a service under test, well-formed or byte by byte."""

import http.client
import socket

from tests.serve.conftest import Web


def ask(web: Web, path: str, method: str = "GET", body: bytes | None = None, **headers: str):
    """Send a request, and return (status, headers, body)."""
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=20)
    try:
        connection.request(
            method, path, body, {name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


def raw(web: Web, content: bytes, wait_s: float = 10) -> bytes:
    """Send these bytes, and return the answer up to the end of the connection."""
    with socket.create_connection(("127.0.0.1", web.port), timeout=wait_s) as connection:
        connection.sendall(content)
        found = b""
        try:
            while part := connection.recv(65536):
                found += part
                if b"\r\n\r\n" in found and b"}" in found:
                    break
        except TimeoutError:
            pass
        return found
