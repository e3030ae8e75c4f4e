"""The gate in front of the explorer, by itself: which names are ours, who is trusted, and where looking is open."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mien.errors import UsageError
from mien.web.security import ADDRESS_BYTES, BODY_BYTES, Access, Guard, Proxy

OPEN = Access.at("127.0.0.1", 8040, "secret")


@pytest.mark.parametrize(
    "host, looking, names",
    [
        ("127.0.0.1", True, {"127.0.0.1:8040", "localhost:8040", "[::1]:8040"}),
        ("localhost", True, {"127.0.0.1:8040", "localhost:8040", "[::1]:8040"}),
        ("::1", True, {"127.0.0.1:8040", "localhost:8040", "[::1]:8040"}),
        ("0.0.0.0", False, {"127.0.0.1:8040", "localhost:8040", "[::1]:8040"}),
        ("192.0.2.7", False, {"192.0.2.7:8040", "127.0.0.1:8040", "localhost:8040", "[::1]:8040"}),
        ("2001:db8::7", False, {"[2001:db8::7]:8040", "127.0.0.1:8040", "localhost:8040", "[::1]:8040"}),
        ("Faces.Example", False, {"faces.example:8040", "127.0.0.1:8040", "localhost:8040", "[::1]:8040"}),
    ],
)
def test_looking_needs_no_token_on_loopback_alone(host: str, looking: bool, names: set[str]) -> None:
    access = Access.at(host, 8040, "secret")
    assert access.open == looking and access.names == names


@pytest.mark.parametrize("given", ["", " ", "secre", "secrets", "SECRET", "sécret", "\udc80"])
def test_no_other_token_opens(given: str) -> None:
    assert not OPEN.is_token(given) and OPEN.is_token("secret")


paths: list[str] = []  # that the routes behind were asked for


def answered(access: Access, method: str = "GET", path: str = "/api/models", body: bytes = b"", **headers: str) -> Any:
    """The status of an answer (200 from the routes behind), and whether they were told that the token was there."""
    seen: list[Any] = []

    async def routes(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["trusted"])
        paths.append(scope["path"])
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    given = {"host": "127.0.0.1:8040", **{name.replace("_", "-"): value for name, value in headers.items()}}
    lines = [(name.encode(), value.encode()) for name, value in given.items()]
    target, _, query = path.partition("?")
    scope = {"type": "http", "method": method, "path": target, "raw_path": target.encode()}
    scope |= {"query_string": query.encode(), "headers": lines}
    asyncio.run(Guard(routes, access)(scope, receive, send))
    return sent[0]["status"], seen[0] if seen else None


OURS = "http://127.0.0.1:8040"
AWAY = Access.at("192.0.2.7", 8040, "secret")
BEHIND = Access.at("127.0.0.1", 8040, "secret", Proxy(hosts=("Faces.example",), base_path="/x/y/"))
NAMED = {"host": "faces.example", "origin": "https://faces.example"}


@pytest.mark.parametrize(
    "access, method, headers, status",
    [
        (OPEN, "GET", {}, 200),
        (OPEN, "GET", {"origin": OURS}, 200),
        (OPEN, "GET", {"Host": "127.0.0.1:8040"}, 400),  # a second one: which of them a proxy has read is not known
        (OPEN, "GET", {"Origin": OURS, "origin": OURS}, 400),
        (OPEN, "GET", {"origin": "null"}, 403),
        (OPEN, "GET", {"origin": "http://evil.example"}, 403),
        (OPEN, "GET", {"host": "evil.example:8040"}, 421),
        (OPEN, "GET", {"sec_fetch_site": "cross-site"}, 403),
        (OPEN, "POST", {"origin": OURS}, 200),
        (OPEN, "POST", {}, 403),
        (OPEN, "POST", {"authorization": "Bearer secret"}, 200),
        (OPEN, "POST", {"authorization": "Basic secret"}, 403),
        (OPEN, "POST", {"authorization": "Bearer "}, 403),
        (OPEN, "POST", {"origin": OURS, "content_length": "x"}, 400),
        (OPEN, "POST", {"origin": OURS, "content_length": str(BODY_BYTES + 1)}, 413),
        (AWAY, "GET", {}, 401),
        (AWAY, "GET", {"authorization": "Bearer secret"}, 200),
        (AWAY, "GET", {"authorization": "Bearer "}, 401),
        (AWAY, "POST", {"origin": OURS}, 401),
        (OPEN, "GET", {"x_forwarded_for": "192.0.2.9"}, 401),
        (OPEN, "GET", {"forwarded": "for=192.0.2.9"}, 401),
        (OPEN, "GET", {"x_forwarded_for": "192.0.2.9", "authorization": "Bearer secret"}, 200),
        (OPEN, "GET", {"host": "faces.example"}, 421),
        (OPEN, "GET", {"origin": "https://127.0.0.1:8040"}, 403),
        (BEHIND, "GET", NAMED, 401),
        (BEHIND, "GET", {}, 401),
        (BEHIND, "POST", NAMED, 401),
        (BEHIND, "GET", {**NAMED, "authorization": "Bearer secret"}, 200),
        (BEHIND, "GET", {**NAMED, "origin": "http://faces.example", "authorization": "Bearer secret"}, 200),
        (BEHIND, "GET", {**NAMED, "origin": "https://faces.example:8443", "authorization": "Bearer secret"}, 403),
        (BEHIND, "GET", {"host": "faces.example:8443", "authorization": "Bearer secret"}, 421),
        (BEHIND, "GET", {"host": "x.faces.example", "authorization": "Bearer secret"}, 421),
    ],
)
def test_who_may_ask(access: Access, method: str, headers: dict[str, str], status: int) -> None:
    found, trusted = answered(access, method, **headers)
    assert found == status
    if status not in (200, 413):  # what is too large is refused where it is read, everything else before the routes
        assert trusted is None
    else:
        assert trusted == (headers.get("authorization") == "Bearer secret")


def test_bounds_of_addresses_and_bodies() -> None:
    assert answered(OPEN, path="/api/models?" + "x" * (ADDRESS_BYTES - 10))[0] == 414  # path and query together
    assert answered(OPEN, path="/api/models?" + "x" * (ADDRESS_BYTES - 11))[0] == 200
    assert answered(OPEN, "POST", body=b"x" * (BODY_BYTES + 1), origin=OURS)[0] == 413  # whatever was announced
    assert answered(OPEN, "POST", body=b"x" * BODY_BYTES, origin=OURS)[0] == 200
    assert answered(OPEN, "POST", "/api/model/1/1/project", b"x" * (BODY_BYTES + 1), origin=OURS)[0] == 200


def test_an_empty_token_opens_nothing() -> None:
    assert not Access.at("127.0.0.1", 8000, "").is_token("")


@pytest.mark.parametrize(
    "asked, status, path",
    [
        ("/x/y/api/models", 200, "/api/models"),  # a proxy that leaves the base path
        ("/api/models", 200, "/api/models"),  # one that takes it away
        ("/x/y/", 200, "/"),
        ("/x/y", 308, None),
        ("/x/yy/api/models", 200, "/x/yy/api/models"),
        ("/x/y/x/y/", 200, "/x/y/"),
    ],
)
def test_a_base_path_is_taken_away_once(asked: str, status: int, path: str | None) -> None:
    paths.clear()
    assert answered(BEHIND, path=asked, authorization="Bearer secret", **NAMED)[0] == status
    assert paths == ([path] if path else [])


def test_a_base_path_is_no_way_around_the_token() -> None:
    assert answered(BEHIND, path="/x/y/api/models", **NAMED)[0] == 401
    assert answered(BEHIND, path="/x/y/", **NAMED)[0] == 200  # the empty page


@pytest.mark.parametrize(
    "fields",
    [
        *({"hosts": (name,)} for name in ("", "*", "http://a.example", "a.example/x", "a b", "a:b", "*.example")),
        *({"base_path": path} for path in ("x", "/x y", "/../x", "//x", "/x?y", "/x/./y")),
    ],
)
def test_what_is_no_name_or_path_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="is not a"):
        Proxy(**fields)


def test_a_page_is_framed_by_notebooks_alone() -> None:
    assert (
        OPEN.headers["x-frame-options"] == "DENY"
        and "frame-ancestors 'none'" in OPEN.headers["content-security-policy"]
    )
    framed = Access.at("127.0.0.1", 8040, "secret", Proxy(framed=True)).headers
    _, _, ancestors = framed["content-security-policy"].partition("frame-ancestors ")
    assert (
        "x-frame-options" not in framed and "'self' http://localhost:*" in ancestors and " * " not in f" {ancestors} "
    )
    assert framed.keys() == OPEN.headers.keys() - {"x-frame-options"}
