"use strict";
// Models as points: what an axis measures, which points are shown, which of them no other one beats.

const percent = (number) => number.toFixed(1) + "%";
const times = (number) => (number < 10 ? number.toFixed(2) : number.toFixed(1)) + "×";
const digits = (number) => Number(number.toPrecision(3)).toLocaleString("en");
const signed = (number) => (Math.abs(number) < 0.05 ? "0.0" : (number < 0 ? "−" : "+") + Math.abs(number).toFixed(1));
const part = { form: (number) => percent(100 * number), better: 1, tick: ".0%" };

// `label` names an axis in a choice, `title` beside the chart.
const ACROSS = {
  speedup: { label: "Speedup, whole model", title: "Measured speedup, whole model", scope: "model", field: "speedup", form: times, better: 1, log: true },
  encoder_speedup: { label: "Speedup, encoder", title: "Measured speedup, encoder", scope: "encoder", field: "speedup", form: times, better: 1, log: true },
  latency: { label: "Latency", title: "Time of a forward pass, ms", scope: "model", field: "ms", form: digits, better: -1, log: true },
  tokens: { label: "Throughput", title: "Tokens per second", scope: "model", field: "tokens_per_s", form: digits, better: 1, log: true },
  size: { label: "Size on disk", title: "Size on disk, MB", field: "size_mb", form: digits, better: -1 },
  parameters: { label: "Parameters", title: "Parameters", field: "parameters", form: digits, better: -1 },
  energy: { label: "Energy", title: "Energy of 1,000 texts, J", field: "energy_j", form: digits, better: -1 },
  encoder_sparsity: { label: "Sparsity, encoder", title: "Sparsity of the encoder's weights", field: "encoder_sparsity", ...part },
  whole_sparsity: { label: "Sparsity, whole model", title: "Sparsity of the whole model", field: "whole_sparsity", ...part },
  bytes_sparsity: { label: "Bytes saved", title: "Part of the bytes on disk saved", field: "bytes_sparsity", ...part },
};
const UPWARDS = {
  score: { label: "Score, %", field: "score", form: percent },
  change: { label: "Change from dense, points", field: "change", form: signed },
};
const COLOURS = {
  method: ["Method", (point) => point.model.method],
  runtime: ["Runtime", (point) => point.runtime], seed: ["Seed", (point) => point.model.seed],
  task: ["Task", (point) => point.model.task], asked: ["Target", (point) => point.model.asked || (point.model.dense ? "dense" : "none")],
};
const SYMBOLS = ["circle", "square", "triangle-up", "diamond", "triangle-down", "cross"];
const SIGNS = ["●", "■", "▲", "◆", "▼", "✚"];
const MOST_LISTED = 200;

// Every model in one axis: on one of time as often as it has runtimes, in the setting asked for.
function expand(axis, setting) {
  const found = [];
  for (const model of DATA.points) {
    if (!axis.scope) {
      if (model[axis.field]) found.push({ model, x: model[axis.field], runtime: model.main_runtime ?? "not timed" });
      continue;
    }
    for (const time of model.times) {
      if (time.scope !== axis.scope || (setting && time.setting !== setting)) continue;
      const x = time[axis.field] ?? (model.dense && axis.field === "speedup" ? [1] : undefined);
      if (x) found.push({ model, x, runtime: time.runtime });
    }
  }
  return found;
}

function settingsOf(axis) {
  const counts = new Map();
  for (const model of DATA.points) {
    for (const time of model.times) {
      if (!axis.scope || time.scope === axis.scope) counts.set(time.setting, (counts.get(time.setting) ?? 0) + 1);
    }
  }
  return [...counts].sort((one, other) => other[1] - one[1]).map(([text]) => text);
}

function usualAxis() {
  const usable = (name) => expand(ACROSS[name], "").some((point) => !point.model.dense);
  return ["speedup", "encoder_speedup", "encoder_sparsity"].find(usable) ?? "parameters";
}

