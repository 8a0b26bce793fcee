// Colours for code, as markup: highlight.js builds a tree, which becomes nodes without any HTML text. Its core and each language come when a
// block first needs them.
import { h } from "./ui.js";

const LANGUAGES = new Set(
  (
    "bash c cpp csharp css diff dockerfile go ini java javascript json kotlin markdown php python ruby rust sql swift typescript xml yaml"
  ).split(" "),
);
const ALIASES = {
  __proto__: null,
  "c++": "cpp", cjs: "javascript", console: "bash", cs: "csharp", docker: "dockerfile", golang: "go", h: "c", hpp: "cpp", htm: "xml", html: "xml",
  js: "javascript", jsonc: "json", jsx: "javascript", kt: "kotlin", md: "markdown", mjs: "javascript", patch: "diff", postgres: "sql", py: "python",
  py3: "python", rb: "ruby", rs: "rust", sh: "bash", shell: "bash", sqlite: "sql", svg: "xml", toml: "ini", ts: "typescript", tsx: "typescript",
  vue: "xml", yml: "yaml", zsh: "bash",
};
/** What stands inside of what. */
const WITHIN = { xml: ["css", "javascript"], markdown: ["xml"], php: ["xml"], typescript: ["javascript"] };
const MOST_CHARACTERS = 60000;

let core = null;
const loaded = new Map(); // by language: the promise that it is there

/** The nodes of `text`, or null where its language is not known or the text is too long. */
export async function highlight(text, name) {
  const language = ALIASES[name.toLowerCase()] ?? name.toLowerCase();
  if (!LANGUAGES.has(language) || text.length > MOST_CHARACTERS) return null;
  core ??= import("./vendor/highlight/core.js").then((module) => module.default);
  const hljs = await core;
  await ready(hljs, language);
  // The tree behind the HTML text is no documented part of highlight.js: its version is pinned, and a test looks at what comes of it.
  return nodes(hljs.highlight(text, { language, ignoreIllegals: true })._emitter.rootNode);
}

function ready(hljs, language) {
  if (!loaded.has(language)) loaded.set(language, load(hljs, language));
  return loaded.get(language);
}

async function load(hljs, language) {
  try {
    const [module] = await Promise.all([import(`./vendor/highlight/${language}.js`), ...(WITHIN[language] ?? []).map((each) => ready(hljs, each))]);
    hljs.registerLanguage(language, module.default);
  } catch (error) {
    loaded.delete(language); // the next block tries again
    throw error;
  }
}

const nodes = ({ children }) =>
  children.map((child) => (typeof child === "string" ? child : h("span", { class: className(child.scope) }, nodes(child))));

/** As style sheets for highlight.js name it: `title.function` is `hljs-title function_`. */
function className(scope) {
  if (!scope || scope.startsWith("language:")) return undefined;
  return scope
    .split(".")
    .map((part, level) => (level ? part + "_".repeat(level) : `hljs-${part}`))
    .join(" ");
}
