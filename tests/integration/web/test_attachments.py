"""Files over HTTP: byte by byte what came, and harmless in a browser."""

from uuid import UUID, uuid4

from core.attachments import Upload
from tests.integration.web.conftest import Site


async def attach(site: Site, *uploads: Upload) -> UUID:
    """A message of the admin's with these files; gives the first one's id."""
    posted = await site.world.post((await site.world.chat()).id, "Look", uploads=uploads)
    found = await site.world.read(lambda uow: uow.attachments.of_messages([posted.message_id]))
    return found[0].id


async def test_a_file_comes_back_as_it_went(site: Site) -> None:
    data = bytes(range(256)) * 1_000
    attachment_id = await attach(site, Upload(name="all.bin", data=data, media_type="application/x-all"))

    answer = await site.client.get(f"/api/attachments/{attachment_id}")

    assert answer.status_code == 200
    assert answer.content == data
    assert answer.headers["content-type"] == "application/x-all"
    assert answer.headers["content-length"] == "256000"


_DANGEROUS = ["text/html", "image/svg+xml", "application/xhtml+xml", "text/javascript"]


async def test_a_file_that_a_browser_would_run_is_a_download_in_a_sandbox(site: Site) -> None:
    for media_type in _DANGEROUS:
        attachment_id = await attach(site, Upload(name="page.html", data=b"<script>alert(1)</script>", media_type=media_type))

        headers = (await site.client.get(f"/api/attachments/{attachment_id}")).headers

        assert headers["content-disposition"].startswith("attachment;")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"] == "sandbox; default-src 'none'; frame-ancestors 'none'"
        assert headers["cross-origin-resource-policy"] == "same-origin"


_NO_KINDS = ["text/html\r\nSet-Cookie: a=b", "nonsense", "text/plain; charset=utf-8", "täxt/plain"]


async def test_a_kind_that_is_none_is_sent_as_bytes(site: Site) -> None:
    for media_type in _NO_KINDS:
        attachment_id = await attach(site, Upload(name="x", data=b"x", media_type=media_type))

        answer = await site.client.get(f"/api/attachments/{attachment_id}")

        assert answer.headers["content-type"] == "application/octet-stream"
        assert "set-cookie" not in answer.headers


_NAMES = [
    ("note.txt", "filename=\"note.txt\"; filename*=UTF-8''note.txt"),
    ('"; filename="evil.exe', "filename=\"_; filename=_evil.exe\"; filename*=UTF-8''%22%3B%20filename%3D%22evil.exe"),
    ("Übersicht 😀.pdf", "filename=\"_bersicht _.pdf\"; filename*=UTF-8''%C3%9Cbersicht%20%F0%9F%98%80.pdf"),
    ("50%25.txt", "filename=\"50_25.txt\"; filename*=UTF-8''50%2525.txt"),
    ("a\r\nSet-Cookie: a=b", "filename=\"aSet-Cookie: a=b\"; filename*=UTF-8''aSet-Cookie%3A%20a%3Db"),
    ("../../etc/passwd", "filename=\"passwd\"; filename*=UTF-8''passwd"),
    ("a\ud800\x00b", "filename=\"a__b\"; filename*=UTF-8''a%EF%BF%BD%EF%BF%BDb"),
]


async def test_any_name_is_told_safely(site: Site) -> None:
    for name, told in _NAMES:
        attachment_id = await attach(site, Upload(name=name, data=b"x"))

        answer = await site.client.get(f"/api/attachments/{attachment_id}")

        assert answer.headers["content-disposition"] == f"attachment; {told}"


async def test_who_has_a_file_is_not_sent_it_again(site: Site) -> None:
    attachment_id = await attach(site, Upload(name="a.txt", data=b"Hi"))
    path = f"/api/attachments/{attachment_id}"
    tag = (await site.client.get(path)).headers["etag"]

    for known in (tag, f'"other", W/{tag}', "*"):
        answer = await site.client.get(path, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", tag)
    assert (await site.client.get(path, headers={"If-None-Match": '"other"'})).status_code == 200
    assert tag == '"3639efcd08abb273b1619e82e78c29a7df02c1051b1820e99fc395dcaa3326b8"'


async def test_a_file_is_for_who_may_see_its_conversation_only(site: Site) -> None:
    attachment_id = await attach(site, Upload(name="a.txt", data=b"Hi"))

    async with site.calling(await site.world.user("stranger")) as client:
        for absent in (attachment_id, uuid4(), "x"):
            answer = await client.get(f"/api/attachments/{absent}", headers={"If-None-Match": "*"})
            assert (answer.status_code, answer.json()["error_code"]) == (404, "NOT_FOUND")


async def test_a_deleted_message_takes_its_files_with_it(site: Site) -> None:
    posted = await site.world.post((await site.world.chat()).id, "Look", uploads=[Upload(name="a.txt", data=b"Hi")])
    (file,) = await site.world.read(lambda uow: uow.attachments.of_messages([posted.message_id]))

    await site.client.delete(f"/api/messages/{posted.message_id}")

    assert (await site.client.get(f"/api/attachments/{file.id}")).status_code == 404
