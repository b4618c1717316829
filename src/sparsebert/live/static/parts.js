"use strict";
// Heads and parts of feedforward blocks of one model switched off, and what that costs.

const PARTS = document.getElementById("parts");
const partsOf = new Map();
const measured = [];
let drawnParts = null;

function prepareParts() {
  const form = PARTS.querySelector("form");
  form.elements.of.addEventListener("change", (event) => changeState({ of: event.target.value }));
  form.addEventListener("submit", (event) => event.preventDefault());
  PARTS.querySelector("[data-act=all-on]").addEventListener("click", () => changeState({ off: "" }));
  PARTS.querySelector("[data-act=measure]").addEventListener("click", measureParts);
}

// What the address says is off: names of parts with dots between them, as 2h5.2h7.3n1.
function namesOff() {
  return new Set(readState().off.split(".").filter((name) => name));
}

function chosenPlace() {
  return readState().of === "left" ? 0 : 1;
}

function askedModel() {
  const { left, right } = sidesWanted();
  return [left, right][chosenPlace()];
}

async function askParts(key) {
  if (!partsOf.has(key)) {
    partsOf.set(key, fetch("live/parts?key=" + encodeURIComponent(key)).then((answer) => answer.json()).catch(() => {
      partsOf.delete(key);
      return { problem: "The server does not answer." };
    }));
  }
  return partsOf.get(key);
}

async function drawParts() {
  const { left, right } = sidesWanted();
  const select = PARTS.querySelector("[name=of]");
  options(select, [["left", `First: ${left.name}`], ["right", `Second: ${right.name}`]], readState().of === "left" ? "left" : "right");
  if (!awake) return;
  const { key } = askedModel();
  const told = await askParts(key);
  if (askedModel().key !== key) return;
  PARTS.querySelector(".warning").textContent = told.problem ?? "";
  PARTS.querySelector("[data-act=measure]").hidden = PARTS.querySelector("[data-act=all-on]").hidden = Boolean(told.problem);
  if (drawnParts !== told) {
    document.getElementById("parts-map").replaceChildren(...layerRows(told.layers ?? []));
    drawnParts = told;
  }
  markParts(told.layers ?? []);
}

const headNames = (layer) => layer.heads.map((head) => `${layer.layer}h${head}`);
const blockNames = (layer) => Array.from({ length: layer.quarters }, (_, place) => `${layer.layer}n${place + 1}`);

// Heads that are gone leave their places empty.
function layerRows(layers) {
  const most = Math.max(0, ...layers.flatMap((layer) => layer.heads));
  return layers.map((layer) => layerRow(layer, most));
}

function layerRow(layer, most) {
  const row = make("div", "", { class: "layer", role: "group", "aria-label": `Layer ${layer.layer}` });
  const name = make("strong", `Layer ${layer.layer}`, { "aria-hidden": "true" });
  const heads = make("span", "", { class: "units heads" }), block = make("span", "", { class: "units block" });
  if (layer.heads.length) {
    heads.append(toggle("attention", headNames(layer), `Layer ${layer.layer}, all heads`));
    const there = new Set(layer.heads), places = Array.from({ length: most }, (_, place) => place + 1);
    heads.append(...places.map((head) => (there.has(head) ? toggle(String(head), [`${layer.layer}h${head}`], `Layer ${layer.layer}, head ${head}`) : make("i", "", { "aria-hidden": "true" }))));
  } else heads.append(make("small", "no heads are left"));
  if (layer.quarters) {
    block.append(toggle(layer.trees ? "trees" : "feedforward", blockNames(layer), `Layer ${layer.layer}, ${layer.trees ? "trees" : "feedforward block"}`));
    if (layer.quarters > 1) block.append(...blockNames(layer).map((one, place) => toggle(`n${place + 1}`, [one], `Layer ${layer.layer}, ${quarterWords(place, layer.quarters)}`)));
  } else block.append(make("small", "no feedforward block is left"));
  row.append(name, heads, block);
  return row;
}

function quarterWords(place, count) {
  const sizes = ["largest weights", ...Array(Math.max(0, count - 2)).fill(""), "smallest weights"];
  return `neurons, quarter ${place + 1}${sizes[place] ? `, ${sizes[place]}` : ""}`;
}

// A button of one part, or of several that it switches together.
function toggle(text, names, label) {
  const button = make("button", text, { type: "button", "aria-label": label, title: label, "data-parts": names.join(".") });
  if (names.length > 1) button.classList.add("whole");
  button.addEventListener("click", () => {
    const off = namesOff(), every = names.every((name) => off.has(name));
    for (const name of names) every ? off.delete(name) : off.add(name);
    changeState({ off: [...off].sort((one, other) => one.localeCompare(other, "en", { numeric: true })).join(".") });
  });
  return button;
}

function markParts(layers) {
  const off = namesOff();
  for (const button of PARTS.querySelectorAll("#parts-map button")) {
    const names = button.dataset.parts.split("."), count = names.filter((name) => off.has(name)).length;
    button.setAttribute("aria-pressed", count > 0 && count < names.length ? "mixed" : String(count > 0));
  }
  const here = layers.flatMap((layer) => [...headNames(layer), ...blockNames(layer)]);
  const gone = layers.length ? [...off].filter((name) => !here.includes(name)) : [];
  const found = [...off].filter((name) => here.includes(name));
  const words = found.length ? `Off: ${partsWords(found, layers)}.` : layers.length ? "Everything is on." : "";
  document.getElementById("parts-words").textContent = words + (gone.length ? ` This model has none of these: ${partsWords(gone, layers)}.` : "");
}

