"""Nothing reaches for the network."""

import pytest
from conftest import network_attempts


def test_the_network_is_out_of_reach() -> None:
    """A test of the block in conftest.py, which holds for all tests."""
    import socket

    with pytest.raises(PermissionError), socket.socket() as one:
        one.connect(("127.0.0.1", 9))
    with pytest.raises(PermissionError):
        socket.getaddrinfo("example.org", 443)
    assert len(network_attempts) == 2
    network_attempts.clear()
