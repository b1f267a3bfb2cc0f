"""E-mail over SMTP, to servers that callers gave."""

from __future__ import annotations

import asyncio
import smtplib
import socket
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.message import EmailMessage

from fal_server.core.notices import Mailbox
from fal_server.http.outbound.destinations import Destinations, ForbiddenDestination
from fal_server.http.outbound.trust import trusting_context

_AT_ONCE = 4


class SmtpMailClient:
    """Implements the port MailClient with the standard library in threads.

    A password is only sent over TLS. Without a user, a server without STARTTLS gets the message in plaintext.

    Args:
        destinations: decides which addresses may be called.
        timeout_seconds: for each answer of the server.
        trusted: makes the context of connections with TLS.
    """

    def __init__(
        self,
        destinations: Destinations,
        *,
        timeout_seconds: float = 15,
        trusted: Callable[[], ssl.SSLContext] = trusting_context,
    ) -> None:
        self._destinations = destinations
        self._timeout_seconds = timeout_seconds
        self._trusted = trusted
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="mail")

    async def send(self, mailbox: Mailbox, message: EmailMessage) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self._send, mailbox, message)

    async def close(self) -> None:
        """Start no further message, without waiting for those on their way."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _send(self, mailbox: Mailbox, message: EmailMessage) -> None:
        try:
            with _Connection(mailbox, self._destinations, self._timeout_seconds, self._trusted) as server:
                if not mailbox.encrypted:
                    server.ehlo_or_helo_if_needed()
                    if server.has_extn("starttls"):
                        server.starttls(context=self._trusted())
                    elif mailbox.password is not None:
                        raise OSError(f"{mailbox.host} offers no TLS, so the password is not sent: use smtps://")
                if mailbox.user is not None and mailbox.password is not None:
                    server.login(mailbox.user, mailbox.password)
                server.send_message(message, mailbox.sender, mailbox.to)
        except ForbiddenDestination as error:
            raise OSError(f"the host {mailbox.host} {error}") from error
        except smtplib.SMTPAuthenticationError as error:
            raise OSError(f"{mailbox.host} refuses the password of {mailbox.user}") from error
        except smtplib.SMTPResponseException as error:
            raise OSError(f"{mailbox.host} answered {error.smtp_code}: {_text(error.smtp_error)}") from error
        except smtplib.SMTPRecipientsRefused as error:
            code, reason = next(iter(error.recipients.values()))
            raise OSError(f"{mailbox.host} refuses the receivers: {code} {_text(reason)}") from error
        except smtplib.SMTPException as error:
            raise OSError(f"{mailbox.host}: {error}") from error


class _Connection(smtplib.SMTP):
    """A connection to a server's checked address, under its own name."""

    def __init__(
        self,
        mailbox: Mailbox,
        destinations: Destinations,
        timeout_seconds: float,
        trusted: Callable[[], ssl.SSLContext],
    ) -> None:
        self._mailbox = mailbox
        self._trusted = trusted
        self._destinations = destinations
        super().__init__(mailbox.host, mailbox.port, timeout=timeout_seconds)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        failed = OSError("it has no address")
        for peer in self._destinations.resolve(host, port):
            try:
                plain = socket.create_connection((peer, port), timeout)
            except OSError as error:
                failed = error
                continue
            if not self._mailbox.encrypted:
                return plain
            try:
                return self._trusted().wrap_socket(plain, server_hostname=host)
            except (OSError, ssl.SSLError):
                plain.close()
                raise
        raise OSError(f"{host}:{port} cannot be reached: {failed.strerror or failed}")


def _text(said: bytes | str) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    return " ".join(text.split())[:200]
