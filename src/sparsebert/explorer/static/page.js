"use strict";
// The page's life: its choices, the models below the trade-off, and whether there is something new.

const CONTROLS = document.getElementById("controls");
const CHOSEN = document.getElementById("chosen");
const NEWS_MS = 5000;

function options(select, entries, value, usable = () => true) {
  const made = entries.map(([name, text]) => {
    const option = make("option", text, { value: name });
    option.disabled = !usable(name);
    return option;
  });
  select.replaceChildren(...made);
  select.value = value;
  select.disabled = entries.length < 2;
}

function drawControls(state, want) {
  const choose = (name) => CONTROLS.elements[name];
  const named = (table) => Object.entries(table).map(([name, entry]) => [name, entry.label ?? entry[0]]);
  options(choose("x"), named(ACROSS), want.xName, (name) => expand(ACROSS[name], "").length > 0);
  options(choose("y"), named(UPWARDS), want.yName, (name) => DATA.points.some((point) => point[name]));
  options(choose("setting"), want.settings.map((text) => [text, text]), want.setting);
  options(choose("colour"), named(COLOURS), want.colour);
  options(choose("points"), [["runs", "Every run"], ["medians", "Medians over seeds"]], want.points, (name) => name === "runs" || DATA.points.some((point) => point.median));
  const all = expand(want.x, want.setting).filter((point) => point.model.median === (want.points === "medians"));
  const kinds = { task: (p) => p.model.task, method: (p) => p.model.method, runtime: (p) => p.runtime, seed: (p) => p.model.seed };
  for (const [name, of] of Object.entries(kinds)) {
    const here = name === "task" ? all : all.filter((point) => !state.task || point.model.task === state.task);
    const found = unique([...here.map(of), state[name]]).filter((text) => text !== "");
    found.sort((one, other) => one.localeCompare(other, "en", { numeric: true }));
    options(choose(name), [["", "all"], ...found.map((text) => [text, text])], state[name]);
  }
}

const fragments = new Map();

async function fragment(key) {
  if (!DATA.live) return MODELS[key];
  if (fragments.has(key)) return fragments.get(key);
  const answer = await fetch("model?key=" + encodeURIComponent(key));
  const html = await answer.text();
  if (!answer.ok) throw new Error(html);
  // Enough to go back and forth, and not so much that a day's clicks fill the memory.
  if (fragments.size >= 50) fragments.delete(fragments.keys().next().value);
  fragments.set(key, html);
  return html;
}

let shownKeys = "";

async function drawChosen(state) {
  const keys = [state.beside, state.model].filter((key, place, all) => key && all.indexOf(key) === place);
  const asked = JSON.stringify(keys);
  if (asked === shownKeys) return;
  shownKeys = asked;
  const articles = await Promise.all(keys.map(article));
  if (asked !== shownKeys) return;
  for (const old of CHOSEN.querySelectorAll("article")) dropPictures(old);
  if (!articles.length) articles.push(make("p", "Click a point, or a line of the table, to see what is left of that model.", { class: "caption", id: "hint" }));
  CHOSEN.className = articles.length > 1 ? "beside" : "";
  CHOSEN.replaceChildren(...(articles.length > 1 ? [comparison(articles)] : []), ...articles);
  for (const one of articles.filter((element) => element.matches("article"))) {
    one.querySelector("[data-act=drop]").hidden = articles.length < 2 && !state.beside;
    drawPictures(one);
  }
}

async function article(key) {
  let html;
  try {
    html = await fragment(key);
  } catch (error) {
    return make("p", `${key} cannot be shown: ${error.message || "the server does not answer"}`, { class: "notice failed" });
  }
  if (html === undefined) return make("p", `There is no model ${key} here.`, { class: "notice failed" });
  const box = document.createElement("template");
  box.innerHTML = html;
  const found = box.content.querySelector("article");
  found.querySelector("[data-act=keep]").addEventListener("click", () => keep(key));
  found.querySelector("[data-act=drop]").addEventListener("click", () => changeState({ beside: "", model: key }));
  return found;
}