// What the state asks for, with what is usual in the place of what it leaves open.
function wanted(state = readState()) {
  const xName = state.x in ACROSS ? state.x : usualAxis();
  const x = ACROSS[xName];
  const settings = settingsOf(x);
  const setting = settings.includes(state.setting) ? state.setting : settings[0] ?? "";
  const yName = state.y in UPWARDS ? state.y : "score";
  const colour = state.colour in COLOURS ? state.colour : "method";
  return { ...state, xName, x, yName, y: UPWARDS[yName], setting, settings, colour };
}

function shownPoints(want) {
  const filters = [
    ["task", (point) => point.model.task], ["method", (point) => point.model.method], ["seed", (point) => point.model.seed],
    ["runtime", (point) => point.runtime],
  ].filter(([name]) => want[name] !== "");
  return expand(want.x, want.setting)
    .filter((point) => point.model[want.y.field] && point.model.median === (want.points === "medians"))
    .map((point) => ({ ...point, y: point.model[want.y.field] }))
    .filter((point) => filters.every(([name, of]) => of(point) === want[name]));
}

// Those of one task that no other one matches in both numbers while it beats them in one. A speedup is over the dense
// model in the same runtime, so that runtimes have fronts of their own.
function front(points, axis) {
  const group = (point) => JSON.stringify([point.model.task, axis.field === "speedup" ? point.runtime : ""]);
  return unique(points.map(group)).map((name) => {
    let best = -Infinity;
    const own = points.filter((point) => group(point) === name)
      .sort((one, other) => axis.better * (other.x[0] - one.x[0]) || other.y[0] - one.y[0]);
    return own.filter((point) => point.y[0] > best && ((best = point.y[0]), true)).reverse();
  });
}

function reach(values) {
  const side = (end) => values.map((value) => (value.length < 3 ? 0 : Math.max(0, end(value))));
  return { type: "data", symmetric: false, array: side((v) => v[2] - v[0]), arrayminus: side((v) => v[0] - v[1]), thickness: 1, width: 2 };
}

function said(value, form) {
  return form(value[0]) + (value.length < 3 || form(value[1]) === form(value[2]) ? "" : ` (${form(value[1])} to ${form(value[2])})`);
}

function hover(point, want) {
  const lines = [
    `${point.model.name}, ${point.model.run}`, `${want.x.title}: ${said(point.x, want.x.form)}`,
    `${point.model.metric ?? "Score"}: ${said(point.model.score ?? point.y, percent)}`,
  ];
  if (point.model.change && !point.model.dense) lines.push(`Change from dense: ${said(point.model.change, signed)} points`);
  lines.push(`${point.model.task}, seed ${point.model.seed}${want.x.scope ? ", " + point.runtime : ""}`);
  return lines.map(inChart).join("<br>");
}

function groupsOf(points, want) {
  const of = COLOURS[want.colour][1];
  const names = [...new Set(points.map(of))].sort((one, other) => one.localeCompare(other, "en", { numeric: true }));
  const series = theme().series;
  return names.map((name, index) => {
    const round = Math.floor(index / series.length);
    const mark = (index + round) % SYMBOLS.length;
    return { name, colour: series[index % series.length], symbol: SYMBOLS[mark], sign: SIGNS[mark], points: points.filter((p) => of(p) === name) };
  });
}

function drawScatter(want) {
  const points = shownPoints(want);
  const groups = groupsOf(points, want);
  const fronts = front(points, want.x);
  const first = new Set(fronts.flat());
  const colours = theme();
  const traces = fronts.map((line) => ({
    x: line.map((p) => p.x[0]), y: line.map((p) => p.y[0]), mode: "lines", hoverinfo: "skip", name: "front",
    line: { color: colours.muted, width: 1.5, dash: "dot" },
  }));
  for (const group of groups) {
    const own = group.points;
    traces.push({
      x: own.map((p) => p.x[0]), y: own.map((p) => p.y[0]), mode: "markers", name: inChart(group.name), customdata: own.map((p) => p.model.key),
      hovertemplate: own.map((p) => hover(p, want) + "<extra></extra>"),
      error_x: { ...reach(own.map((p) => p.x)), color: group.colour }, error_y: { ...reach(own.map((p) => p.y)), color: group.colour },
      marker: {
        color: group.colour, symbol: group.symbol, size: own.map((p) => (first.has(p) ? 11 : 9)),
        line: { width: own.map((p) => (first.has(p) ? 1.5 : 1)), color: own.map((p) => (first.has(p) ? colours.ink : colours.paper)) },
      },
    });
  }
  const place = document.getElementById("scatter");
  draw(place, traces, {
    height: 440, xaxis: xAxis(points, want), yaxis: { title: { text: inChart(yTitle(points, want)) }, range: reachOf(points.map(({ y }) => y), 0.06) }, margin: { l: 60, r: 16, t: 12, b: 52 },
  });
  if (!place.dataset.ready) {
    place.dataset.ready = "yes";
    place.on("plotly_afterplot", () => drawRings(shownPoints(wanted()), wanted()));
    place.on("plotly_click", (event) => event.points[0].customdata && changeState({ model: event.points[0].customdata }));
  }
  describeScatter(points, first, want);
  drawRings(points, want);
  tellChosen(points, want);
  drawLegend(groups, want);
  listModels(points, first, want);
  return points;
}

