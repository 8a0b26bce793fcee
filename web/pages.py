"""The few pages that the server writes itself, without script and with every value escaped: to sign in, to link an account, what failed."""

from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from html import escape
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from core import wording
from core.errors import OnethreadError
from core.identity import MAX_PASSWORD, MIN_PASSWORD
from core.models import Identity, User
from web.problems import Problem, problem_of

POLICY = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    # Not `no-referrer`: with that a browser hides from our own server, too, where a form comes from.
    "Referrer-Policy": "same-origin",
}
_SECRET_IN_ADDRESS = {"Referrer-Policy": "no-referrer"}
_NAME = 'autocomplete="username" autocapitalize="none" spellcheck="false"'
_Shown = Callable[[Request], Awaitable[Response]]


def sign_in(*, after: str, name: str = "", problem: Problem | None = None) -> HTMLResponse:
    """`after` is the path to go to when that succeeded, `problem` why it did not."""
    body = f"""
<div class="plain-card">
<h1>Sign in</h1>
{_alert(problem)}
<form method="post" action="/login">
<input type="hidden" name="next" value="{escape(after)}">
<div class="field">
<label for="name">Name</label>
<input class="input" id="name" name="name" value="{escape(name)}" {_NAME} required{"" if name else " autofocus"}>
</div>
<div class="field">
<label for="password">Password</label>
<input class="input" id="password" name="password" type="password" autocomplete="current-password" required{" autofocus" if name else ""}>
</div>
<button class="button primary">Sign in</button>
</form>
</div>
<p class="plain-note">No password, or forgotten? Whoever runs Onethread can make a link for you to set one.</p>"""
    return _page("Sign in", body, problem=problem)


def welcome(*, code: str, user: User, problem: Problem | None = None) -> HTMLResponse:
    """Lets the person whom the link is for set a password. Its address holds the code, so it tells nobody where it was."""
    rule = f"{MIN_PASSWORD}-{MAX_PASSWORD:,} characters"
    new = f'type="password" autocomplete="new-password" minlength="{MIN_PASSWORD}" maxlength="{MAX_PASSWORD}"'
    body = f"""
<div class="plain-card">
<h1>Welcome, {escape(user.name)}</h1>
{_alert(problem)}
<form method="post" action="/welcome">
<input type="hidden" name="code" value="{escape(code)}">
<input name="name" value="{escape(user.name)}" autocomplete="username" readonly hidden>
<div class="field">
<label for="password">Your new password</label>
<input class="input" id="password" name="password" {new} aria-describedby="rule" required autofocus>
<p class="hint" id="rule">{rule}</p>
</div>
<div class="field">
<label for="again">The same again</label>
<input class="input" id="again" name="again" {new} required>
</div>
<button class="button primary">Set the password and sign in</button>
</form>
</div>
<p class="plain-note">This ends all your other sessions.</p>"""
    return _page("Set a password", body, problem=problem, headers=_SECRET_IN_ADDRESS)


def link(*, user: User, account: Identity) -> HTMLResponse:
    """Asks whether the chat account is this user's. Somebody else may have sent them the link: it says what it gives away.

    Its address holds a secret, of which no other site learns; our own server must, or it could not tell where the form comes from.
    """
    name, platform = escape(account.name), wording.surface(account.surface)
    body = f"""
<div class="plain-card">
<h1>Is this you on {platform}?</h1>
<p class="plain-who"><b>{name}</b><br>{platform} account {escape(account.external_id)}, in {escape(account.account)}</p>
<p>Whoever writes as <b>{name}</b> on {platform} will act as you, <b>{escape(user.name)}</b>: read all that you can read, and write in your
name. What was said with it so far becomes yours.</p>
<p class="plain-alert" role="note">Did you type <b>/link</b> yourself? If somebody sent you this link, close this page.</p>
<form method="post" action="?account={quote(name_of(account))}">
<button class="button primary">Yes, link it with {escape(user.name)}</button>
</form>
<a class="button" href="/">No, it is not mine</a>
</div>"""
    return _page("Link an account", body)


def name_of(account: Identity) -> str:
    """What the form that links it calls it."""
    return ":".join((account.surface, account.account, account.external_id))


def failure(problem: Problem) -> HTMLResponse:
    """A page that says what went wrong. It holds no form: its address may hold a code."""
    title = "This did not work"
    body = f"""
<div class="plain-card">
<h1>{title}</h1>
{_alert(problem)}
<a class="button" href="/">Go on to Onethread</a>
</div>"""
    return _page(title, body, problem=problem, headers=_SECRET_IN_ADDRESS)


def telling_errors(show: _Shown) -> _Shown:
    """For routes that browsers open: their errors are pages, too."""

    @wraps(show)
    async def shown(request: Request) -> Response:
        try:
            return await show(request)
        except OnethreadError as error:
            return failure(problem_of(error))
        except HTTPException:
            return failure(Problem("VALIDATION_ERROR", "This form cannot be read. Go back, reload the page and try again."))

    return shown


def _alert(problem: Problem | None) -> str:
    return f'<p class="plain-alert" role="alert">{escape(problem.detail)}</p>' if problem else ""


def _page(title: str, body: str, *, problem: Problem | None = None, headers: Mapping[str, str] | None = None) -> HTMLResponse:
    html = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} · Onethread</title>
<meta name="color-scheme" content="light dark">
<link rel="icon" href="/static/icon.svg">
<link rel="stylesheet" href="/static/css/base.css">
<link rel="stylesheet" href="/static/css/plain.css">
</head>
<body class="plain">
<main>
<p class="plain-brand"><img src="/static/icon.svg" width="28" height="28" alt="">Onethread</p>{body}
</main>
</body>
</html>
"""
    about = {name: value for name, value in problem.headers.items() if name == "retry-after"} if problem else {}
    return HTMLResponse(html, status_code=problem.status_code if problem else 200, headers={**_HEADERS, **(headers or {}), **about})
