# SPDX-License-Identifier: Apache-2.0
"""Who may ask."""

import logging

import pytest
import served

toy_bundle = pytest.importorskip("toy_bundle")
SECRET = "correct-horse-battery-staple"


@pytest.fixture
def guarded(start, model):
    from ppcls.serve.token import Token

    return start(model=model, token=Token(SECRET))


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        f"Bearer {SECRET[:-1]}",
        f"Bearer {SECRET}x",
        f"Basic {SECRET}",
        SECRET,
        "Bearer \xff",
    ],
)
def test_without_the_token_nothing_is_answered(guarded, header):
    headers = {} if header is None else {"Authorization": header}
    for path, body in (
        ("/predict", toy_bundle.picture(0)),
        ("/metadata", None),
        ("/metrics", None),
        ("/nothing", None),
    ):
        answer = guarded.ask(body, path=path, headers=headers)
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    assert guarded.server.service.num_taken == 0


def test_with_the_token_everything_is_answered(guarded, caplog):
    with caplog.at_level(logging.DEBUG):
        for scheme in ("Bearer", "bearer"):
            headers = {"Authorization": f"{scheme} {SECRET}"}
            assert guarded.ask(toy_bundle.picture(1), headers=headers).classes == ["green"]
            assert guarded.ask(path="/metadata", headers=headers).status == 200
    assert SECRET not in caplog.text


def test_the_page_and_the_health_are_for_everybody(guarded):
    assert guarded.ask(path="/").status == 200
    assert guarded.ask(path="/healthz").status == 200


def test_a_client_without_the_token_is_refused_before_it_sends(guarded):
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
    with served.connected(guarded.port) as stream:
        stream.sendall(head)
        assert served.read_response(stream).startswith(b"HTTP/1.1 401 ")


def test_the_token_comes_from_a_file_or_the_environment_which_forgets_it(tmp_path, monkeypatch):
    import os

    from ppcls.serve.token import VARIABLE, read_token

    (tmp_path / "token").write_text(f"{SECRET}\n")
    assert read_token(str(tmp_path / "token")).fits(f"Bearer {SECRET}")
    monkeypatch.setenv(VARIABLE, SECRET)
    assert read_token(None).fits(f"Bearer {SECRET}")
    assert VARIABLE not in os.environ
    assert read_token(None) is None


@pytest.mark.parametrize("value", ["", "short", "with blanks in its middle", "ünprintable-enough-but-not-ascii"])
def test_a_token_that_is_none_is_refused_without_being_shown(tmp_path, value):
    from ppcls.serve.token import read_token
    from ppcls.utils.errors import ConfigError

    (tmp_path / "token").write_text(value, encoding="utf-8")
    with pytest.raises(ConfigError, match="token: a token has 16 printable ASCII characters") as caught:
        read_token(str(tmp_path / "token"))
    assert not value or value not in str(caught.value)
