// Markdown as markup. No HTML text is ever made, so nothing can be put into it: raw HTML is shown as the text that it is, links pass a list of
// schemes, and images of elsewhere are links too, because loading one tells its server what was said.
import { copied } from "./components/copy.js";
import { highlight } from "./highlight.js";
import { follow, h, useEffect, useRef, useState } from "./ui.js";
import { Lexer, Tokenizer } from "./vendor/marked.js";

const KEPT_OPEN = 3; // So many blocks at the end of a growing text may still become something else.
const SCHEMES = ["http:", "https:", "mailto:"];
const OURS = /^\/(?:conversations|tasks)\/[^/]+$/;
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };
const MOST_MARKS = 800;
/** What would be nested deeper than anybody reads, and deeper than the parser's stack. */
const TOO_DEEP = /^[ \t]*(?:(?:(?:[-*+]|\d{1,9}[.)])[ \t]+|>[ \t]?)){50}/m;

/** Emphasis takes the parser quadratic time; a paragraph that is nothing but marks gets none. */
class BoundedTokenizer extends Tokenizer {
  emStrong(source, masked, previous) {
    if (masked !== this.counted) {
      this.counted = masked;
      this.crowded = masked.length > MOST_MARKS && masked.split(/[*_]+/).length > MOST_MARKS;
    }
    return this.crowded ? undefined : super.emStrong(source, masked, previous);
  }
}

/**
 * A text in Markdown. While it is `growing`, blocks that cannot change any more are neither read nor rendered again. `breaks`: a line's end is
 * one, as people write in a chat.
 */
export function Markdown({ text, growing = false, breaks = false }) {
  const known = useRef({ source: "", blocks: [], parts: new Map(), whole: null }).current;
  if (!growing && known.whole?.text === text) return known.whole.markup;
  const source = whole(text, growing);
  if (!growing || !source.startsWith(known.source)) Object.assign(known, { source: "", blocks: [], parts: new Map() });
  const open = lexed(source.slice(known.source.length), breaks);
  while (growing && open.length > KEPT_OPEN && source.startsWith(open[0].raw, known.source.length)) {
    const token = open.shift();
    known.source += token.raw;
    known.blocks.push(block(token, known.blocks.length));
  }
  const first = known.blocks.length;
  const keep = growing ? keeping(known) : undefined;
  const blocks = [...known.blocks, ...open.map((token, place) => block(token, first + place, keep))]; // one list, or they would be made anew
  const markup = h("div", { class: growing ? "md growing" : "md" }, blocks);
  known.whole = growing ? null : { text, markup };
  return markup;
}

/** For the items and rows of a block that grows: one that was made before is given again, by its place and source. */
function keeping(known) {
  const before = known.parts;
  known.parts = new Map();
  return (id, make) => {
    const part = before.get(id) ?? make();
    known.parts.set(id, part);
    return part;
  };
}

const making = (_, make) => make();

/** Without half of a character that a delta has cut in two, and with one kind of line's end. */
function whole(text, growing) {
  const last = text.charCodeAt(text.length - 1);
  const cut = growing && last >= 0xd800 && last < 0xdc00 ? text.slice(0, -1) : text;
  return cut.includes("\r") ? cut.replace(/\r\n?/g, "\n") : cut;
}

function lexed(source, breaks) {
  try {
    if (!TOO_DEEP.test(source)) return Lexer.lex(source, { gfm: true, breaks, tokenizer: new BoundedTokenizer() });
  } catch {
    // The parser's stack was not deep enough.
  }
  return [{ type: "plain", raw: source }];
}

/** What stands in a quote or a list has no direction of its own: the outermost takes it from all the text in it. */
const within = (tokens) => tokens.map((token, place) => block(token, place, making, null));

