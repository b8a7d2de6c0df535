// The training tab: curves and previews of a run, looked at again every few seconds while it is open.
import { ask } from "./api.js";
import { $, create } from "./elements.js";

const REFRESH_MS = 5000, WIDTH = 360, HEIGHT = 200, LEFT = 46, BOTTOM = 22, TOP = 8;
let timer = null, shownStep = null;

export function openTraining(runs) {
  if ($("run").options.length !== runs.length) {
    $("run").replaceChildren(...runs.map((name) => new Option(name, name)));
  }
  $("run-box").hidden = runs.length < 2;
  clearInterval(timer);
  timer = setInterval(look, REFRESH_MS);
  look();
}

export const closeTraining = () => clearInterval(timer);

async function look() {
  const run = $("run").value;
  try {
    const seen = await ask(`api/runs/${encodeURIComponent(run)}`);
    $("training-status").textContent = seen.step === null ? "No step has been logged yet." : `Step ${seen.step.toLocaleString("en")}`;
    showPreview(run, seen.previews);
    $("charts").replaceChildren(...seen.charts.map(chart));
  } catch (error) {
    $("training-status").textContent = error.message;
  }
}

function showPreview(run, steps) {
  $("back-box").hidden = steps.length < 2;
  $("back").max = Math.max(steps.length - 1, 1);
  const step = steps.at(-1 - Math.min(Number($("back").value), steps.length - 1));
  const key = `${run} ${step}`;
  if (key === shownStep) return; // a sound that plays goes on
  shownStep = key;
  if (step === undefined) {
    $("preview").replaceChildren(create("p", { className: "hint", textContent: "No preview yet: config.train.sample_every says after how many steps." }));
    return;
  }
  const at = `api/runs/${encodeURIComponent(run)}/${step}`, name = `Preview of step ${step.toLocaleString("en")}`;
  const sound = create("audio", { controls: true, preload: "none", src: `${at}.wav` });
  sound.setAttribute("aria-label", name);
  $("preview").replaceChildren(create(
    "figure", {},
    create("figcaption", { textContent: name }),
    create("img", { src: `${at}.png`, alt: `Spectrograms of step ${step}` }),
    sound,
  ));
}

function chart({ title, points, why }) {
  const box = create("section", {}, create("h2", { textContent: title }));
  if (why) box.append(create("p", { className: "hint", textContent: why }));
  else {
    const names = [...new Set(points.map(([, , name]) => name))];
    box.append(plot(points, names), create("div", { className: "legend" }, ...names.map((name, i) =>
      create("span", {}, create("i", { className: `curve-${i}` }), name))));
  }
  return box;
}

function node(tag, fields, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(fields)) made.setAttribute(name, value);
  made.textContent = text;
  return made;
}

function plot(points, names) {
  const steps = points.map(([step]) => step), values = points.map(([, value]) => value);
  const [first, last] = [Math.min(...steps), Math.max(...steps)];
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (low === high) [low, high] = [low - 1, high + 1];
  const x = (step) => LEFT + ((WIDTH - LEFT - 8) * (step - first)) / (last - first || 1);
  const y = (value) => TOP + ((HEIGHT - TOP - BOTTOM) * (high - value)) / (high - low);
  const svg = node("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  svg.setAttribute("aria-label", names.map((name) => `${name}: ${points.findLast((point) => point[2] === name)[1].toPrecision(3)}`).join(", "));
  for (const value of [low, (low + high) / 2, high]) {
    svg.append(node("line", { x1: LEFT, x2: WIDTH - 8, y1: y(value), y2: y(value), class: "grid" }));
    svg.append(node("text", { x: LEFT - 5, y: y(value) + 4, "text-anchor": "end" }, Number(value.toPrecision(3)).toString()));
  }
  svg.append(node("text", { x: LEFT, y: HEIGHT - 5 }, first.toLocaleString("en")));
  svg.append(node("text", { x: WIDTH - 8, y: HEIGHT - 5, "text-anchor": "end" }, `step ${last.toLocaleString("en")}`));
  names.forEach((name, i) => {
    const line = points.filter((point) => point[2] === name).map(([step, value]) => `${x(step).toFixed(1)},${y(value).toFixed(1)}`);
    if (line.length === 1) svg.append(node("circle", { cx: line[0].split(",")[0], cy: line[0].split(",")[1], r: 2.5, class: `curve-${i}` }));
    else svg.append(node("polyline", { points: line.join(" "), fill: "none", "stroke-width": 1.5, class: `curve-${i}` }));
  });
  return svg;
}

$("run").onchange = look;
$("back").oninput = look;
