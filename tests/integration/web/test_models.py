"""Which models there are, over HTTP."""

import pytest

from tests.integration.web.conftest import Site


async def test_models_tell_which_can_be_asked_and_what_is_missing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret-key")
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    answer = await site.client.get("/api/models")

    first, *others = answer.json()
    known = {model["provider"]: model for model in others}
    assert first == {"id": "one/model", "provider": "one", "available": True, "missing": [], "default": True}
    assert (known["anthropic"]["available"], known["anthropic"]["missing"]) == (True, [])
    assert (known["gemini"]["available"], known["gemini"]["missing"]) == (False, ["GEMINI_API_KEY", "GOOGLE_API_KEY"])
    assert not any(model["default"] for model in others)
    assert "secret-key" not in answer.text


async def test_models_are_for_who_may_chat(site: Site) -> None:
    async with site.calling(site.world.admin, scopes=frozenset({"tasks:read"})) as client:
        assert (await client.get("/api/models")).status_code == 401
