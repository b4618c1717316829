"use strict";
// The pictures of one model. Each is drawn from the rows that its CSV has.

const PICTURES = { heads: drawHeads, neurons: drawNeurons, zeros: drawZeros, places: drawPlaces, timeline: drawTimeline, film: drawFilm, curves: drawCurves, visits: drawVisits };

function drawPictures(article) {
  for (const figure of article.querySelectorAll("figure")) {
    const chart = JSON.parse(figure.querySelector("script").textContent);
    const place = figure.querySelector(".chart");
    PICTURES[chart.kind](place, chart, figure);
    if (figure.dataset.ready) continue;
    figure.dataset.ready = "yes";
    const name = fileName(`${article.dataset.run}-${article.dataset.name}-${chart.title}`);
    figure.querySelector("[data-save=png]").addEventListener("click", () => savePng(place, name));
    figure.querySelector("[data-save=csv]").addEventListener("click", () => saveCsv(name, chart.columns, chart.rows));
  }
}

function dropPictures(article) {
  for (const place of article.querySelectorAll(".chart")) Plotly.purge(place);
}

// Rows of a table as a field by two of their columns; where there is no row, null.
function field(rows, across, down, value) {
  const xs = unique(rows.map(across)), ys = unique(rows.map(down));
  const found = new Map(rows.map((row) => [JSON.stringify([across(row), down(row)]), value(row)]));
  return { x: xs, y: ys, z: ys.map((y) => xs.map((x) => found.get(JSON.stringify([x, y])) ?? null)) };
}

function layerAxis(layers, more = {}) {
  return { autorange: "reversed", tickvals: layers, ticktext: layers.map((layer) => inChart(layer)), showgrid: false, title: { text: "Layer" }, ...more };
}

const ROW = 26;

function drawHeads(place, chart) {
  const colours = theme();
  const most = new Map();
  for (const [layer, , , worth] of chart.rows) most.set(layer, Math.max(most.get(layer) ?? 0, worth ?? 0));
  // Errors differ by orders of magnitude; the root keeps the lesser ones apart.
  const shade = ([layer, , kept, worth]) => (!kept ? 0 : worth === null || !most.get(layer) ? 1 : 0.3 + 0.7 * Math.sqrt(worth / most.get(layer)));
  const tell = ([layer, head, kept, worth]) =>
    `layer ${layer}, head ${head}: ${kept ? "kept" : "gone"}${worth === null ? "" : `<br>error of its block without it: ${digits(worth)}`}`;
  const own = field(chart.rows, (row) => row[1], (row) => row[0], shade);
  const texts = field(chart.rows, (row) => row[1], (row) => row[0], tell);
  const trace = {
    type: "heatmap", ...own, hovertext: texts.z, hovertemplate: "%{hovertext}<extra></extra>", zmin: 0, zmax: 1, xgap: 3, ygap: 3,
    showscale: false, colorscale: [[0, colours.faint], [1, colours.heads]],
  };
  const counts = own.y.map((layer) => chart.rows.filter((row) => row[0] === layer && row[2]).length);
  draw(place, [trace], {
    height: own.y.length * ROW + 70, margin: { l: 48, r: 34, t: 8, b: 44 },
    xaxis: { title: { text: "Head" }, showgrid: false, dtick: own.x.length > 12 ? 4 : 1, tick0: 1 }, yaxis: layerAxis(own.y),
    annotations: [
      ...own.y.map((layer, row) => ({ x: 1.01, xref: "paper", xanchor: "left", y: layer, text: String(counts[row]), showarrow: false, font: { color: colours.muted, size: 12 } })),
      ...chart.dropped.map((layer) => band(layer, "layer dropped", colours)),
    ],
  });
}

function band(layer, text, colours) {
  return { x: 0.5, xref: "paper", y: layer, text: inChart(text), showarrow: false, bgcolor: colours.paper, font: { color: colours.ink, size: 12 } };
}

function drawNeurons(place, chart) {
  const colours = theme();
  const layers = chart.rows.map((row) => row[0]);
  const bar = (values, color, more) => ({ type: "bar", orientation: "h", x: values, y: layers, marker: { color }, ...more });
  const kept = chart.rows.map((row) => row[1]);
  draw(place, [
    bar(kept, colours.neurons, { hovertemplate: "layer %{y}: %{x:,} neurons<extra></extra>" }),
    bar(chart.rows.map((row) => row[2] - row[1]), colours.faint, { hovertemplate: "layer %{y}: %{x:,} gone<extra></extra>" }),
  ], {
    barmode: "stack", bargap: 0.3, height: layers.length * ROW + 70, margin: { l: 48, r: 52, t: 8, b: 44 },
    xaxis: { title: { text: "Neurons" }, range: [0, chart.rows[0][2]], nticks: 5, showgrid: false }, yaxis: layerAxis(layers),
    annotations: [
      ...layers.map((layer, row) => ({ x: 1.01, xref: "paper", xanchor: "left", y: layer, text: kept[row].toLocaleString("en"), showarrow: false, font: { color: colours.muted, size: 12 } })),
      ...Object.entries(chart.said).map(([layer, text]) => band(Number(layer), text, colours)),
    ],
  });
}

