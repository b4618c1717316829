"use strict";
// Which tokens mattered to each model, and what its heads look at.

function drawInside({ sides }) {
  const box = make("div", "", { class: "sides" });
  box.append(...sides.map(insideOf));
  const note = make("p", "Gradient times input of the output named, by what the first layer is given for each token: solid underlined in its favour, dashed against it, the stronger the colour the more. Of classes the output is the logit of the label less the mean of all logits. It is a first-order view: tokens that matter together it does not show.", { class: "caption" });
  const place = document.getElementById("inside");
  for (const old of place.querySelectorAll(".chart")) Plotly.purge(old);
  place.replaceChildren(...(sides.length ? [make("h3", "Which tokens mattered"), note, box] : []));
}

function insideOf(side) {
  const box = make("article");
  const head = make("h3", side.name + " ");
  box.append(head);
  if (side.problem) {
    box.append(make("p", side.problem, { class: "notice failed" }));
    return box;
  }
  head.append(make("small", side.said));
  const most = Math.max(...side.parts.map(Math.abs), Number.MIN_VALUE);
  const list = make("ol", "", { class: "tokens" });
  list.append(...side.tokens.map((token, place) => tokenOf(token, side.parts[place], most)));
  box.append(list);
  if (side.cut) box.append(make("p", `The first ${side.cut} tokens only.`, { class: "caption" }));
  if (side.layers.length) box.append(attentionOf(side));
  else box.append(make("p", "Models of this family do not tell their attention.", { class: "caption" }));
  return box;
}

function tokenOf(token, part, most) {
  const text = `${part < 0 ? "−" : "+"}${digits(Math.abs(part))}`;
  const item = make("li", token, { title: text, class: part < 0 ? "against" : "for", "aria-label": `${token}: ${text}` });
  const share = Math.round(45 * Math.sqrt(Math.abs(part) / most));
  item.style.backgroundColor = `color-mix(in srgb, var(${part < 0 ? "--bad" : "--accent"}) ${share}%, transparent)`;
  return item;
}

// Drawn when it is opened; layer by layer on demand.
function attentionOf(side) {
  const box = make("details");
  box.append(make("summary", `Attention of the ${side.layers.reduce((sum, { heads }) => sum + heads.length, 0)} heads that are left`));
  const label = make("label", "Layer ", { class: "tall" });
  const select = make("select");
  options(select, [["", "all, mean over the heads of each"], ...side.layers.map(({ layer, heads }, place) => [String(place), `${layer}: ${heads.length} heads`])], "");
  label.append(select);
  const chart = make("div", "", { class: "chart", role: "img", "aria-label": `Attention that each token gets in ${side.name}, a mean over the tokens that pay it` });
  box.append(label, chart, make("p", "Attention that each token gets, a mean over the tokens that pay it.", { class: "caption" }));
  const redraw = () => box.open && box.isConnected && drawAttention(chart, side, select.value);
  box.addEventListener("toggle", redraw);
  select.addEventListener("change", redraw);
  document.addEventListener("theme", redraw);
  return box;
}

function drawAttention(chart, side, chosen) {
  const colours = theme();
  const mean = (paid) => side.tokens.map((_, token) => (paid.length ? paid.reduce((sum, head) => sum + head[token], 0) / paid.length : null));
  const layer = chosen === "" ? null : side.layers[Number(chosen)];
  const rows = layer ? layer.paid.map((head, place) => [`head ${layer.heads[place]}`, head]) : side.layers.map(({ layer: number, paid }) => [`layer ${number}`, mean(paid)]);
  const places = side.tokens.map((_, place) => place);
  draw(chart, [{
    type: "heatmap", z: rows.map(([, row]) => row), x: places, y: rows.map(([name]) => name), text: rows.map(() => side.tokens.map(inChart)),
    hovertemplate: "%{y}, %{text}: %{z:.3f}<extra></extra>", zmin: 0, colorscale: [[0, colours.faint], [1, colours.heads]],
    xgap: 1, ygap: 2, showscale: false,
  }], {
    height: rows.length * 22 + 110, margin: { l: 64, r: 8, t: 8, b: 90 },
    xaxis: { tickvals: places, ticktext: side.tokens.map(inChart), tickangle: -60, showgrid: false, tickfont: { size: side.tokens.length > 40 ? 8 : 11, color: colours.muted } },
    yaxis: { autorange: "reversed", showgrid: false },
  });
}