// All heads of a layer, or its whole block, in a word.
function partsWords(names, layers) {
  const left = new Set(names), words = [];
  for (const layer of layers) {
    for (const [all, what] of [[headNames(layer), "all heads"], [blockNames(layer), layer.trees ? "the trees" : "the feedforward block"]]) {
      if (!all.length || !all.every((name) => left.has(name))) continue;
      words.push([layer.layer, `${what} of layer ${layer.layer}`]);
      all.forEach((name) => left.delete(name));
    }
  }
  const several = new Map();
  for (const name of left) {
    const [, layer, kind, number] = /^(\d+)([hn])(\d+)$/.exec(name) ?? [];
    if (!kind) words.push([Infinity, name.slice(0, 40)]);
    else several.set(layer + kind, [...(several.get(layer + kind) ?? []), number]);
  }
  for (const [place, numbers] of several) {
    const what = place.endsWith("h") ? ["head", "heads"] : ["quarter", "quarters"];
    const after = place.endsWith("h") ? "" : " of the neurons";
    words.push([parseInt(place), `${what[Number(numbers.length > 1)]} ${numbers.join(", ")}${after} of layer ${parseInt(place)}`]);
  }
  return words.sort(([one], [other]) => one - other).map(([, text]) => text).join("; ");
}

async function measureParts() {
  const file = await chosenFile(PARTS);
  if (file === null) return;
  const { layers = [] } = await askParts(askedModel().key);
  const here = new Set(layers.flatMap((layer) => [...headNames(layer), ...blockNames(layer)]));
  const off = [...namesOff()].filter((name) => here.has(name));
  if (!off.length) return say(PARTS, "Nothing is switched off: click a head or a feedforward block first.", true);
  const label = PARTS.querySelector("[name=label]").value;
  work(PARTS, { what: "parts", side: chosenPlace(), off, file, label }, (found) => found.change && drawEffect(found, layers, file?.name));
}

function drawEffect(found, layers, file) {
  const words = partsWords(found.off, layers);
  measured.unshift({ ...found, words, where: file ? found.where.replace("the file", file) : found.where });
  const parts = [make("p", effectText(measured[0]), { class: "verdict" }), make("p", effectNotes(measured[0]), { class: "caption" })];
  parts.push(measuredTable(), measuredSaves());
  PARTS.querySelector(".found").replaceChildren(...parts);
}

const hundredth = (value) => (100 * value).toFixed(1).replace("-", "−");
const pointsApart = (value) => signed(100 * value);
const metricName = ({ metric }) => ({ agreement: "agreement with itself", cosine: "cosine with its own vectors", "rank correlation": "rank correlation with its own answers" })[metric] ?? metric.replaceAll("_", " ");
const ranged = ({ value, low, high }, form) => form(value) + (low === null ? "" : ` (${form(low)} to ${form(high)})`);

function effectText(one) {
  const { value, low, high } = one.change;
  const chance = low === null || (low <= 0 && high >= 0) ? (value === 0 && low === 0 && high === 0 ? "" : ", which may be chance") : "";
  const interval = low === null ? "" : ` (95% interval ${pointsApart(low)} to ${pointsApart(high)})`;
  return `${one.name} without ${one.words}: ${metricName(one)} ${hundredth(one.before.value)} before, ${hundredth(one.after.value)} after: ${pointsApart(value)} points${interval}${chance}, n = ${one.texts.toLocaleString("en")}.`;
}

function effectNotes(one) {
  const cut = one.cut ? ` ${one.cut.toLocaleString("en")} of them were cut: they are too long for the model.` : "";
  return `On ${one.where}, in ${one.seconds.toFixed(1)} s on ${one.threads} ${one.threads === 1 ? "thread" : "threads"}; points of 100; intervals by a bootstrap over texts, of the change paired by text. What is switched off gives nothing, and nothing was trained after it.${cut}`;
}

const MEASURED = ["Switched off", "Change", "Before", "After", "Measured", "Texts", "Model"];

function measuredTable() {
  const table = make("table", "", { class: "inline measured" });
  const head = make("tr");
  head.append(...MEASURED.map((text) => make("th", text, { scope: "col" })));
  table.createTHead().append(head);
  const body = table.createTBody();
  for (const one of measured) {
    const row = make("tr");
    const cells = [one.words, ranged(one.change, pointsApart), ranged(one.before, hundredth), ranged(one.after, hundredth), metricName(one), one.texts.toLocaleString("en"), one.name];
    row.append(...cells.map((cell) => make("td", cell)));
    body.append(row);
  }
  const scroll = make("div", "", { class: "scroll tall-list", tabindex: "0", role: "region", "aria-label": "What was measured so far, the latest first" });
  scroll.append(table);
  return scroll;
}

function measuredSaves() {
  const line = make("p", "", { class: "saves" });
  const button = make("button", "CSV", { type: "button", "data-save": "csv" });
  const columns = ["model", "off", "metric", ...["before", "after", "change"].flatMap((name) => [name, `${name}_low`, `${name}_high`]), "texts", "rows", "seconds", "threads"];
  button.addEventListener("click", () => saveCsv("switched-off", columns, measured.map((one) => [one.name, one.off.join(" "), one.metric, ...[one.before, one.after, one.change].flatMap(({ value, low, high }) => [value, low, high]), one.texts, one.where, one.seconds, one.threads])));
  line.append(button);
  return line;
}
