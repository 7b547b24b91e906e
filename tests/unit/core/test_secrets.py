"""Names and texts that hold secrets."""

from __future__ import annotations

import time

import pytest

from rlwandb_callbacks.core.secrets import is_secret, masked, secret_values, without_secrets_in


@pytest.mark.parametrize(
    "name",
    [
        *("apiKey", "API_KEY", "WANDB_API_KEY", "X-Api-Key", "x.api.key", "api_keys", "apikey", "my_apikey"),
        *("auth", "Authorization", "proxy_auth", "oauth_token", "authToken", "bearer", "Bearer", "jwt"),
        *("aws_access_key_id", "accessKeyId", "secretKey", "private_key", "ssh-key", "SSHKey", "encryption_key"),
        *("key", "KEY", "pwd", "passwd", "db_passwd", "dbpassword", "user.password", "passphrase", "db_pass", "pass"),
        *("cookie", "Cookie", "set-cookie", "token", "hf_token", "refreshToken", "auth_tokens", "client_secret"),
        *("credentials", "slack_webhook_url", "netrc", "${oc.env:GITHUB_TOKEN}", "sig"),
    ],
)
def test_names_of_secrets_are_recognized(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        *("author", "monkey", "key_size", "num_keys", "token_count", "max_tokens", "tokenizer", "num_tokens"),
        *("pad_token_id", "tokens_per_batch", "obs_key", "sort_key", "in_keys", "keyboard", "keyframe", "turkey"),
        *("compass", "forward_pass", "n_passes", "pin_memory", "lr", "env_id", "action_key", "passenger", 3, ""),
    ],
)
def test_harmless_names_are_kept(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://user:p4ss@host:80/x", "http://***@host:80/x"),
        ("http://user:p@ss/w0rd@host/x", "http://***@host/x"),
        (
            "postgresql+psycopg://u:p@h/db and redis://:p@h:6379/0",
            "postgresql+psycopg://***@h/db and redis://***@h:6379/0",
        ),
        ("https://ghp_x@github.com/a/b", "https://***@github.com/a/b"),
        (
            "https://h/x?lr=1&access_token=zz&X-Amz-Signature=ab",
            "https://h/x?lr=1&access_token=***&X-Amz-Signature=***",
        ),
        ("make(api_key='a b', lr=0.1)", "make(api_key=***, lr=0.1)"),
        ("{'password': 'x', \"n\": 1}", "{'password': ***, \"n\": 1}"),
        ("Authorization: Bearer abc.def-1", "Authorization: Bearer ***"),
        ("train.py --password hunter2 --lr 3", "train.py --password *** --lr 3"),
        ("id AKIAIOSFODNN7EXAMPLE", "id ***"),
        ("a -----BEGIN RSA PRIVATE KEY-----\nx\n-----END RSA PRIVATE KEY----- b", "a *** b"),
    ],
)
def test_secrets_in_texts_are_masked(text: str, expected: str) -> None:
    assert without_secrets_in(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "http://localhost:8080/a@b",
            "git@github.com:a/b",
            "C:/data/x.npz",
            "Unknown key: 'epsiodes'",
            "KeyError: 'a'",
        ),
        *(
            "Basic training: it goes on",
            "max_tokens=512, obs_key='pixels'",
            "highway_env:racetrack-v0",
            "token=None",
            "KeyError: 'a'",
        ),
    ],
)
def test_harmless_texts_are_unchanged(text: str) -> None:
    assert without_secrets_in(text) == text


def test_values_of_secrets_are_masked_wherever_they_stand() -> None:
    kwargs = {
        "auth": {"user": "me-and-you", "n": 12345},
        "url": "s3://u:pa%20ss@h",
        "lr": 0.1,
        "on": [{"pwd": b"bytes"}],
    }
    values = set(secret_values(kwargs))
    assert values == {"me-and-you", "12345", "pa%20ss", "pa ss", "bytes"}
    assert masked("me-and-you with 12345 and pa ss", values) == "*** with *** and ***"
    assert masked("a short one stays", ["one", ""]) == "a short one stays"


@pytest.mark.parametrize("text", ["a" * 100_000, "http://a:" * 11_000, "http://proxy.lan:80 " * 5_000, "a." * 50_000])
def test_long_texts_are_searched_in_little_time(text: str) -> None:
    start = time.process_time()
    assert without_secrets_in(f"{text} api_key=hunter22") == f"{text} api_key=***"
    assert time.process_time() - start < 10


def test_the_name_of_something_under_key_is_no_secret_in_texts() -> None:
    settings = {"key": "eval/return_mean", "api_key": "correct-horse", "nested": {"key": "a8f3-77c1"}}
    assert set(secret_values(settings)) == {"correct-horse", "a8f3-77c1"}
