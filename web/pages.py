"""The few pages that the server writes itself, without script and with every value escaped: to sign in, to set a password, who one is,
and a conversation to be read."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from http import HTTPStatus

from fastapi.responses import HTMLResponse

from core.identity import MAX_PASSWORD, MIN_PASSWORD
from core.models import JSON, User
from web.problems import Problem

_STYLE = """
:root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
body { margin: 0 auto; max-width: 30rem; padding: 10vh 1rem 2rem }
h1 { font-size: 1.4rem }
label { display: block; margin: 1rem 0 .25rem }
input, button { box-sizing: border-box; width: 100%; padding: .55rem .7rem; font: inherit }
button { margin-top: 1.25rem; cursor: pointer }
code { overflow-wrap: anywhere }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: inherit; margin: .25rem 0 1.25rem }
time { opacity: .65; font-size: .85rem }
[role=alert] { border-left: .25rem solid #c33; padding: .25rem .75rem }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    # Not `no-referrer`: with that a browser hides from our own server, too, where a form comes from.
    "Referrer-Policy": "same-origin",
}
_SECRET_IN_ADDRESS = {"Referrer-Policy": "no-referrer"}


def sign_in(*, after: str, name: str = "", problem: Problem | None = None) -> HTMLResponse:
    """`after` is the path to go to when that succeeded, `problem` why it did not."""
    body = f"""
<h1>Sign in to Onethread</h1>
{_alert(problem)}
<form method="post" action="/login">
<input type="hidden" name="next" value="{escape(after)}">
<label for="name">Name</label>
<input id="name" name="name" value="{escape(name)}" autocomplete="username" autocapitalize="none" spellcheck="false" required autofocus>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required>
<button>Sign in</button>
</form>
<p>No password, or forgotten? Whoever runs Onethread can make a link for you to set one.</p>"""
    return _page("Sign in", body, problem=problem)


def welcome(*, code: str, user: User, problem: Problem | None = None) -> HTMLResponse:
    """Lets the person whom the link is for set a password. Its address holds the code, so it tells nobody where it was."""
    rule = f"{MIN_PASSWORD}-{MAX_PASSWORD:,} characters"
    size = f'minlength="{MIN_PASSWORD}" maxlength="{MAX_PASSWORD}"'
    body = f"""
<h1>Welcome, {escape(user.name)}</h1>
{_alert(problem)}
<form method="post" action="/welcome">
<input type="hidden" name="code" value="{escape(code)}">
<input name="name" value="{escape(user.name)}" autocomplete="username" readonly hidden>
<label for="password">Your new password ({rule})</label>
<input id="password" name="password" type="password" autocomplete="new-password" {size} required autofocus>
<label for="again">The same again</label>
<input id="again" name="again" type="password" autocomplete="new-password" {size} required>
<button>Set the password and sign in</button>
</form>
<p>This ends all your other sessions.</p>"""
    return _page("Set a password", body, problem=problem, headers=_SECRET_IN_ADDRESS)


def home(user: User, *, public_url: str) -> HTMLResponse:
    body = f"""
<h1>Onethread</h1>
<p>You are signed in as <strong>{escape(user.name)}</strong>{" (admin)" if user.admin else ""}.</p>
<h2>For programs</h2>
<p>The API is described in <a href="/openapi.json">{escape(public_url)}/openapi.json</a>.</p>
<p>A program needs a token. Make one where Onethread runs:</p>
<p><code>onethread token create NAME --user {escape(user.name)}</code></p>
<p>or with your name and password: <code>POST /api/auth/token</code> gives a token for 15 minutes, and with it
<code>POST /api/tokens</code> makes one that lasts. Programs send it as <code>Authorization: Bearer ot_...</code></p>
<form method="post" action="/logout"><button>Sign out</button></form>"""
    return _page("Onethread", body)


def conversation(title: str, shown: Sequence[JSON], *, has_earlier: bool) -> HTMLResponse:
    """What was said, to be read; `shown` are messages in their public JSON, the oldest first."""
    said = "\n".join(map(_said, shown)) or "<p>Nothing was said here yet.</p>"
    earlier = "<p>Earlier messages are left out.</p>" if has_earlier else ""
    return _page(title, f"\n<h1>{escape(title)}</h1>\n{earlier}{said}")


def _said(message: JSON) -> str:
    who, at = message["author"] or "Agent", message["created_at"][:16].replace("T", " ")
    text = "(deleted)" if message["deleted_at"] else message["content"]
    return f"<p><strong>{escape(who)}</strong> <time>{escape(at)} UTC</time></p><pre>{escape(text)}</pre>"


def failure(problem: Problem) -> HTMLResponse:
    """A page that says what went wrong. It holds no form: its address may hold a code."""
    title = HTTPStatus(problem.status_code).phrase
    body = f"""
<h1>{escape(title)}</h1>
{_alert(problem)}
<p><a href="/">Go on to Onethread</a></p>"""
    return _page(title, body, problem=problem, headers=_SECRET_IN_ADDRESS)


def _alert(problem: Problem | None) -> str:
    return f'<p role="alert">{escape(problem.detail)}</p>' if problem else ""


def _page(title: str, body: str, *, problem: Problem | None = None, headers: Mapping[str, str] | None = None) -> HTMLResponse:
    html = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{_STYLE}</style>
</head>
<body>
<main>{body}
</main>
</body>
</html>
"""
    about = {name: value for name, value in problem.headers.items() if name == "retry-after"} if problem else {}
    return HTMLResponse(html, status_code=problem.status_code if problem else 200, headers={**_HEADERS, **(headers or {}), **about})