// From this part of zeros on a cell is strong enough in colour for letters of the paper's.
const STRONG = 0.6;

function drawZeros(place, chart) {
  const colours = theme();
  const own = field(chart.rows, (row) => row[1], (row) => row[0], (row) => row[2]);
  const few = place.clientWidth < 520;
  const cells = own.y.flatMap((layer, row) => own.x.map((matrix, column) => [layer, matrix, own.z[row][column]])).filter(([, , part]) => part !== null);
  draw(place, [
    {
      type: "heatmap", z: own.z, x: own.x.map(inChart), y: own.y.map(inChart), zmin: 0, zmax: 1, xgap: 2, ygap: 2, showscale: false,
      colorscale: [[0, colours.faint], [1, colours.heads]], hovertemplate: "layer %{y}, %{x}: %{z:.2%} zeros<extra></extra>",
    },
    {
      mode: "text", x: cells.map(([, matrix]) => inChart(matrix)), y: cells.map(([layer]) => inChart(layer)), hoverinfo: "skip",
      text: cells.map(([, , part]) => (few ? Math.round(100 * part) + "%" : percent(100 * part))),
      textfont: { size: few ? 10 : 12, color: cells.map(([, , part]) => (part > STRONG ? colours.paper : colours.ink)) },
    },
  ], {
    height: own.y.length * ROW + (few ? 96 : 44), margin: { l: 48, r: 8, t: 8, b: few ? 76 : 30 },
    xaxis: { type: "category", showgrid: false, tickangle: few ? -50 : 0 },
    yaxis: { type: "category", autorange: "reversed", showgrid: false, title: { text: "Layer" } },
  });
}

const TILE = 24, GAP = 2;

// Matrices side by side in one picture; those of fewer cells are stretched, so that all are as large.
function drawPlaces(place, chart) {
  const layers = unique(chart.rows.map((row) => row[0])), matrices = unique(chart.rows.map((row) => row[1]));
  drawTiles(place, layers, matrices, (layer, matrix) => chart.rows.filter((row) => row[0] === layer && row[1] === matrix).map((row) => row.slice(3)));
}

// `cellsOf` gives the rows of cells of a matrix, none where there is no such matrix.
function tilesOf(layers, matrices, cellsOf) {
  const pitch = TILE + GAP;
  const z = Array.from({ length: layers.length * pitch - GAP }, () => Array(matrices.length * pitch - GAP).fill(null));
  for (const layer of layers) {
    for (const matrix of matrices) {
      const rows = cellsOf(layer, matrix);
      if (!rows.length) continue;
      const [top, left] = [layers.indexOf(layer) * pitch, matrices.indexOf(matrix) * pitch];
      for (let down = 0; down < TILE; down += 1) {
        const cells = rows[Math.floor((down * rows.length) / TILE)];
        for (let across = 0; across < TILE; across += 1) z[top + down][left + across] = cells[Math.floor((across * cells.length) / TILE)];
      }
    }
  }
  return z;
}

function drawTiles(place, layers, matrices, cellsOf) {
  const colours = theme();
  const pitch = TILE + GAP;
  const middle = (count) => Array.from({ length: count }, (_, index) => index * pitch + TILE / 2 - 0.5);
  const few = place.clientWidth < 520;
  const side = (place.clientWidth - 110) / matrices.length;
  draw(place, [{
    type: "heatmap", z: tilesOf(layers, matrices, cellsOf), zmin: 0, zmax: 1, hovertemplate: "%{z:.1%} zeros<extra></extra>",
    colorscale: [[0, colours.faint], [1, colours.heads]],
    colorbar: { tickformat: ".0%", tickvals: [0, 0.5, 1], thickness: 10, outlinewidth: 0, tickfont: { color: colours.muted, size: 11 } },
  }], {
    height: Math.min(side, 110) * layers.length + (few ? 96 : 50), margin: { l: 48, r: 8, t: 8, b: few ? 76 : 34 },
    xaxis: { tickvals: middle(matrices.length), ticktext: matrices.map(inChart), showgrid: false, tickangle: few ? 50 : 0 },
    yaxis: { tickvals: middle(layers.length), ticktext: layers.map(inChart), autorange: "reversed", showgrid: false, title: { text: "Layer" } },
  });
}

