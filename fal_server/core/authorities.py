"""Where systems keep the CAs that they trust."""

from __future__ import annotations

from pathlib import Path

SYSTEM_AUTHORITIES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/ca-bundle.pem"),
    Path("/etc/ssl/cert.pem"),
)
"""Files with all of them: of Debian and Alpine, Fedora, SUSE, and of BSD and macOS."""
