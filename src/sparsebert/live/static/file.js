"use strict";
// A file of the user's own through both models: how often they agree, and where they do not.

const OWN_FILE = document.getElementById("own-file");

function prepareFile() {
  OWN_FILE.querySelector("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const file = await chosenFile(OWN_FILE);
    if (file === null) return;
    if (file === undefined) say(OWN_FILE, "Choose a file first.", true);
    else work(OWN_FILE, { what: "file", file }, (found) => drawAgreement(found, file.name));
  });
}

// The file's name and content; undefined where none is chosen, null where a line of `section` says what is wrong with it.
async function chosenFile(section) {
  const form = OWN_FILE.querySelector("form");
  const file = form.elements.file.files[0];
  if (!file) return undefined;
  // A letter has at most four bytes, most have one.
  if (file.size > 4 * LIVE.limits.file) {
    say(section, `${file.name} is too large: ${file.size.toLocaleString("en")} bytes; allowed are ${LIVE.limits.file.toLocaleString("en")} characters.`, true);
    return null;
  }
  try {
    const content = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    return { name: file.name, content, columns: form.elements.columns.value };
  } catch (error) {
    say(section, `${file.name} cannot be read as text in UTF-8 (${error.message}).`, true);
    return null;
  }
}

function drawAgreement(found, file) {
  const place = OWN_FILE.querySelector(".found");
  if (found.texts === undefined) return place.replaceChildren();
  const parts = [make("p", agreementText(found), { class: "verdict" })];
  const notes = [];
  if (found.empty) notes.push(`${found.empty.toLocaleString("en")} empty lines were left out.`);
  found.cut.forEach((count, side) => count && notes.push(`${found.names[side]} read ${count.toLocaleString("en")} texts only in part: they are too long for it.`));
  if (found.more) notes.push(`${found.more.toLocaleString("en")} more are not listed.`);
  if (notes.length) parts.push(make("p", notes.join(" "), { class: "caption" }));
  if (found.rows.length) parts.push(differingTable(found), savesOf(found, file));
  return place.replaceChildren(...parts);
}

function agreementText({ texts, same, mean, names }) {
  const count = texts.toLocaleString("en");
  if (same === null) return `Over ${count} texts the answers of ${names[1]} are ${digits(mean)} from those of ${names[0]} on average (of vectors: one less their cosine). The largest differences:`;
  const list = same === texts ? "" : " They disagree on these, the largest difference first:";
  return `${names[0]} and ${names[1]} agree on ${same.toLocaleString("en")} of ${count} texts (${percent((100 * same) / texts)}).${list}`;
}

const DIFFERING = (names) => ["No.", "Text", ...names, "Difference"];

function differingTable({ rows, names }) {
  const table = make("table", "", { class: "inline differing" });
  const head = make("tr");
  head.append(...DIFFERING(names).map((text) => make("th", text, { scope: "col" })));
  table.createTHead().append(head);
  const body = table.createTBody();
  const short = (text) => (text.length > 400 ? text.slice(0, 399) + "…" : text);
  for (const row of rows) {
    const line = make("tr");
    const text = short(row.text) + (row.pair === null ? "" : " / " + short(row.pair));
    line.append(...[row.number.toLocaleString("en"), text, ...row.said, digits(row.distance)].map((cell) => make("td", cell)));
    body.append(line);
  }
  const scroll = make("div", "", { class: "scroll tall-list", tabindex: "0", role: "region", "aria-label": "Texts on which they disagree" });
  scroll.append(table);
  return scroll;
}

function savesOf({ rows, names }, file) {
  const line = make("p", "", { class: "saves" });
  const button = make("button", "CSV", { type: "button", "data-save": "csv" });
  const table = rows.map((row) => [row.number, row.text, row.pair, ...row.said, row.distance]);
  button.addEventListener("click", () => saveCsv(fileName(`disagreements-${file}`), ["number", "text", "pair", ...names, "difference"], table));
  line.append(button);
  return line;
}