// The pictures of each step that was kept, behind a slider.
function drawFilm(place, chart, figure) {
  const tiles = chart.tiles.map((part) => part.map((tile) => ({ ...tile, bytes: Uint8Array.from(atob(tile.levels), (letter) => letter.charCodeAt(0)) })));
  const layers = unique(tiles.flat().map((tile) => tile.layer)), matrices = unique(tiles.flat().map((tile) => tile.matrix));
  const cellsOf = (row) => {
    let part = 0, frame = row;
    while (frame >= chart.frames[part]) frame -= chart.frames[part++];
    return (layer, matrix) => {
      const tile = tiles[part].find((one) => one.layer === layer && one.matrix === matrix);
      if (!tile) return [];
      const line = (down) => Array.from(tile.bytes.subarray((frame * tile.down + down) * tile.across, (frame * tile.down + down + 1) * tile.across), (level) => level / 255);
      return Array.from({ length: tile.down }, (_, down) => line(down));
    };
  };
  const tell = () => tellFrame(chart, figure);
  const moved = () => {
    Plotly.restyle(place, { z: [tilesOf(layers, matrices, cellsOf(Number(slider.value)))] });
    tell();
  };
  const slider = figure.querySelector("input[type=range]") ?? addSlider(figure, chart, "Picture of the masks", moved);
  drawTiles(place, layers, matrices, cellsOf(Number(slider.value)));
  tell();
}

function tellFrame(chart, figure) {
  const slider = figure.querySelector("input");
  const [step, phase, pruned, went, returned] = chart.rows[Number(slider.value)];
  const moves = Number(slider.value) ? `; since the picture before ${percent(100 * went)} of the weights went and ${percent(100 * returned)} came back` : "";
  const text = `Step ${step.toLocaleString("en")}, phase ${phase}: ${percent(100 * pruned)} pruned${moves}`;
  figure.querySelector("output").textContent = text;
  slider.setAttribute("aria-valuetext", text);
}

function timelinePanels(chart) {
  const colours = theme();
  const panels = chart.columns.map((name, place) => ({ name, place })).slice(2)
    .filter(({ place }) => chart.rows.some((row) => row[place] !== null));
  const colour = { sparsity: colours.heads, loss: colours.neurons };
  return panels.map((panel) => ({ ...panel, colour: colour[panel.name] ?? colours.series[2] }));
}

function drawTimeline(place, chart, figure) {
  const panels = timelinePanels(chart);
  const slider = figure.querySelector("input[type=range]") ?? addSlider(figure, chart, "Logged step", () => markStep(place, chart, figure));
  const share = 1 / panels.length;
  const form = { height: 60 + 130 * panels.length, margin: { l: 64, r: 12, t: 8, b: 44 }, shapes: stepLines(chart, Number(slider.value)) };
  const traces = panels.map((panel, row) => {
    const axis = row ? `y${row + 1}` : "y";
    form[row ? `yaxis${row + 1}` : "yaxis"] = {
      domain: [1 - (row + 1) * share + (row + 1 < panels.length ? 0.07 : 0), 1 - row * share], title: { text: inChart(panel.name) }, rangemode: "tozero", nticks: 4,
      tickformat: panel.name === "sparsity" ? ".0%" : "", anchor: "x",
    };
    const rows = chart.rows.filter((one) => one[panel.place] !== null);
    return {
      x: rows.map((one) => one[0]), y: rows.map((one) => one[panel.place]), yaxis: axis, mode: rows.length < 40 ? "lines+markers" : "lines",
      line: { color: panel.colour, width: 2 }, hovertemplate: `step %{x}: %{y}<extra></extra>`,
    };
  });
  form.xaxis = { title: { text: "Step" }, anchor: panels.length > 1 ? `y${panels.length}` : "y" };
  draw(place, traces, form);
  tellStep(chart, figure);
}

function stepLines(chart, index) {
  const colours = theme();
  const line = (step, more) => ({ type: "line", x0: step, x1: step, yref: "paper", y0: 0, y1: 1, line: { width: 1, dash: "dash", color: colours.muted, ...more } });
  return [...chart.starts.map((step) => line(step, {})), line(chart.rows[index][0], { width: 2, dash: "solid", color: colours.ink })];
}

function markStep(place, chart, figure) {
  Plotly.relayout(place, { shapes: stepLines(chart, Number(figure.querySelector("input").value)) });
  tellStep(chart, figure);
}

function tellStep(chart, figure) {
  const slider = figure.querySelector("input");
  const [step, phase, ...rest] = chart.rows[Number(slider.value)];
  const parts = chart.columns.slice(2).map((name, place) => [name, rest[place]]).filter(([, value]) => value !== null)
    .map(([name, value]) => `${name} ${name === "sparsity" ? percent(100 * value) : digits(value)}`);
  const text = `Step ${step.toLocaleString("en")}, phase ${phase}: ${parts.join(", ")}`;
  figure.querySelector("output").textContent = text;
  slider.setAttribute("aria-valuetext", text);
}

