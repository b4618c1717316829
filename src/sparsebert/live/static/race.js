"use strict";
// The same texts through both models, as it happens.

const RACE = document.getElementById("race");

function prepareRace() {
  const form = RACE.querySelector("form");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const file = await chosenFile(RACE);
    if (file === null) return;
    const { texts, batch, memory } = form.elements;
    RACE.querySelector(".found").replaceChildren();
    work(RACE, { what: "race", file, texts: Number(texts.value), batch: Number(batch.value), memory: Number(memory.value) }, drawRace);
  });
}

function drawRace(found, state) {
  if (!found.total) return;
  const place = RACE.querySelector(".found");
  if (!place.children.length) place.append(laneOf(), laneOf(), make("p", "", { class: "verdict", role: "status" }), make("p", "", { class: "caption" }));
  const [one, other, verdict, note] = place.children;
  const sides = found.sides;
  [one, other].forEach((lane, side) => drawLane(lane, sides[side], found.total));
  // Readers of screens hear the end, not every step of it.
  verdict.textContent = found.over ? raceText(found) : "";
  const turns = `${found.turns} turn${found.turns === 1 ? "" : "s"}${sides.every((side) => side.fits) ? " each" : ""}${state === "done" ? "" : " so far"}`;
  const brackets = sides.some((side) => side.spread) ? "; in brackets the middle half of the turns" : "";
  note.textContent = `${turns}${brackets}. ${found.energy.startsWith("not") ? `Energy is ${found.energy}.` : `Energy: ${found.energy}, in each model's own turns.`}`;
}

function laneOf() {
  const lane = make("div", "", { class: "lane" });
  const track = make("span", "", { class: "track", "aria-hidden": "true" });
  track.append(make("i"));
  lane.append(make("strong"), make("span", "", { class: "rate" }), track, make("small"));
  return lane;
}

function drawLane(lane, side, total) {
  const [name, rate, track, small] = lane.children;
  name.textContent = `${side.name}, ${side.runtime}`;
  rate.textContent = !side.fits ? "does not fit" : side.rate === null ? "–" : `${digits(side.rate)} texts/s`;
  track.firstChild.style.width = (100 * side.done) / total + "%";
  const joules = side.joules === null ? "" : `; ${digits(side.joules)} J, ${digits((1000 * side.joules) / Math.max(1, side.done))} J for 1,000 texts`;
  const spread = side.spread ? `; a turn ${spreadText(side.spread, digits)} texts/s` : "";
  small.textContent = `${side.done.toLocaleString("en")} of ${total.toLocaleString("en")} texts in ${side.seconds.toFixed(2)} s of its own${spread}${joules}; ${memoryText(side)} of memory`;
}

function memoryText({ peak_mb }) {
  return `${Math.ceil(peak_mb).toLocaleString("en")} MB`;
}

function raceText({ sides, total, faster, limit_mb }) {
  const names = sides.map((side) => side.name);
  const out = sides.filter((side) => !side.fits).map((side) => `${side.name} has held ${memoryText(side)}, more than the ${limit_mb.toLocaleString("en")} MB that there are. `).join("");
  if (sides.every((side) => !side.fits)) return out;
  const through = sides.filter((side) => side.done >= total);
  const end = through.length === 1 ? `${through[0].name} is through${out ? "" : " first"}. ` : through.length ? "Both are through in the same turn. " : "The time was up before one of them was through. ";
  return out + end + fasterText(faster, names);
}
