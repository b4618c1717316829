"use strict";
// A text through both models: what each says, and how long it takes.

const ASK = document.getElementById("ask");
const KEPT_TEXT = "sparsebert-text";
let examples = [];

function prepareAsk() {
  const section = document.getElementById("live");
  const text = () => ({ text: ASK.elements.text.value, pair: ASK.elements.pair.value });
  // A page that reloads for a new record keeps what was typed in it.
  const kept = JSON.parse(sessionStorage.getItem(KEPT_TEXT) ?? "{}");
  ASK.elements.text.value = kept.text ?? "";
  ASK.elements.pair.value = kept.pair ?? "";
  const keep = () => {
    const given = text();
    if (given.text.length + given.pair.length <= LIVE.limits.letters) sessionStorage.setItem(KEPT_TEXT, JSON.stringify(given));
  };
  ASK.addEventListener("input", keep);
  ASK.elements.example.addEventListener("change", (event) => {
    const chosen = examples[Number(event.target.value)];
    if (!chosen) return;
    ASK.elements.text.value = chosen.text;
    ASK.elements.pair.value = chosen.pair;
    if (chosen.pair) ASK.querySelector("details").open = true;
    keep();
  });
  const checked = () => {
    const given = text(), most = LIVE.limits.letters;
    if (!given.text.trim()) say(section, "The text is empty: type one, or pick an example.", true);
    else if (given.text.length > most || given.pair.length > most) say(section, `A text has at most ${most.toLocaleString("en")} characters; this one has ${Math.max(given.text.length, given.pair.length).toLocaleString("en")}.`, true);
    else return given;
    return null;
  };
  ASK.addEventListener("submit", (event) => {
    event.preventDefault();
    const given = checked();
    if (!given) return;
    for (const id of ["inside", "neighbours"]) document.getElementById(id).replaceChildren();
    work(section, { what: "answers", ...given }, drawAnswers);
  });
  ASK.querySelector("[data-act=neighbours]").addEventListener("click", async () => {
    const given = checked();
    const file = given && (await chosenFile(section));
    if (!given || file === null) return;
    const among = file ? `the texts of ${file.name} that differ${file.columns.includes(",") ? ", of pairs the first" : ""}` : "the reviews that come with the package";
    document.getElementById("neighbours").replaceChildren();
    work(section, { what: "neighbours", text: given.text, file }, (found) => drawNeighbours(found, among));
  });
  ASK.querySelector("[data-act=inside]").addEventListener("click", () => {
    const given = checked();
    if (given) work(section, { what: "inside", ...given }, drawInside);
  });
}

function drawExamples(found) {
  if (found === examples) return;
  examples = found;
  const short = (text) => (text.length > 90 ? text.slice(0, 89) + "…" : text);
  const entries = found.map((one, place) => [String(place), `${short(one.text)}${one.pair ? " / " + short(one.pair) : ""} (${one.label}; ${one.dense} before, ${one.own} now)`]);
  options(ASK.elements.example, [["", found.length ? "choose one" : "its record names none"], ...entries], "");
}

function drawAnswers({ sides, faster, threads }) {
  const box = make("div", "", { class: "sides" });
  const named = sides.filter((side) => side.labels?.length);
  const found = [box];
  if (named.length > 1) {
    const [one, other] = named.map((side) => side.labels[0]);
    const sets = named.map((side) => side.given && [...side.given].sort().join(", "));
    const agree = named.every((side) => side.given) ? (sets[0] === sets[1] ? `Both give ${sets[0] || "no label"}.` : `They disagree: ${sets[0] || "no label"} against ${sets[1] || "no label"}.`)
      : one.label === other.label ? `Both say ${one.label}.` : `They disagree: ${one.label} against ${other.label}.`;
    if (named.every((side) => side.chances)) found.unshift(make("p", agree, { class: "verdict" }));
  }
  // Bars of one label side by side.
  const order = (named[0]?.labels ?? []).map((one) => one.label);
  for (const side of named) side.labels.sort((one, other) => order.indexOf(one.label) - order.indexOf(other.label));
  box.append(...sides.map(answerOf));
  if (faster) {
    found.push(make("p", fasterText(faster, sides.map((side) => side.name)), { class: "times" }));
    found.push(make("p", `Times of a whole call with one text, tokens included, measured here and now in turns (A B, B A, A B …) after warming up, on ${threads} ${threads === 1 ? "thread" : "threads"}: medians, in brackets the middle half.`, { class: "caption" }));
  }
  document.getElementById("answers").replaceChildren(...found);
}

