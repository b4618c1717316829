"use strict";
// A speed that is wanted and points that may be lost: which model that is, or which command makes it.

const USUAL_SPEED = 2, USUAL_LOST = 1;

function wish(state) {
  const number = (text, usual) => (text !== "" && Number.isFinite(Number(text)) ? Number(text) : usual);
  return { speed: number(state.speed, USUAL_SPEED), lost: number(state.lost, USUAL_LOST) };
}

// Speedups of the whole model, unless the axis shows another or only encoders were timed.
function speeds(want) {
  const other = usualAxis() === "encoder_speedup" ? "encoder_speedup" : "speedup";
  const name = want.x.field === "speedup" ? want.xName : other;
  const settings = settingsOf(ACROSS[name]);
  const setting = settings.includes(want.setting) ? want.setting : settings[0] ?? "";
  return { ...want, xName: name, x: ACROSS[name], setting, yName: "change", y: UPWARDS.change };
}

function pick(points, speed, lost) {
  const made = points.filter((point) => !point.model.dense);
  const best = (some) => [...some].sort((one, other) => other.y[0] - one.y[0] || other.x[0] - one.x[0])[0];
  const fastEnough = made.filter((point) => point.x[0] >= speed);
  const goodEnough = made.filter((point) => point.y[0] >= -lost);
  return {
    found: best(fastEnough.filter((point) => point.y[0] >= -lost)),
    least: best(fastEnough),
    fastest: [...goodEnough].sort((one, other) => other.x[0] - one.x[0])[0],
    nearest: [...made].sort((one, other) => Math.abs(Math.log(one.x[0] / speed)) - Math.abs(Math.log(other.x[0] / speed)))[0],
  };
}

function drawWhatIf(state) {
  const want = speeds(wanted(state));
  const { speed, lost } = wish(state);
  const form = document.getElementById("whatif");
  form.querySelector("[name=speed]").value = speed;
  form.querySelector("[name=lost]").value = lost;
  form.querySelector("[for=speed] + output").textContent = times(speed);
  form.querySelector("[for=lost] + output").textContent = lost.toFixed(1);
  const chosen = pick(shownPoints(want), speed, lost);
  document.getElementById("pick").replaceChildren(...answer(chosen, speed, lost, want), ...howToMake(chosen, speed, want));
}

function answer({ found, least, fastest }, speed, lost, want) {
  const whole = want.x.scope === "model" ? "" : " (the encoder)";
  const first = make("p", "", { class: "verdict" });
  if (found) {
    first.append(link(found), ` is ${said(found.x, times)} as fast as dense${whole} and changes the score by ${said(found.y, signed)} points.`);
    return [first];
  }
  first.append(`No model shown is ${times(speed)} as fast as dense${whole} and loses at most ${lost.toFixed(1)} points.`);
  const near = make("p");
  if (least) near.append("At that speed ", link(least), ` comes nearest: ${said(least.y, signed)} points. `);
  if (fastest) near.append("Within that loss ", link(fastest), ` is the fastest: ${said(fastest.x, times)}.`);
  return near.childNodes.length ? [first, near] : [first];
}

function link(point) {
  const button = make("button", `${point.model.name} of ${point.model.run}`, { type: "button", class: "link" });
  button.addEventListener("click", () => changeState({ model: point.model.key }));
  return button;
}

// The runs of the model at hand say what another one would be made of; of medians, any run of the family.
function howToMake({ found, nearest }, speed, want) {
  const like = found ?? nearest;
  const task = (point) => !want.task || point.task === want.task;
  const model = like?.model ?? DATA.points.find((point) => point.run in DATA.commands && task(point));
  const run = model && (model.run in DATA.commands ? model : DATA.points.find((one) => one.family === model.family && one.run in DATA.commands))?.run;
  if (!run) return [];
  const { words, asked } = DATA.commands[run];
  const known = asked.includes(speed);
  const about = known
    ? `${run} was asked for ${times(speed)}; its command:`
    : `To make one of ${times(speed)} (a target of the encoder's speed, or of the whole model's in a runtime that runs it as one program):`;
  return [make("p", about, { class: "caption" }), make("pre", known ? words : `${words} --speedup ${Number(speed.toFixed(2))}`, { class: "code" })];
}
