// How the same conversations are reached from elsewhere. What clients read is as onethread/mcp_config.py has it.
import { follow, html, paths, useState } from "../../ui.js";
import { Code, Panel, Segments } from "./parts.js";

const VARIABLE = "ONETHREAD_TOKEN";
const NAMED = (where) => `It takes the token from the variable ${VARIABLE}: set it where ${where} is started.`;
const INPUT = { type: "promptString", id: "onethread-token", description: "Onethread token (ot_...)", password: true };

/** By the names that `onethread mcp config` takes. `remote` gives the whole file, for a server at this address; without it, there is none. */
const EDITORS = {
  "claude-code": {
    label: "Claude Code",
    file: ".mcp.json",
    where: " in the project's folder",
    how: NAMED("claude"),
    remote: (url) => ({ mcpServers: { onethread: { type: "http", url, headers: { Authorization: `Bearer \${${VARIABLE}}` } } } }),
  },
  "claude-desktop": { label: "Claude Desktop", how: "It can only start Onethread on its own machine, not reach a server." },
  cursor: {
    label: "Cursor",
    file: "~/.cursor/mcp.json",
    how: NAMED("Cursor"),
    remote: (url) => ({ mcpServers: { onethread: { url, headers: { Authorization: `Bearer \${env:${VARIABLE}}` } } } }),
  },
  vscode: {
    label: "VS Code",
    file: ".vscode/mcp.json",
    where: " in the project's folder",
    how: "It asks for the token once, and keeps it.",
    remote: (url) => ({
      inputs: [INPUT],
      servers: { onethread: { type: "http", url, headers: { Authorization: `Bearer \${input:${INPUT.id}}` } } },
    }),
  },
  zed: {
    label: "Zed",
    file: "settings.json",
    where: " of Zed",
    how: "It takes the token only from that file, which is then as secret as the token.",
    remote: (url) => ({ context_servers: { onethread: { url, headers: { Authorization: "Bearer ot_PUT_THE_TOKEN_HERE" } } } }),
  },
};

export function Connections() {
  const [name, setName] = useState("claude-code");
  const editor = EDITORS[name];
  const file = editor.remote && JSON.stringify(editor.remote(`${location.origin}/mcp`), null, 2);
  return html`<${Panel} title="Your editor" about="Its assistant can read and change tasks, and talk with the agent in their conversations.">
      <${Segments} label="Which editor" chosen=${name} onChoose=${setName} of=${Object.entries(EDITORS).map(([each, { label }]) => [each, label])} />
      ${file
        ? html`<p class="panel-about"><b>This server</b>: make an <a href=${paths.settings("tokens")} onClick=${follow}>access token</a>, and
              put this into <code>${editor.file}</code>${editor.where}.
              ${" "}${editor.how}</p>
            <${Code} what="The settings" text=${file} />
            <p class="panel-about">Where the command <code>onethread</code> is installed, it does so itself, and keeps what is in the file:</p>
            <${Code} what="The command" text=${`onethread mcp config ${name} --url ${location.origin}/mcp --write`} />`
        : html`<p class="panel-about">${editor.how}</p>`}
      <p class="panel-about"><b>Without a server</b>: the editor starts Onethread by itself, with the data of the machine that it runs on.</p>
      <${Code} what="The command" text=${`onethread mcp config ${name} --write`} />
    </${Panel}>
    <${Panel} title="Slack" about="Where it is set up on the server (docs/slack.md), mention it in a channel. The thread is the task's conversation.">
      <${Code} what="The messages" text=${"/invite @onethread\n@onethread plan the release"} />
    </${Panel}>
    <${Panel} title="Discord" about="Likewise (docs/discord.md); this prints the link that invites the bot:">
      <${Code} what="The command" text="onethread doctor" />
    </${Panel}>
    <${Panel} title="A terminal" about="On the machine where Onethread runs:">
      <${Code} what="The command" text="onethread chat" />
    </${Panel}>
    <${Panel} title="Programs" about=${html`The HTTP API is described in <a href="/openapi.json">/openapi.json</a>, the live WebSocket in
      docs/protocol.md. Both take access tokens.`} />`;
}