function answerOf(side) {
  const box = make("article");
  const head = make("h3", side.name + " ");
  head.append(make("small", side.runtime ?? ""));
  box.append(head);
  if (side.problem) {
    box.append(make("p", side.problem, { class: "notice failed" }));
    return box;
  }
  const list = make("ul", "", { class: "bars-of" });
  list.append(...side.labels.map((one) => barOf(one, side.chances)));
  box.append(list);
  if (side.given) box.append(make("p", `Gives ${side.given.join(", ") || "no label"}.`));
  if (side.spans) box.append(taggedText(side.text, side.spans));
  if (side.width) box.append(make("p", `A vector of ${side.width} numbers. Nearest texts shows what it is near to, a file of texts how near two models' vectors are.`));
  if (side.more) box.append(make("p", `and ${side.more} more labels`, { class: "caption" }));
  if (side.cut) box.append(make("p", `The text was cut: the model reads ${side.cut} tokens.`, { class: "caption" }));
  if (side.ms) box.append(make("p", `${spreadText(side.ms, digits)} ms, n = ${side.ms.n}`, { class: "times" }));
  return box;
}

function drawNeighbours({ sides, texts, same }, among) {
  const named = sides.filter((side) => side.nearest);
  const shared = named.length > 1 ? new Set(named[0].nearest.map((one) => one.text).filter((text) => named[1].nearest.some((one) => one.text === text))) : new Set();
  const box = make("div", "", { class: "sides" });
  box.append(...sides.map((side) => neighboursOf(side, shared)));
  const found = [box];
  if (texts !== undefined) {
    if (same !== null) found.unshift(make("p", `Of the ${named[0].nearest.length} nearest texts ${same} ${same === 1 ? "is" : "are"} the same.`, { class: "verdict" }));
    found.push(make("p", `Of ${texts.toLocaleString("en")} text${texts === 1 ? "" : "s"}, ${among}: those whose vectors have the largest cosine with the vector of this text. A line before a text says that both models name it.`, { class: "caption" }));
  }
  document.getElementById("neighbours").replaceChildren(...found);
}

function neighboursOf(side, shared) {
  const box = make("article");
  box.append(make("h3", side.name));
  if (side.problem) {
    box.append(make("p", side.problem, { class: "notice failed" }));
    return box;
  }
  const list = make("ol", "", { class: "neighbours" });
  const short = (text) => (text.length > 400 ? text.slice(0, 399) + "…" : text);
  for (const one of side.nearest) {
    const row = make("li", "", shared.has(one.text) ? { class: "shared" } : {});
    row.append(make("span", short(one.text)), make("output", one.cosine.toFixed(3)));
    list.append(row);
  }
  box.append(list);
  return box;
}

function taggedText(text, spans) {
  const found = make("p", "", { class: "tagged" });
  let end = 0;
  // Python counts characters, JavaScript their halves.
  const letters = Array.from(text);
  for (const one of spans) {
    found.append(letters.slice(end, one.start).join(""));
    const mark = make("mark", letters.slice(one.start, one.end).join("") + " ", { title: `${one.label}, ${percent(100 * one.probability)}` });
    mark.append(make("small", one.label));
    found.append(mark);
    end = one.end;
  }
  found.append(letters.slice(end).join(""));
  return found;
}

function barOf({ label, score }, chances) {
  const row = make("li");
  row.append(make("span", label));
  const track = make("span", "", { class: "track", "aria-hidden": "true" });
  if (chances) {
    const bar = make("i");
    bar.style.width = 100 * score + "%";
    track.append(bar);
  } else track.hidden = true;
  row.append(track, make("output", chances ? percent(100 * score) : digits(score)));
  return row;
}
