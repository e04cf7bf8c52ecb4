"""Which proxy a failed request went through."""

from __future__ import annotations

import pytest

from hf_task2vec.hub.errors import proxy_of


@pytest.mark.parametrize(
    ("variables", "proxy"),
    [
        ({"HTTPS_PROXY": "http://me:secret@proxy:3128"}, "'proxy:3128' (HTTPS_PROXY)"),
        ({"ALL_PROXY": "socks5://proxy:1080"}, "'socks5://proxy:1080' (ALL_PROXY)"),
        ({"HTTP_PROXY": "http://proxy:3128"}, ""),
        ({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": "hub.example"}, ""),
    ],
)
def test_the_proxy_of_an_endpoint(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], proxy: str) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_of("https://hub.example") == proxy
