"use strict";
// What the page shows is in its address, behind the #: a link keeps it, and "back" goes one step back.

const DATA = JSON.parse(document.getElementById("data").textContent);

// Which models are asked, how they run, and what of one is switched off: see the part of the page that asks them, where there is one.
const ASKED = { left: "", right: "", left_runtime: "", right_runtime: "", threads: "", of: "right", off: "" };
const EMPTY = {
  x: "", y: "score", setting: "", colour: "method", points: "runs",
  task: "", method: "", runtime: "", seed: "", speed: "", lost: "", model: "", beside: "",
  ...ASKED,
};
// Whether there is something on the page that would be lost if it were loaded anew.
const HELD = { page: false };

function readState() {
  const given = new URLSearchParams(location.hash.slice(1));
  return Object.fromEntries(Object.entries(EMPTY).map(([name, usual]) => [name, given.get(name) ?? usual]));
}

// `step` = a new entry of the history; else the one at hand is replaced, as sliders would fill it.
function changeState(changes, step = true) {
  const next = new URLSearchParams();
  for (const [name, value] of Object.entries({ ...readState(), ...changes })) {
    if (value !== EMPTY[name]) next.set(name, value);
  }
  const hash = "#" + next;
  if (hash === (location.hash || "#")) return;
  if (step) history.pushState(null, "", hash);
  else history.replaceState(null, "", hash);
  document.dispatchEvent(new Event("state"));
}

window.addEventListener("popstate", () => document.dispatchEvent(new Event("state")));

// Colours and letters of charts: those of the page, in the light and in the dark.
const DARKNESS = matchMedia("(prefers-color-scheme: dark)");
DARKNESS.addEventListener("change", () => document.dispatchEvent(new Event("theme")));

const unique = (values) => [...new Set(values)];

function theme() {
  return DATA.themes[DARKNESS.matches ? "dark" : "light"];
}

// plotly reads some markup in texts; names of models and recipes are to be read letter by letter.
function inChart(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

function layout(more) {
  const colours = theme();
  const axis = {
    gridcolor: colours.faint, linecolor: colours.muted, zeroline: false, automargin: true,
    tickfont: { color: colours.muted, size: 12 }, title: { font: { size: 13 } }, fixedrange: matchMedia("(pointer: coarse)").matches,
  };
  const axes = Object.fromEntries(Object.entries(more).filter(([name]) => /^[xy]axis/.test(name))
    .map(([name, own]) => [name, { ...axis, ...own, title: { ...axis.title, ...own.title } }]));
  return {
    paper_bgcolor: colours.paper, plot_bgcolor: colours.paper, showlegend: false, hovermode: "closest", dragmode: "zoom",
    font: { family: "system-ui, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif", color: colours.ink, size: 13 },
    hoverlabel: { bgcolor: colours.paper, bordercolor: colours.muted, font: { color: colours.ink, size: 13 }, align: "left" },
    margin: { l: 56, r: 16, t: 12, b: 48 }, ...more, ...axes,
  };
}

function draw(place, traces, form) {
  return Plotly.react(place, traces, layout(form), { displayModeBar: false, responsive: true });
}

function make(tag, text = "", attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// What a spreadsheet would take for a formula begins with an apostrophe.
function csvCell(value) {
  if (value === null || value === undefined) return "";
  const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? "'" + value : String(value);
  return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}

function saveCsv(name, columns, rows) {
  const text = [columns, ...rows].map((row) => row.map(csvCell).join(",")).join("\r\n") + "\r\n";
  const link = make("a", "", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: name + ".csv" });
  link.click();
  URL.revokeObjectURL(link.href);
}

// `legend` = with names of the colours, which stand beside the chart on the page.
function savePng(place, name, legend = false) {
  const form = { ...place.layout, showlegend: legend, legend: { orientation: "h", y: -0.2 } };
  const size = { width: place.clientWidth, height: place.clientHeight + (legend ? 120 : 0) };
  Plotly.downloadImage({ data: place.data, layout: { ...form, ...size } }, { format: "png", scale: 2, filename: name, ...size });
}

function fileName(text) {
  return text.replace(/[^\p{L}\p{N}.=-]+/gu, "-").slice(0, 80);
}
