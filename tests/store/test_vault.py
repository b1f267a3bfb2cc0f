"""The vault decrypts only with the right key and context."""

from __future__ import annotations

import random

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from fal_server.core.faults import Unavailable
from fal_server.store import AesVault

KEY = bytes(range(32))
texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(context=texts, value=texts)
def test_round_trip(context, value):
    assert AesVault(KEY).open(context, AesVault(KEY).seal(context, value)) == value


@given(position=st.integers(0, 200), mask=st.integers(1, 255))
def test_no_changed_byte_goes_unnoticed(position, mask):
    sealed = bytearray(AesVault(KEY).seal("main/TOKEN", "hunter2"))
    sealed[position % len(sealed)] ^= mask
    with pytest.raises(Unavailable, match="main/TOKEN was"):
        AesVault(KEY).open("main/TOKEN", bytes(sealed))


@pytest.mark.parametrize("length", [0, 1, 4, 5, 17, 20])
def test_cut_off(length):
    sealed = AesVault(KEY).seal("main/TOKEN", "hunter2")[:length]
    with pytest.raises(Unavailable):
        AesVault(KEY).open("main/TOKEN", sealed)


def test_a_value_cannot_be_moved():
    sealed = AesVault(KEY).seal("main/TOKEN", "hunter2")
    with pytest.raises(Unavailable, match="dev/TOKEN was changed or damaged"):
        AesVault(KEY).open("dev/TOKEN", sealed)


def test_another_key_is_named_as_the_reason():
    with pytest.raises(Unavailable, match="another master key"):
        AesVault(bytes(32)).open("c", AesVault(KEY).seal("c", "hunter2"))


def test_equal_values_do_not_look_equal():
    vault = AesVault(KEY)
    assert len({vault.seal("c", "hunter2") for _ in range(100)}) == 100


def test_the_key_is_not_shown():
    vault = AesVault(KEY)
    assert KEY.hex() not in repr(vault)
    assert repr(vault).startswith("AesVault(key_id=")
    with pytest.raises(ValueError, match="32 bytes, not 16"):
        AesVault(KEY[:16])


@given(context=texts, value=st.binary())
def test_bytes_return_as_they_were(context, value):
    assert AesVault(KEY).open_bytes(context, AesVault(KEY).seal_bytes(context, value)) == value


@pytest.mark.parametrize("more", [-1, 0, 1])
def test_bytes_of_many_parts_are_what_one_call_would_seal(more):
    value = random.Random(1).randbytes(3 * 1024 * 1024 + more)
    sealed = AesVault(KEY).seal_bytes("c", value)
    assert AesVault(KEY).open_bytes("c", sealed) == value
    assert AESGCM(KEY).decrypt(sealed[5:17], sealed[17:], sealed[:5] + b"c") == value
    for place in (5, 17, 2 * 1024 * 1024, len(sealed) - 1):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(Unavailable, match="c was changed or damaged"):
            AesVault(KEY).open_bytes("c", bytes(changed))


@given(value=st.binary())
def test_bytes_that_an_earlier_version_sealed_are_opened(value):
    assert AesVault(KEY).open_bytes("c", AesVault(KEY).seal("c", value.decode("latin-1"))) == value


@pytest.mark.parametrize("length", [0, 1, 4, 5, 17, 20, 33])
def test_cut_off_bytes(length):
    sealed = AesVault(KEY).seal_bytes("main/TOKEN", b"hunter22")[:length]
    with pytest.raises(Unavailable):
        AesVault(KEY).open_bytes("main/TOKEN", sealed)


def test_a_text_is_not_opened_as_what_it_is_not():
    with pytest.raises(Unavailable, match="a form that this version does not know"):
        AesVault(KEY).open("c", AesVault(KEY).seal_bytes("c", b"hunter2"))
