"""Recognizes secrets by their names and by their form, and removes them from texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote

from rlwandb_callbacks.core.plain_values import entries, is_mapping, is_of_omegaconf, items

MASK = "***"
SHORTEST_MASKED = 5  # a shorter value would be masked inside ordinary words


def _set_of(words: str) -> frozenset[str]:
    return frozenset(words.split())


_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
_ALWAYS = _set_of(
    "auth oauth authentication authorization authkey bearer cookie cookies credential credentials creds dsn jwt netrc "
    "passcode passphrase passwd password passwords pw pwd secret secrets sig signature token webhook"
)
# Parts of names that are written in one word, such as `dbpassword`, `accesskey` and `xauthtoken`.
_PARTS = (
    *("apikey", "accesskey", "secretkey", "privatekey", "authkey", "authtoken", "accesstoken", "apitoken"),
    *("sessiontoken", "refreshtoken", "hftoken", "password", "passwd", "passphrase", "credential", "secret"),
)
# `key` is a secret by itself and after one of these words. After others (`obs_key`) it is that of a dict.
_KEY_OF = _set_of(
    "access account admin anthropic api app auth aws azure client consumer deploy encryption gcp gemini git github "
    "gitlab google hf huggingface license master mistral openai private rsa secret server service session shared sign "
    "signing ssh storage subscription wandb webhook"
)
_PASS_OF = _set_of("admin db email login mail mysql proxy redis root smtp sql user")  # not `forward_pass`
# A token that is counted or described is one of a language model: `max_tokens`, `token_dim`.
_OF_LANGUAGE = _set_of(
    "batch budget count counts dim dims dropout embed embedding embeddings eos bos sep cls unk image layer len length "
    "level limit mask max mean min mixer n num number pad padding patch per position rate ratio size special std total "
    "type types vocab wise"
)

_NOT_SECRET = frozenset({"bearer", "basic", "none", "null", "true", "false", "", MASK})

# The lengths are bounded, as a long text with many URLs would take minutes otherwise.
_USER_OF_URL = re.compile(
    r"(?P<scheme>\b[a-zA-Z][\w+.-]{0,30}://)"
    r"(?:[^\s/@:'\"]{0,256}:(?!\d+/)[^\s'\"]{1,2048}|[^\s/@'\"]{1,2048})@"
)
_BEARER = re.compile(r"\b(?P<kind>bearer|basic)(?P<space>\s+)(?=\S*[\d=._~+/-])[\w.~+/-]{6,}=*", re.IGNORECASE)
_KNOWN_FORMS = re.compile(
    r"\b(?:(?:sk|pk|rk)[-_](?:[A-Za-z]+[-_])*[A-Za-z0-9_-]{16,}|gh[oprsu]_[A-Za-z0-9]{20,}|github_pat_\w{20,}"
    r"|glpat-[\w-]{16,}|hf_[A-Za-z0-9]{20,}|(?:AKIA|ASIA)[A-Z0-9]{16}|xox[abprs]-[\w-]{10,}|AIza[\w-]{30,}"
    r"|wandb_v1_\w{20,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,})"
)
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_ASSIGNMENT = re.compile(
    r"(?<![\w.-])(?P<name>[\w.-]+)(?P<equals>['\"]?\s*(?:=|:(?!/))\s*)"
    r"(?P<value>'[^']*'|\"[^\"]*\"|[^\s'\"&,;(){}\[\]<>]+)"
)
_NAME = re.compile(r"[A-Za-z]+(?:[/_. -][A-Za-z]+)*")
_OPTION = re.compile(r"(?<!\S)(?P<name>--[A-Za-z][\w.-]*)(?P<equals>\s+)(?P<value>[^\s-]\S*)")


def is_secret(name: object) -> bool:
    """Returns whether a setting of this name holds a secret, in any case and with any separators.

    Example:
        >>> [is_secret(name) for name in ("apiKey", "AWS_ACCESS_KEY_ID", "db-passwd", "Authorization", "key")]
        [True, True, True, True, True]
        >>> [is_secret(name) for name in ("author", "monkey", "key_size", "obs_key", "max_tokens", "tokenizer")]
        [False, False, False, False, False, False]
    """
    words = [word.lower() for word in _WORDS.findall(str(name))]
    joined = "".join(words)
    if not _ALWAYS.isdisjoint(words) and not _is_of_language(words):
        return True
    if words in (["key"], ["pass"]) or any(map(_are_secret, words, words[1:])):
        return True
    return ("tokens" in words and not _KEY_OF.isdisjoint(words)) or any(part in joined for part in _PARTS)


def _are_secret(word: str, after: str) -> bool:
    return (word in _KEY_OF and after in ("key", "keys")) or (word in _PASS_OF and after == "pass")


def _is_of_language(words: list[str]) -> bool:
    return "token" in words and _ALWAYS.intersection(words) == {"token"} and not _OF_LANGUAGE.isdisjoint(words)


def without_secrets_in(text: str) -> str:
    """Replaces secrets in a text by ``***``: passwords in URLs, assignments to secret names, keys of a known form.

    Example:
        >>> without_secrets_in("mysql://me:pa55@db/x?token=abc, api_key='k', lr=0.1")
        'mysql://***@db/x?token=***, api_key=***, lr=0.1'
    """
    text = _PRIVATE_KEY.sub(MASK, text)
    text = _USER_OF_URL.sub(rf"\g<scheme>{MASK}@", text)
    text = _BEARER.sub(rf"\g<kind>\g<space>{MASK}", text)
    for pattern in (_ASSIGNMENT, _OPTION):
        text = pattern.sub(_masked_assignment, text)
    return _KNOWN_FORMS.sub(MASK, text)


def _masked_assignment(found: re.Match[str]) -> str:
    is_value = found["value"].lower() not in _NOT_SECRET
    is_text = found["name"].lower() == "key" and ":" in found["equals"]  # as in "Unknown key: episode"
    is_hidden = is_value and not is_text and is_secret(found["name"])
    return f"{found['name']}{found['equals']}{MASK}" if is_hidden else found[0]


def secret_values(value: Any, *, is_hidden: bool = False) -> Iterator[str]:
    """Yields the texts that secret names, and passwords in URLs, have in nested mappings and sequences."""
    if is_mapping(value):
        for name, item in entries(value):
            yield from secret_values(item, is_hidden=is_hidden or (is_secret(name) and not _is_name(name, item)))
    elif isinstance(value, list | tuple | set | frozenset) or is_of_omegaconf(value):
        for item in value if isinstance(value, set | frozenset) else items(value):
            yield from secret_values(item, is_hidden=is_hidden)
    elif isinstance(value, bytes):
        yield from secret_values(value.decode(errors="replace"), is_hidden=is_hidden)
    elif is_hidden and isinstance(value, str | int | float) and not isinstance(value, bool):
        yield str(value)
    elif isinstance(value, str):
        for user in re.findall(r"://([^\s/@]*)@", value):
            _, _, password = user.partition(":")
            yield from {password or user, unquote(password or user)}


def _is_name(name: object, value: Any) -> bool:
    """Returns whether a value of ``key`` is the name of something, such as that of a metric, rather than a secret."""
    is_key = [word.lower() for word in _WORDS.findall(str(name))] == ["key"]
    return is_key and isinstance(value, str) and _NAME.fullmatch(value) is not None


def masked(text: str, secrets: Iterable[str]) -> str:
    """Replaces given secrets, and all that :func:`without_secrets_in` recognizes, by ``***`` in a text.

    Example:
        >>> masked("login as me with hunter2 failed", ["hunter2"])
        'login as me with *** failed'
    """
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= SHORTEST_MASKED and secret.lower() not in _NOT_SECRET:
            text = text.replace(secret, MASK)
    return without_secrets_in(text)
