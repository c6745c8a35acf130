"""TLS contexts that read the system's certificates when the first connection needs them.

aiohttp makes its contexts as it is imported: 9 MB and 0.2 s for certificates that a plain HTTP upstream never shows.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class LateContext(ssl.SSLContext):
    """A client's context, verifying as `ssl.create_default_context` has it, whose authorities are loaded on need."""

    _waiting = False

    def load_default_certs(self, purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH) -> None:
        """Note that they are wanted; only servers' certificates are ever verified here."""
        self._waiting = True

    def wrap_bio(self, *args: Any, **named: Any) -> ssl.SSLObject:
        self._load()
        return super().wrap_bio(*args, **named)

    def wrap_socket(self, *args: Any, **named: Any) -> ssl.SSLSocket:
        self._load()
        return super().wrap_socket(*args, **named)

    def get_ca_certs(self, binary_form: bool = False) -> Any:
        self._load()
        return super().get_ca_certs(binary_form)

    def _load(self) -> None:
        if self._waiting:
            super().load_default_certs()
            self._waiting = False


def late_context() -> LateContext:
    """A context that verifies who answers, and by which name."""
    made = LateContext(ssl.PROTOCOL_TLS_CLIENT)
    made.verify_mode = ssl.CERT_REQUIRED
    made.check_hostname = True
    made.load_default_certs()
    return made


@contextmanager
def loaded_late() -> Iterator[None]:
    """Default contexts that are made meanwhile, without further wishes, load their certificates on need; those that
    verify nobody, and ask for the system's certificates all the same, load none."""
    usual = ssl.create_default_context

    def make(*args: Any, **named: Any) -> ssl.SSLContext:
        return usual(*args, **named) if args or named else late_context()

    def spare(context: ssl.SSLContext) -> None:
        if context.verify_mode != ssl.CERT_NONE:
            super(ssl.SSLContext, context).set_default_verify_paths()

    ssl.create_default_context = make
    ssl.SSLContext.set_default_verify_paths = spare  # type: ignore[assignment]
    try:
        yield
    finally:
        ssl.create_default_context = usual
        del ssl.SSLContext.set_default_verify_paths  # the one that it inherits is back