// Rings around the chosen models, with their names, above the chart: drawn by plotly they would cost a new chart each.
function drawRings(points, want) {
  const place = document.getElementById("scatter");
  const { xaxis, yaxis, _size: size } = place._fullLayout;
  const rings = points.filter((point) => point.model.key === want.model || point.model.key === want.beside).map((point) => {
    const [across, down] = [xaxis.d2p(point.x[0]), yaxis.d2p(point.y[0])];
    const ring = make("span", point.model.name, { class: point.model.key === want.model ? "ring" : "ring kept" });
    ring.style.left = `${size.l + across}px`;
    ring.style.top = `${size.t + down}px`;
    ring.hidden = across < 0 || down < 0 || across > size.w || down > size.h;
    return ring;
  });
  document.getElementById("rings").replaceChildren(...rings);
}

// The chosen model in a line below the chart: all about it stands further down.
function tellChosen(points, want) {
  const point = points.find((one) => one.model.key === want.model);
  const line = document.getElementById("marked");
  if (!point) return line.replaceChildren();
  const button = make("button", "See all of it", { type: "button", class: "link" });
  button.addEventListener("click", () => CHOSEN.scrollIntoView({ behavior: "smooth" }));
  const change = point.model.change && !point.model.dense ? `, ${said(point.model.change, signed)} points from dense` : "";
  line.replaceChildren(make("strong", point.model.name), ` of ${point.model.run}: ${said(point.x, want.x.form)}, ${said(point.y, want.y.form)}${want.yName === "score" ? change : ""}. `, button);
  return undefined;
}

// Another model is chosen, and nothing else: its ring moves, and the table's button is the pressed one.
function markChosen(want) {
  const points = shownPoints(want);
  drawRings(points, want);
  tellChosen(points, want);
  for (const row of document.querySelectorAll("#listed tbody tr")) {
    row.querySelector("button").setAttribute("aria-pressed", row.dataset.key === want.model);
  }
}

// Ends of an axis that holds all points with their bars.
function reachOf(values, room) {
  if (!values.length) return [0, 1];
  const low = Math.min(...values.map((value) => value[1] ?? value[0])), high = Math.max(...values.map((value) => value[2] ?? value[0]));
  const more = room * (high - low || Math.abs(high) || 1);
  return [low - more, high + more];
}

function xAxis(points, want) {
  const axis = { title: { text: want.x.title }, tickformat: want.x.tick ?? "" };
  if (!points.length) return axis;
  if (!want.x.log) return { ...axis, range: reachOf(points.map(({ x }) => x), 0.04) };
  const low = Math.min(...points.map(({ x }) => x[1] ?? x[0])) / 1.1;
  const high = Math.max(...points.map(({ x }) => x[2] ?? x[0])) * 1.1;
  const fine = high / low < 4 ? [1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 6, 8] : [1, 2, 4, 8];
  const steps = [];
  const base = high / low < 4 ? 10 : 16;
  for (let power = -4; power < 8; power += 1) for (const step of fine) steps.push(step * base ** power);
  const ticks = steps.filter((step) => step >= low && step <= high);
  return { ...axis, type: "log", range: [Math.log10(low), Math.log10(high)], tickvals: ticks, ticktext: ticks.map((tick) => tickText(tick, want.x.form)) };
}

