"""What the head of a page names before a browser would find it."""

import re
from pathlib import Path

from web import preloads

FILES = {
    "app.js": 'import { a } from "./ui.js";\nimport {\n  b,\n  c,\n} from "./parts/b.js";\nconst late = () => import("./late.js");\n',
    "ui.js": 'import{h as t}from"./vendor/h.js";import"./vendor/side.js";export const example = "./no.js";',
    "parts/b.js": 'export { d } from "../ui.js";\nimport "./missing.js";\nimport { app } from "../app.js";\nawait style("b");\n',
    "vendor/h.js": "",
    "vendor/side.js": "",
    "late.js": "",
    "no.js": "",
}


def test_all_that_is_imported_is_named_once_with_the_sheets_that_are_waited_for(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")

    links = preloads.links("app.js", "parts/b.js", sheets=("page", "b"), folder=tmp_path).splitlines()

    modules = ["app.js", "ui.js", "vendor/h.js", "vendor/side.js", "parts/b.js"]
    assert links == [
        *(f'<link rel="modulepreload" href="/static/{each}">' for each in modules),
        '<link rel="preload" as="style" href="/static/css/page.css">',
        '<link rel="preload" as="style" href="/static/css/b.css">',
    ]


def test_page_names_no_file_twice_and_leaves_out_what_comes_later() -> None:
    found = re.findall(r'href="/static/([^"]+)"', preloads.links("app.js", "components/chat.js", sheets=("chat",)))

    assert len(found) == len(set(found))
    assert {"app.js", "ui.js", "vendor/preact.js", "vendor/marked.js", "components/thread.js", "css/chat.css"} <= set(found)
    assert not {"components/board.js", "components/search.js"} & set(found)