function addSlider(figure, chart, label, moved) {
  const slider = make("input", "", { type: "range", min: 0, max: chart.rows.length - 1, step: 1, value: chart.rows.length - 1, "aria-label": label });
  const play = make("button", "Play", { type: "button" });
  const row = make("div", "", { class: "player" });
  row.append(play, slider);
  figure.querySelector(".chart").after(row, make("output", ""));
  slider.addEventListener("input", moved);
  let timer = null;
  const stop = () => {
    clearTimeout(timer);
    timer = null;
    play.textContent = "Play";
  };
  const next = () => {
    if (!slider.isConnected || Number(slider.value) >= chart.rows.length - 1) return stop();
    slider.stepUp();
    moved();
    timer = setTimeout(next, Math.max(60, 4000 / chart.rows.length));
  };
  // From where it stands, and from the beginning where that is the end.
  play.addEventListener("click", () => {
    if (timer !== null) return stop();
    if (Number(slider.value) >= chart.rows.length - 1) {
      slider.value = 0;
      moved();
    }
    play.textContent = "Pause";
    timer = setTimeout(next, 300);
  });
  return slider;
}

// A panel a split; a line a way to remove.
function drawCurves(place, chart) {
  const colours = theme();
  const [by, sparsity, split, metric, score, low, high] = [0, 2, 3, 4, 5, 6, 7];
  const own = chart.rows.filter((row) => row[metric] === chart.metric);
  const ways = unique(own.map((row) => row[by]));
  const share = 1 / chart.splits.length;
  const form = { height: 90 + 200 * chart.splits.length, margin: { l: 56, r: 12, t: 34, b: 44 }, showlegend: true, legend: { orientation: "h", y: 1, yanchor: "bottom", font: { size: 12 } }, shapes: [] };
  const traces = chart.splits.flatMap((name, row) => {
    const last = 1 - row * share, axis = row ? `y${row + 1}` : "y";
    form[row ? `yaxis${row + 1}` : "yaxis"] = { domain: [last - share + (row + 1 < chart.splits.length ? 0.06 : 0), last], title: { text: inChart(`${chart.said}, ${name}`) }, nticks: 6, anchor: "x" };
    if (chart.constant !== null) form.shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, yref: axis, y0: chart.constant, y1: chart.constant, line: { width: 1, dash: "dot", color: colours.neurons } });
    return ways.map((way, place) => {
      const rows = own.filter((one) => one[by] === way && one[split] === name);
      const values = rows.map((one) => (one[low] === null ? [one[score]] : [one[score], one[low], one[high]]));
      return {
        x: rows.map((one) => 100 * one[sparsity]), y: rows.map((one) => one[score]), yaxis: axis, name: inChart(way), legendgroup: way, showlegend: !row,
        mode: "lines+markers", line: { color: colours.series[place % colours.series.length], width: 2 }, marker: { symbol: SYMBOLS[place % SYMBOLS.length], size: 7 },
        error_y: reach(values), text: values.map((value) => said(value, percent)), hovertemplate: `%{x:.1f}% removed: %{text}<extra></extra>`,
      };
    });
  });
  form.xaxis = { title: { text: "Removed of the whole model, %" }, anchor: chart.splits.length > 1 ? `y${chart.splits.length}` : "y", rangemode: "tozero" };
  draw(place, traces, form);
}

const TREE_CELLS = 64, REACH = 3;

function drawVisits(place, chart) {
  const colours = theme();
  const levels = unique(chart.rows.map((row) => row[0]));
  const z = [], texts = [];
  for (const level of levels) {
    const own = chart.rows.filter((row) => row[0] === level);
    const wide = (make) => own.flatMap((row) => Array(TREE_CELLS / own.length).fill(make(row)));
    z.push(wide(([, , share]) => (share > 0 ? Math.max(-REACH, Math.min(REACH, Math.log2(share))) : null)));
    texts.push(wide(([, cell, share, part]) => `level ${level}, cell ${cell}: ${digits(share)} of an even share, ${percent(100 * part)} of its nodes never visited`));
  }
  draw(place, [{
    type: "heatmap", z, y: levels, text: texts, hovertemplate: "%{text}<extra></extra>", zmin: -REACH, zmax: REACH, ygap: 3,
    colorscale: [[0, colours.faint], [0.5, colours.heads], [1, colours.ink]],
    colorbar: { tickvals: [-REACH, 0, REACH], ticktext: ["⅛", "even", "8×"], thickness: 10, outlinewidth: 0, tickfont: { color: colours.muted, size: 11 } },
  }], {
    height: levels.length * 20 + 40, margin: { l: 48, r: 8, t: 8, b: 20 },
    xaxis: { visible: false }, yaxis: layerAxis(levels, { title: { text: "Level" } }),
  });
}