function block(token, key, keep = making, dir = "auto") {
  switch (token.type) {
    case "space":
    case "def":
      return null;
    case "heading":
      return h(`h${Math.min(6, token.depth + 2)}`, { key, dir }, inline(token.tokens));
    case "paragraph":
      return h("p", { key, dir }, inline(token.tokens));
    case "text":
      return token.tokens ? inline(token.tokens) : decoded(token.text);
    case "code":
      return h(Code, { key, language: (token.lang ?? "").split(/[\s{,:]/)[0], text: token.text });
    case "blockquote":
      return h("blockquote", { key, dir }, within(token.tokens));
    case "hr":
      return h("hr", { key });
    case "list":
      return list(token, key, keep, dir);
    case "table":
      return table(token, key, keep, dir);
    case "checkbox":
      return h("input", { key, type: "checkbox", checked: token.checked, disabled: true, "aria-label": token.checked ? "done" : "not done" });
    case "plain":
      return h("p", { key, class: "plain", dir }, token.raw);
    default: // HTML, and what a later parser may know
      return h("p", { key, dir }, token.raw.trimEnd());
  }
}

function list(token, key, keep, dir) {
  const item = (found, place) => h("li", { key: place, class: found.task ? "to-do" : undefined }, within(found.tokens));
  const items = token.items.map((found, place) => keep(`${key}.${place}.${found.loose} ${found.raw}`, () => item(found, place)));
  return h(token.ordered ? "ol" : "ul", { key, dir, start: token.ordered && token.start !== 1 ? token.start : undefined }, items);
}

function table(token, key, keep, dir) {
  const cell = (name) => (found, place) =>
    h(name, { key: place, class: found.align ? `to-${found.align}` : undefined }, inline(found.tokens));
  const row = (cells, place) => h("tr", { key: place }, cells.map(cell("td")));
  const rows = token.rows.map((cells, place) => keep(`${key}.${place} ${cells.map(({ text }) => text).join("|")}`, () => row(cells, place)));
  return h(
    "div",
    { key, class: "table", tabindex: 0, role: "region", "aria-label": "Table" },
    h("table", { dir }, h("thead", null, h("tr", null, token.header.map(cell("th")))), h("tbody", null, rows)),
  );
}

const inline = (tokens) => tokens.map(phrase);

function phrase(token) {
  switch (token.type) {
    case "text":
      return token.tokens ? inline(token.tokens) : decoded(token.text);
    case "escape":
      return token.text;
    case "strong":
    case "em":
    case "del":
      return h(token.type, null, inline(token.tokens));
    case "codespan":
      return h("code", null, token.text);
    case "br":
      return h("br");
    case "link":
      return link(token.href, token.title, inline(token.tokens));
    case "image":
      return link(token.href, token.title, `[image: ${token.text || "without a description"}]`);
    default:
      return token.raw;
  }
}

function link(address, title, shown) {
  const url = safe(address);
  if (!url) return shown;
  if (url.origin === location.origin && OURS.test(url.pathname)) return h("a", { href: url.pathname + url.hash, title, onClick: follow }, shown);
  return h("a", { href: url.href, title: title ? `${title} (${url.href})` : url.href, target: "_blank", rel: "noopener noreferrer nofollow" }, shown);
}

function safe(address) {
  try {
    const url = new URL(address);
    return SCHEMES.includes(url.protocol) ? url : null;
  } catch {
    return null; // an address without a scheme leads nowhere from here
  }
}

const decoded = (text) => text.replace(/&(amp|lt|gt|quot|apos|nbsp);/g, (_, name) => ENTITIES[name]);

const COLOUR_MS = 250;

/** A block of code, with its language and a button that copies it. While it grows it is coloured now and then; what is new waits in plain. */
function Code({ language, text }) {
  const [coloured, setColoured] = useState(null); // {text, nodes}
  const waits = useRef({ timer: 0, text }).current;
  waits.text = text;
  useEffect(() => {
    if (waits.timer || coloured?.text === text) return;
    const colour = async () => {
      const of = waits.text;
      const nodes = await highlight(of, language).catch(() => null);
      waits.timer = 0;
      setColoured({ text: of, nodes });
    };
    waits.timer = setTimeout(colour, coloured ? COLOUR_MS : 0);
  }, [text, language, coloured]);
  useEffect(() => () => clearTimeout(waits.timer), []);
  const fits = coloured?.nodes && text.startsWith(coloured.text);
  return h(
    "figure",
    { class: "code", dir: "ltr" },
    h("figcaption", null, h("span", null, language || "text"), h(Copy, { text, label: "Copy code" })),
    h("pre", { tabindex: 0 }, h("code", { dir: "ltr" }, fits ? [coloured.nodes, text.slice(coloured.text.length)] : text)),
  );
}

const SAID_MS = 1500;

/** A button that copies a text and says so. */
export function Copy({ text, label, class: name = "copy", children = "Copy" }) {
  const [said, setSaid] = useState("");
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  const copy = async () => {
    setSaid((await copied(text)) ? "Copied" : "Not copied");
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setSaid(""), SAID_MS);
  };
  const heard = h("span", { class: "visually-hidden", role: "status" }, said);
  return h("button", { type: "button", class: name, title: label, "aria-label": label, onClick: copy }, said || children, heard);
}