function tickText(tick, form) {
  return form === times ? `${Number(tick.toPrecision(3))}×` : form(tick);
}

function yTitle(points, want) {
  const metrics = [...new Set(points.map((point) => point.model.metric))];
  return want.yName === "score" && metrics.length === 1 ? `${metrics[0]}, %` : want.y.label;
}

function describeScatter(points, first, want) {
  document.getElementById("tradeoff-words").textContent = points.length
    ? `${points.length} points, ${first.size} of them on the front: ${yTitle(points, want)} against ${want.x.title}.${elsewhere(want)}`
    : "No model has both of these numbers in this setting. Choose other axes, or show all again.";
  document.getElementById("tradeoff-bars").textContent = want.points === "medians"
    ? "A point is a median over runs that differ in the seed only, its bars are minimum to maximum."
    : "A point is a model of one run. Its bars are the 95% interval where the record has it, else the quartiles of a time.";
}

// A chart of one setting says how many models were timed in others.
function elsewhere(want) {
  if (!want.x.scope) return "";
  const models = (setting) => unique(expand(want.x, setting).map((point) => point.model)).filter((model) => !model.median);
  const others = models("").length - models(want.setting).length;
  return others ? ` ${others} more ${others === 1 ? "model was" : "models were"} timed in another setting.` : "";
}

function drawLegend(groups, want) {
  const items = groups.map((group) => {
    const item = make("li");
    const filters = want.colour in EMPTY && want.colour !== "asked";
    const button = make(filters ? "button" : "span", group.name, filters ? { type: "button", "aria-pressed": want[want.colour] === group.name } : {});
    if (filters) button.addEventListener("click", () => changeState({ [want.colour]: want[want.colour] === group.name ? "" : group.name }));
    const sign = make("i", group.sign, { "aria-hidden": "true" });
    sign.style.color = group.colour;
    button.prepend(sign);
    item.append(button);
    return item;
  });
  document.getElementById("legend").replaceChildren(...items);
}

const LISTED = ["Model", "Run", "Method", "Task", "Seed", "Runtime"];

function listModels(points, first, want) {
  const table = document.querySelector("#listed table");
  const heads = [...LISTED, want.x.title, yTitle(points, want), "On the front"];
  const head = make("tr");
  head.append(...heads.map((text) => make("th", text, { scope: "col" })));
  table.tHead.replaceChildren(head);
  const sorted = [...points].sort((one, other) => other.y[0] - one.y[0]);
  table.tBodies[0].replaceChildren(...sorted.slice(0, MOST_LISTED).map((point) => listedRow(point, first, want)));
  const more = points.length - MOST_LISTED;
  document.querySelector("#listed > p").textContent = more > 0 ? `${more} more: narrow them down with the choices above.` : "";
}

function listedRow(point, first, want) {
  const row = make("tr");
  const head = make("th", "", { scope: "row" });
  const button = make("button", point.model.name, { type: "button", "aria-pressed": want.model === point.model.key });
  button.addEventListener("click", () => changeState({ model: point.model.key }));
  head.append(button);
  const { run, method, task, seed } = point.model;
  const texts = [run, method, task, seed, point.runtime, said(point.x, want.x.form), said(point.y, want.y.form), first.has(point) ? "yes" : ""];
  row.dataset.key = point.model.key;
  row.append(head, ...texts.map((text) => make("td", text)));
  return row;
}

function scatterCsv(want) {
  const columns = [
    "model", "run", "method", "recipe", "task", "seed", "runtime", "setting", want.xName, `${want.xName}_low`, `${want.xName}_high`,
    want.yName, `${want.yName}_low`, `${want.yName}_high`,
  ];
  const rows = shownPoints(want).map(({ model, runtime, x, y }) => [
    model.name, model.run, model.method, model.family, model.task, model.seed, runtime, want.x.scope ? want.setting : "",
    x[0], x[1], x[2], y[0], y[1], y[2],
  ]);
  saveCsv("trade-off", columns, rows);
}
