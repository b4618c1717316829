"use strict";
// Which two models are asked, and how their work is waited for.

const LIVE = DATA.annex;
const SIDES = document.getElementById("sides");
const POLL_MS = 200, WAIT_MS = 1000;
const modelOf = new Map(LIVE.models.map((model) => [model.key, model]));

// What was chosen, else the chosen point, and beside it the dense model of its run.
function sidesWanted(state = readState()) {
  const all = LIVE.models;
  const point = modelOf.get(state.model) ?? modelOf.get(LIVE.medians[state.model]);
  const right = modelOf.get(state.right) ?? (point && !point.dense ? point : undefined) ?? all.find((model) => !model.dense && model !== all[0]) ?? all.at(-1);
  const run = (model) => model.key.slice(0, model.key.lastIndexOf("/"));
  const dense = (like) => all.find((model) => model.dense && like(model));
  const left = modelOf.get(state.left) ?? dense((model) => run(model) === run(right)) ?? dense((model) => model.task === right.task) ?? all[0];
  return { left, right };
}

const details = new Map();

async function detailsOf(key) {
  if (!details.has(key)) {
    details.set(key, fetch("live/model?key=" + encodeURIComponent(key)).then((answer) => answer.json()).catch(() => {
      details.delete(key);
      return { problem: "The server does not answer.", runtimes: [], examples: [] };
    }));
  }
  return details.get(key);
}

async function drawSides() {
  const state = readState(), { left, right } = sidesWanted(state);
  for (const [name, model] of Object.entries({ left, right })) {
    options(SIDES.elements[name], LIVE.models.map((one) => [one.key, one.name]), model.key);
    SIDES.elements[name].disabled = false;
  }
  SIDES.elements.threads.value = state.threads || LIVE.cores;
  drawParts();
  if (!awake) return;
  const told = await Promise.all([left, right].map((model) => detailsOf(model.key)));
  const now = sidesWanted();
  if (now.left !== left || now.right !== right) return;
  [["left_runtime", told[0]], ["right_runtime", told[1]]].forEach(([name, one]) => drawRuntimes(name, one));
  document.getElementById("sides-problem").textContent = unique(told.map((one) => one.problem ?? "")).join(" ").trim();
  drawExamples(told[1].examples ?? []);
}

function drawRuntimes(name, { runtimes = [] }) {
  const select = SIDES.elements[name];
  const usable = runtimes.filter((one) => !one.obstacle).map((one) => one.name);
  const wish = readState()[name];
  const entries = (runtimes.length ? runtimes : [{ name: "auto" }]).map((one) => [one.name, one.name === "auto" ? "auto: the fastest here" : one.name + (one.obstacle ? ": not here" : "")]);
  options(select, entries, usable.includes(wish) ? wish : "auto", (one) => one === "auto" || usable.includes(one));
  [...select.options].forEach((option, place) => { option.title = runtimes[place]?.obstacle ?? ""; });
}

// Opening torch takes seconds: the server is first asked about models when somebody comes near.
let awake = false;

function wake() {
  if (awake) return;
  awake = true;
  drawSides();
}

function askedSides() {
  const { left, right } = sidesWanted();
  const side = (model, name) => ({ key: model.key, runtime: SIDES.elements[name].value || readState()[name] || "auto" });
  return { left: side(left, "left_runtime"), right: side(right, "right_runtime"), threads: Number(SIDES.elements.threads.value) };
}

async function posted(path, content) {
  const answer = await fetch(path, { method: "POST", body: JSON.stringify(content), headers: { "Content-Type": "application/json" } });
  const told = await answer.json();
  if (told.problem) throw new Error(told.problem);
  return told;
}

const numbers = new Set();

function say(section, text, failed = false) {
  const line = section.querySelector(".line");
  line.textContent = text;
  line.classList.toggle("failed", failed);
}

// Puts work in the line and waits for it; `shown` gets what is found on the way. Ends with a line, whatever happens.
async function work(section, asked, shown) {
  const buttons = [...section.querySelectorAll("button:not([data-save], [data-parts])")];
  const stop = buttons.find((button) => button.dataset.act === "stop");
  for (const button of buttons) button.disabled = button !== stop;
  if (stop) stop.hidden = false;
  HELD.page = true;
  let number;
  const stopped = () => number && posted("live/stop", { number }).catch((error) => say(section, error.message, true));
  stop?.addEventListener("click", stopped);
  say(section, "…");
  try {
    ({ number } = await posted("live/work", { ...askedSides(), ...asked }));
    numbers.add(number);
    await watch(section, number, shown);
  } catch (error) {
    say(section, error instanceof TypeError ? "The server does not answer." : error.message, true);
  } finally {
    numbers.delete(number);
    stop?.removeEventListener("click", stopped);
    for (const button of buttons) button.disabled = false;
    if (stop) stop.hidden = true;
  }
}

async function watch(section, number, shown) {
  for (;;) {
    const answer = await fetch("live/work?number=" + encodeURIComponent(number));
    const told = await answer.json();
    if (!answer.ok) throw new Error(told.problem);
    if (Object.keys(told.found).length) shown(told.found, told.state);
    if (told.state === "failed") throw new Error(told.line);
    if (told.state === "stopped") return say(section, "Stopped.");
    if (told.state === "done") return say(section, "");
    say(section, told.line || told.found.line || "");
    await new Promise((resolve) => setTimeout(resolve, told.state === "waiting" ? WAIT_MS : POLL_MS));
  }
}

// 12.3 (11.9 to 12.8)
function spreadText(spread, form) {
  return spread ? said([spread.median, spread.q25, spread.q75], form) : "–";
}

// The interval of the median says whether one is faster at all; the turns themselves spread wider.
function fasterText(faster, names) {
  if (!faster) return "";
  const few = faster.low === null;
  const chance = few ? "; more turns are needed to tell that from chance" : faster.low <= 1 && faster.high >= 1 ? ", which may be chance" : "";
  const known = few ? ` in ${faster.n} turns` : ` (95% interval of the median ${times(faster.low)} to ${times(faster.high)}, ${faster.n} turns)`;
  return `${names[1]} is ${times(faster.median)} as fast as ${names[0]}${known}${chance}.`;
}

if (SIDES) {
  SIDES.addEventListener("change", (event) => changeState({ [event.target.name]: event.target.value }));
  SIDES.addEventListener("submit", (event) => event.preventDefault());
  document.addEventListener("state", drawSides);
  const near = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && wake(), { rootMargin: "200px" });
  for (const id of ["live", "own-file", "parts", "race"]) {
    near.observe(document.getElementById(id));
    document.getElementById(id).addEventListener("focusin", wake);
  }
  addEventListener("pagehide", () => numbers.forEach((number) => navigator.sendBeacon("live/stop", JSON.stringify({ number }))));
  prepareAsk();
  prepareFile();
  prepareParts();
  prepareRace();
  // Pressed before, they would have sent their forms and loaded the page anew.
  for (const button of document.querySelectorAll("[data-waits]")) button.disabled = false;
  drawSides();
}
