// What the models consumed: in all, by day, by model.
import { get } from "../../api.js";
import { me } from "../../state/lists.js";
import { html, money, tokens, useState } from "../../ui.js";
import { Loaded, Panel, Segments, useLoaded } from "./parts.js";

const PERIODS = [
  [7, "7 days"],
  [30, "30 days"],
  [90, "90 days"],
];
const WHOSE = [
  [false, "Yours"],
  [true, "Everybody's"],
];

export function Usage() {
  const [days, setDays] = useState(30);
  const [everyone, setEveryone] = useState(false);
  const usage = useLoaded(() => get(`/usage?days=${days}&everyone=${everyone}`), [days, everyone]);
  const choose = html`<div class="row-of-buttons">
    ${me.admin && html`<${Segments} label="Whose" of=${WHOSE} chosen=${everyone} onChoose=${setEveryone} />`}
    <${Segments} label="Period" of=${PERIODS} chosen=${days} onChoose=${setDays} />
  </div>`;
  return html`<${Panel} title="Usage" action=${choose}>
    <${Loaded} of=${usage}>${(report) => html`<${Report} report=${report} />`}</${Loaded}>
  </${Panel}>`;
}

function Report({ report }) {
  const { since, total, by_day, by_model } = report;
  if (!by_model.length) return html`<p class="panel-about">No model was asked in this time.</p>`;
  return html`<dl class="totals">
      <div><dt>Cost</dt><dd>${cost(total)}</dd></div>
      <div><dt>Tokens in</dt><dd title=${exact(total.tokens_in)}>${tokens(total.tokens_in)}</dd></div>
      <div><dt>Of these cached</dt><dd title=${exact(total.tokens_cached)}>${share(total)}</dd></div>
      <div><dt>Tokens out</dt><dd title=${exact(total.tokens_out)}>${tokens(total.tokens_out)}</dd></div>
    </dl>
    <${Chart} days=${everyDay(by_day, since)} />
    <${Figures} of="Model" rows=${by_model.map((each) => [each.model, each])} />
    <details class="by-day"><summary>Day by day</summary>
      <${Figures} of="Day" rows=${by_day.map((each) => [each.day, each]).reverse()} />
    </details>
    <p class="panel-about small">A cost is unknown where the price of any part of it is.${" "}
      ${total.estimated && "≈: the provider did not tell all tokens, so they are estimated. "}
      Days are those of UTC.</p>`;
}

/** @param {{of: string, rows: [string, object][]}} props */
function Figures({ of, rows }) {
  return html`<table class="figures">
    <thead><tr>${[of, "In", "Cached", "Out", "Cost"].map((title) => html`<th key=${title} scope="col">${title}</th>`)}</tr></thead>
    <tbody>
      ${rows.map(
        ([name, each]) => html`<tr key=${name}><th scope="row">${name}</th><td title=${exact(each.tokens_in)}>${tokens(each.tokens_in)}</td>
          <td>${share(each)}</td><td title=${exact(each.tokens_out)}>${tokens(each.tokens_out)}</td><td>${cost(each)}</td></tr>`,
      )}
    </tbody>
  </table>`;
}

const exact = (n) => n.toLocaleString();
const share = ({ tokens_in, tokens_cached }) => (tokens_in ? `${Math.round((100 * tokens_cached) / tokens_in)} %` : "–");
const cost = ({ cost: amount, estimated }) => (estimated && amount !== null ? `≈ ${money(amount)}` : money(amount));

const DAY_MS = 86400e3;

/** All days of the time, up to today, those without use too. */
function everyDay(by_day, since) {
  const known = new Map(by_day.map((each) => [each.day, each]));
  const days = [];
  for (let at = Date.parse(since.slice(0, 10)); at <= Date.now(); at += DAY_MS) {
    const day = new Date(at).toISOString().slice(0, 10);
    days.push(known.get(day) ?? { day, tokens_in: 0, tokens_out: 0, tokens_cached: 0, cost: "0", estimated: false });
  }
  return days;
}

const WIDTH = 600;
const HEIGHT = 120;

/** Bars of tokens by day; each tells its figures, as the table below does. */
function Chart({ days }) {
  const all = days.map((each) => each.tokens_in + each.tokens_out);
  const most = Math.max(1, ...all);
  const step = WIDTH / days.length;
  return html`<figure class="chart">
    <figcaption><span>Tokens by day</span><span>${tokens(most)}</span></figcaption>
    <svg viewBox=${`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" role="img" aria-label=${`Bars of tokens by day, at most ${exact(most)}`}>
      ${days.map((each, index) => {
        const height = all[index] ? Math.max(2, (HEIGHT * all[index]) / most) : 0;
        return html`<g key=${each.day}><title>${told(each)}</title>
          <rect class="slot" x=${index * step} y="0" width=${step} height=${HEIGHT} />
          <rect class="bar" x=${index * step + step * 0.14} y=${HEIGHT - height} width=${step * 0.72} height=${height} /></g>`;
      })}
    </svg>
    <div class="chart-days"><span>${days[0].day}</span><span>${days.at(-1).day}</span></div>
  </figure>`;
}

const told = (each) => `${each.day}: ${exact(each.tokens_in)} in, ${exact(each.tokens_out)} out, ${cost(each)}`;
