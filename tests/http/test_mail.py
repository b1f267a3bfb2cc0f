"""E-mail to real SMTP servers: what arrives, and what is refused. No password leaves without TLS."""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import ssl
from contextlib import asynccontextmanager
from email import message_from_string
from email.message import EmailMessage
from pathlib import Path

import pytest

from fal_server.core.notices import Mailbox
from fal_server.http.outbound.destinations import Destinations
from fal_server.http.outbound.mail import SmtpMailClient
from fal_server.http.outbound.trust import trusting_context
from tests.support.certificates import Authority

LOOPBACK = Destinations([ipaddress.ip_network("127.0.0.0/8")])


class Server:
    """A mail server that keeps what it is told and takes.

    Attributes:
        answers: by command, what it answers in place of the usual.
    """

    def __init__(self, **answers: str) -> None:
        self.answers = answers
        self.said: list[str] = []
        self.mails: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        usual = {"EHLO": "250-here\r\n250 AUTH PLAIN", "DATA": "354 go on", "QUIT": "221 bye", "AUTH": "235 in"}
        writer.write(b"220 here\r\n")
        try:
            while line := (await reader.readline()).decode().rstrip("\r\n"):
                self.said.append(line)
                command = line.split()[0].upper()
                answer = self.answers.get(command, usual.get(command, "250 ok"))
                writer.write(f"{answer}\r\n".encode())
                if command == "DATA" and answer.startswith("354"):
                    self.mails.append((await reader.readuntil(b"\r\n.\r\n")).decode())
                    writer.write(b"250 taken\r\n")
        finally:
            writer.close()


@asynccontextmanager
async def listening(server: Server, tls: ssl.SSLContext | None = None):
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls) as listener:
        yield listener.sockets[0].getsockname()[1]


def mailbox(port: int, **changes) -> Mailbox:
    usual = {"host": "127.0.0.1", "encrypted": False, "user": None, "password": None, "sender": "x@y.z"}
    return Mailbox(port=port, to=("a@b.c", "d@e.f"), **{**usual, **changes})


def message() -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"], mail["From"], mail["To"] = "fal: caf\xe9", "x@y.z", "a@b.c, d@e.f"
    mail.set_content("it is full\n.\n")
    return mail


async def send(box: Mailbox, destinations: Destinations = LOOPBACK) -> None:
    client = SmtpMailClient(destinations)
    try:
        await client.send(box, message())
    finally:
        await client.close()


async def test_a_message_arrives_as_it_was_written() -> None:
    server = Server()
    async with listening(server) as port:
        await send(mailbox(port))
    assert [line for line in server.said if line.startswith(("mail", "rcpt"))] == [
        "mail FROM:<x@y.z>",
        "rcpt TO:<a@b.c>",
        "rcpt TO:<d@e.f>",
    ]
    came = message_from_string(server.mails[0])
    assert came["to"] == "a@b.c, d@e.f"
    assert "it is full" in came.get_payload()


async def test_a_password_is_not_sent_without_tls() -> None:
    server = Server()
    async with listening(server) as port:
        with pytest.raises(OSError, match="offers no TLS, so the password is not sent"):
            await send(mailbox(port, user="me", password="secret"))
    assert not any(line.upper().startswith("AUTH") for line in server.said)


async def test_a_server_of_an_unknown_authority_gets_no_password(tmp_path: Path) -> None:
    server, authority = Server(), Authority(tmp_path, "unknown")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("mail", address="127.0.0.1"))
    async with listening(server, context) as port:
        with pytest.raises(OSError, match="certificate verify failed"):
            await send(mailbox(port, encrypted=True, user="me", password="secret"))
    assert server.said == []


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({"MAIL": "550 not from you"}, "answered 550: not from"),
        ({"RCPT": "550 nobody"}, "refuses the receivers: 550 nobody"),
        ({"DATA": "554 spam"}, "answered 554: spam"),
        ({"EHLO": "421 go away", "HELO": "421 go away"}, "421"),
    ],
)
async def test_a_refusal_is_named(answers: dict[str, str], said: str) -> None:
    async with listening(Server(**answers)) as port:
        with pytest.raises(OSError, match=said):
            await send(mailbox(port))


async def test_a_private_server_is_not_called() -> None:
    server = Server()
    async with listening(server) as port:
        with pytest.raises(OSError, match="--webhook-allow"):
            await send(mailbox(port), Destinations())
    assert server.said == []


async def test_a_server_that_is_away_is_named() -> None:
    async with listening(Server()) as port:
        pass
    with pytest.raises(OSError, match=f"127.0.0.1:{port} cannot be reached: Connection refused"):
        await send(mailbox(port))


async def test_login_over_tls_with_an_authority_of_this_machine(tmp_path: Path) -> None:
    authority, server = Authority(tmp_path, "company"), Server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("mail", address="127.0.0.1"))
    async with listening(server, context) as port:
        client = SmtpMailClient(LOOPBACK, trusted=lambda: trusting_context((authority.file,)))
        await client.send(mailbox(port, encrypted=True, user="me", password="secret"), message())
        await client.close()
    (login,) = [line for line in server.said if line.startswith("AUTH")]
    assert base64.b64decode(login.split()[2]) == b"\0me\0secret"
    assert len(server.mails) == 1