function keep(key) {
  changeState({ beside: key, model: key });
  document.getElementById("tradeoff").scrollIntoView({ behavior: "smooth" });
}

// The facts of both, a line each: what one of them lacks is a dash.
function comparison(articles) {
  const facts = articles.map((one) => new Map([...one.querySelectorAll(".facts > div")].map((fact) => [fact.children[0].textContent, fact.children[1]])));
  const table = document.createElement("table");
  const head = make("tr");
  head.append(make("th"), ...articles.map((one) => make("th", one.dataset.name ?? "", { scope: "col" })));
  table.createTHead().append(head);
  const body = table.createTBody();
  for (const name of unique(facts.flatMap((own) => [...own.keys()]))) {
    const row = make("tr");
    row.append(make("th", name, { scope: "row" }), ...facts.map((own) => factCell(own.get(name))));
    body.append(row);
  }
  const section = document.createElement("section");
  section.id = "comparison";
  const scroll = make("div", "", { class: "scroll" });
  scroll.append(table);
  section.append(make("h2", "Side by side"), scroll);
  return section;
}

function factCell(fact) {
  const cell = make("td", fact ? "" : "–");
  cell.append(...[...(fact?.childNodes ?? [])].map((node) => node.cloneNode(true)));
  return cell;
}

const drawn = { scatter: "", whatif: "" };

// Draws only where what it is drawn from has changed: a click moves a ring, a slider changes a sentence.
function drawAll() {
  const state = readState(), want = wanted(state);
  const { model, beside, speed, lost, ...more } = state;
  const rest = Object.entries(more).filter(([name]) => !(name in ASKED));
  const [scatter, whatif] = [JSON.stringify(rest), JSON.stringify([rest, speed, lost])];
  if (scatter === drawn.scatter) markChosen(want);
  else {
    drawControls(state, want);
    drawScatter(want);
  }
  if (whatif !== drawn.whatif) drawWhatIf(state);
  Object.assign(drawn, { scatter, whatif });
  drawChosen(state);
}

function redrawPictures() {
  drawn.scatter = "";
  drawAll();
  for (const one of CHOSEN.querySelectorAll("article")) drawPictures(one);
}

async function lookForNews() {
  if (document.hidden) return;
  try {
    const { version } = await (await fetch("state")).json();
    if (version === DATA.version) return;
    if (HELD.page) tellNews();
    else location.reload();
  } catch (error) {
    // The server has gone; what is here can still be read, and it may come back.
    console.info("no news: " + error.message);
  }
}

// Answers of models are on the page: whoever reads them says when.
function tellNews() {
  if (document.getElementById("news")) return;
  const line = make("p", "There is something new among the runs. ", { class: "notice", id: "news", role: "status" });
  const button = make("button", "Load it", { type: "button" });
  button.addEventListener("click", () => location.reload());
  line.append(button);
  document.querySelector("header").after(line);
}

CONTROLS.addEventListener("change", (event) => changeState({ [event.target.name]: event.target.value }));
CONTROLS.addEventListener("submit", (event) => event.preventDefault());
document.getElementById("reset").addEventListener("click", () => {
  const state = readState();
  const kept = ["model", "beside", ...Object.keys(ASKED)].map((name) => [name, state[name]]);
  changeState({ ...EMPTY, ...Object.fromEntries(kept) });
});
for (const name of ["speed", "lost"]) {
  document.querySelector(`#whatif [name=${name}]`).addEventListener("input", (event) => changeState({ [name]: event.target.value }, false));
}
document.querySelector("#tradeoff [data-save=png]").addEventListener("click", () => savePng(document.getElementById("scatter"), "trade-off", true));
document.querySelector("#tradeoff [data-save=csv]").addEventListener("click", () => scatterCsv(wanted()));
document.addEventListener("state", drawAll);
document.addEventListener("theme", redrawPictures);
// On a phone the chart comes first.
if (innerWidth < 760) document.getElementById("choices").open = false;
drawAll();
if (DATA.live) setInterval(lookForNews, NEWS_MS);
