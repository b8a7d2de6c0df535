// The instrument. One object, `sound`, is what the server is asked for; controls write it, `show` reads it.
import { clamp, copy, fromQuery, nameOf, newSeed, plainRecipe, shown, soundName, toQuery } from "./address.js";
import { ask, OfflineError, toBuffer, wait } from "./api.js";
import { $, say, slider, toggle as toggleButton } from "./elements.js";
import * as kept from "./kept.js";
import { makeLooper } from "./looper.js";
import { drawSpectrum, drawWave } from "./picture.js";
import { download } from "./renders.js";
import { closeTraining, openTraining } from "./training.js";

const TARGET_LUFS = -14, STATE_MS = 500, RETRY_MS = 1000;
const looper = makeLooper();
let models = [], runs = [], limits = {}, sound = null, ends = { a: null, b: null }, locked = false, wantsPlay = false;
let played = null; // what is in the looper: { sound, lufs, peak }

const model = () => models.find((of) => of.name === sound.model);
const query = () => toQuery(sound).toString();
const isOn = (id) => $(id).getAttribute("aria-checked") === "true";

// ---- loops from the server

function gainOf({ lufs, peak }) {
  if (!isOn("match") || lufs === null) return 1;
  return Math.min(10 ** ((TARGET_LUFS - lufs) / 20), 1 / peak);
}

function peakOf(buffer) {
  let peak = 1e-3;
  for (let channel = 0; channel < buffer.numberOfChannels; channel++) {
    for (const value of buffer.getChannelData(channel)) peak = Math.max(peak, Math.abs(value));
  }
  return peak;
}

// One request at a time; while it is away only the newest wish is kept.
let away = false, wanted = false;
async function make() {
  wanted = true;
  if (away) return;
  away = true;
  document.body.dataset.making = "1";
  while (wanted) {
    wanted = false;
    const asked = copy(sound);
    try {
      const made = await ask(`api/loop?${withoutTempo(asked)}`);
      take(asked, made);
    } catch (error) {
      document.querySelector(".stage").classList.toggle("stale", Boolean(played));
      const still = played ? ` You still hear ${soundName(played.sound)}.` : "";
      if (error instanceof OfflineError) {
        say(`${error.message} Trying again.${still}`, true);
        await wait(RETRY_MS);
        wanted = true;
      } else say(error.message + still, true);
    }
  }
  away = false;
  delete document.body.dataset.making;
}

const withoutTempo = (asked) => toQuery({ ...asked, bpm: null });

function take(asked, made) {
  const buffer = toBuffer(made);
  played = { sound: asked, lufs: made.lufs, peak: peakOf(buffer) };
  looper.load(buffer, models.find((of) => of.name === asked.model).bars, isOn("on-the-bar"), gainOf(played));
  drawWave($("wave"), buffer.getChannelData(0));
  drawSpectrum($("spectrum"), made.picture, made.frames);
  document.querySelector(".stage").classList.remove("stale");
  $("playing").textContent = soundName(asked);
  if ($("status").classList.contains("wrong")) say("");
  if (wantsPlay) { wantsPlay = false; togglePlay(); }
}

// ---- the address, and undo

let gesture = null, place = 0, last = 0; // of this page in the browser's history

// Changes with one key, as those of one drag, are one step to undo.
function toAddress(key) {
  const address = `?${query()}`;
  if (location.search === address) return;
  if (key && key === gesture) history.replaceState({ place }, "", address);
  else {
    place += 1;
    last = place;
    history.pushState({ place }, "", address);
  }
  gesture = key ?? null;
}

function fromAddress() {
  const warnings = [];
  const before = sound;
  sound = fromQuery(location.search, models, limits, warnings);
  if (before && before.model !== sound.model) ends = { a: null, b: null };
  if (sound.end) ends = { a: copy(sound.start), b: copy(sound.end) };
  notice(warnings);
}

function notice(lines) {
  $("notice").textContent = lines.join("\n");
  $("notice").hidden = !lines.length;
}

addEventListener("popstate", (event) => {
  place = event.state?.place ?? 0;
  gesture = null;
  if (!models.length) return;
  fromAddress();
  show();
  make();
});
addEventListener("change", () => { gesture = null; });
addEventListener("pointerup", () => { gesture = null; });

// ---- what is seen

function show(key) {
  const of = model(), recipe = shown(sound, of.classes, of.effects.length);
  $("model").value = sound.model;
  $("seed").value = sound.end && sound.share > 0.5 ? sound.end.seed : recipe.seed;
  $("truncation").value = recipe.truncation;
  $("dice").disabled = $("seed").disabled = locked;
  $("lock").setAttribute("aria-pressed", locked);
  showLabels(recipe.label, of.classes);
  showShape(of, recipe.moves);
  showMorph();
  $("tempo-box").hidden = !of.bpm;
  if (of.bpm) {
    [$("tempo").min, $("tempo").max] = [Math.ceil(of.tempo[0]), Math.floor(of.tempo[1])];
    $("tempo").value = sound.bpm ?? of.bpm;
    $("bpm").textContent = `${(sound.bpm ?? of.bpm).toFixed(1)} BPM`;
    looper.setRate((sound.bpm ?? of.bpm) / of.bpm);
  } else looper.setRate(1);
  $("track").hidden = !of.bars;
  toAddress(key);
  $("undo").disabled = place === 0;
  $("redo").disabled = place >= last;
  kept.showKept();
}

function showMorph() {
  const inside = Boolean(sound.end);
  for (const end of ["a", "b"]) {
    $(`set-${end}`).classList.toggle("set", Boolean(ends[end]));
    $(`set-${end}`).textContent = `${inside ? "Go to" : "Set"} ${end.toUpperCase()}`;
  }
  $("share").disabled = !(ends.a && ends.b);
  if (inside) $("share").value = sound.share;
  $("share").setAttribute("aria-valuetext", inside ? soundName(sound) : "no morph");
  const name = (end) => (ends[end] ? nameOf(ends[end]) : "not set");
  if (ends.a || ends.b) $("ends").textContent = `A: ${name("a")} — B: ${name("b")}`;
}

function showLabels(label, classes) {
  const named = label ? Object.keys(label).filter((name) => label[name] > 0) : [];
  const chosen = !label ? "Any" : named.length === 1 ? named[0] : "Mix";
  const choices = classes.length ? ["Any", ...classes, ...(classes.length > 1 ? ["Mix"] : [])] : [];
  const even = Object.fromEntries(classes.map((name) => [name, 0.5]));
  if ($("labels").dataset.of !== choices.join()) {
    $("labels").dataset.of = choices.join();
    $("labels").replaceChildren(...choices.map((name) => toggleButton(name, false, () => change((recipe) => {
      recipe.label = name === "Any" ? null : name === "Mix" ? { ...even } : { [name]: 1 };
    }))));
  }
  [...$("labels").children].forEach((made) => made.setAttribute("aria-pressed", made.textContent === chosen));
  $("label-hint").hidden = !classes.length;
  $("mix").hidden = chosen !== "Mix";
  if (chosen !== "Mix" || $("mix").contains(document.activeElement)) return;
  $("mix").replaceChildren(...classes.map((name) => slider([name], [0, 1], label[name] ?? 0, (value) => {
    change((recipe) => { recipe.label = { ...even, ...recipe.label, [name]: Math.max(value, 0.01) }; }, `mix ${name}`);
  })));
}

function showShape(of, moves) {
  $("shape").hidden = $("centre").hidden = !moves.length;
  $("shape-hint").textContent = !moves.length && !of.measured
    ? "What this model's directions do is being measured; it takes half a minute, once."
    : "Moves the sound through the model. The words say what changes most, measured on its loops.";
  if (!moves.length) return;
  const box = $("moves"), key = JSON.stringify(of.effects);
  if (box.dataset.of !== key) {
    box.dataset.of = key;
    box.replaceChildren(...of.effects.slice(2).map((words, i) => slider(words, [-limits.move, limits.move], 0, (value) => {
      change((recipe) => setMove(recipe, i + 2, value), `move ${i + 2}`);
    })));
  }
  box.querySelectorAll("input").forEach((input, i) => { input.value = moves[i + 2]; });
  const [x, y] = [moves[0], moves[1] ?? 0];
  $("dot").style.left = `${50 + (50 * x) / limits.move}%`;
  $("dot").style.top = `${50 - (50 * y) / limits.move}%`;
  const [[left, right], [down, up]] = [of.effects[0], of.effects[1] ?? ["", ""]];
  Object.entries({ left, right, up, down }).forEach(([side, word]) => { $(`pad-${side}`).textContent = word; });
  const amount = (value, [less, more]) => (value ? `${value > 0 ? more : less} ${Math.abs(value).toFixed(1)}` : "");
  const text = [amount(x, of.effects[0]), amount(y, of.effects[1] ?? ["", ""])].filter(Boolean).join(", ");
  $("pad").setAttribute("aria-valuenow", x);
  $("pad").setAttribute("aria-valuetext", text || "in the middle");
}

function frame() {
  const position = looper.position();
  $("head").style.display = position === null ? "none" : "block";
  if (position !== null) $("head").style.left = `${100 * position}%`;
  requestAnimationFrame(frame);
}

// ---- what is done

function setMove(recipe, at, value) {
  while (recipe.moves.length <= at) recipe.moves.push(0);
  recipe.moves[at] = value;
}

// A control that belongs to both ends of a morph sets both, to the value that it shows.
function change(set, key) {
  set(sound.start);
  if (sound.end) {
    set(sound.end);
    ends = { a: copy(sound.start), b: copy(sound.end) };
  }
  show(key);
  make();
}

// Another seed ends a morph; what else is set stays as it is heard.
function changeSeed(seed) {
  const of = model();
  sound = { ...sound, start: { ...shown(sound, of.classes, of.effects.length), seed }, end: null, share: 0 };
  show();
  make();
}

function setEnd(end) {
  if (sound.end) { // a sound between two is not one that can be an end: go to that end
    sound.share = end === "a" ? 0 : 1;
    show();
    make();
    return;
  }
  ends[end] = copy(sound.start);
  $("share").value = end === "a" ? 0 : 1;
  say(`${end.toUpperCase()} is ${nameOf(sound.start)}.`);
  show();
}

function morph() {
  sound = { ...sound, start: copy(ends.a), end: copy(ends.b), share: Number($("share").value) };
  show("morph");
  make();
}

function recall(text) {
  const warnings = [];
  sound = fromQuery(text, models, limits, warnings);
  if (sound.end) ends = { a: copy(sound.start), b: copy(sound.end) };
  notice(warnings);
  show();
  make();
}

const keepThis = () => kept.keep(`${soundName(sound)}${models.length > 1 ? `, ${sound.model}` : ""}`, query());
const newSound = () => { if (!locked) changeSeed(newSeed()); else say("The seed is locked."); };
const undo = () => { if (place > 0) history.back(); };
const redo = () => { if (place < last) history.forward(); };

async function togglePlay() {
  if (!looper.buffer) { // as soon as there is a sound
    wantsPlay = !wantsPlay;
    say(wantsPlay ? "Plays as soon as the model is ready." : "");
    return;
  }
  if (looper.playing) looper.stop();
  else await looper.play();
  $("play").classList.toggle("on", looper.playing);
  $("play").setAttribute("aria-label", looper.playing ? "Stop" : "Play");
  $("play").querySelector("path").setAttribute("d", looper.playing ? "M6 5h12v14H6z" : "M7 4v16l13-8z");
}

function toPad(event) {
  const box = $("pad").getBoundingClientRect();
  const along = (share) => Math.round(200 * limits.move * clamp(2 * share - 1, -1, 1)) / 200;
  const x = along((event.clientX - box.left) / box.width), y = -along((event.clientY - box.top) / box.height);
  movePad(x, y);
}

function movePad(x, y) {
  change((recipe) => {
    setMove(recipe, 0, x);
    if (model().effects.length > 1) setMove(recipe, 1, y);
  }, "pad");
}

function stepPad(key) {
  const [dx, dy] = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowDown: [0, -0.1], ArrowUp: [0, 0.1] }[key];
  const [x = 0, y = 0] = shown(sound, model().classes, model().effects.length).moves;
  const step = (value, by) => clamp(Math.round(10 * (value + by)) / 10, -limits.move, limits.move);
  movePad(dx ? step(x, dx) : x, dy ? step(y, dy) : y);
}

function trackMinutes() {
  const minutes = $("minutes").valueAsNumber, [least, most] = limits.minutes;
  if (minutes >= least && minutes <= most) return minutes;
  say(`Minutes: a number from ${least} to ${most}.`, true);
  $("minutes").focus();
  return null;
}

// ---- controls

$("model").onchange = () => {
  const seed = sound.start.seed;
  sound = { model: $("model").value, start: plainRecipe(seed), end: null, share: 0, bpm: null };
  ends = { a: null, b: null };
  show();
  make();
};
$("play").onclick = togglePlay;
$("seed").onchange = () => {
  const seed = $("seed").valueAsNumber;
  if (Number.isFinite(seed)) changeSeed(clamp(Math.round(seed), 0, 2 ** 32 - 1));
  else show();
};
for (const id of ["seed", "minutes"]) { // after Enter keys are controls again
  $(id).onkeydown = (event) => { if (event.key === "Enter") $(id).blur(); };
}
$("dice").onclick = newSound;
$("lock").onclick = () => { locked = !locked; show(); };
$("undo").onclick = undo;
$("redo").onclick = redo;
$("link").onclick = async () => {
  try { await navigator.clipboard.writeText(location.href); say("Link copied."); } catch { say(location.href); }
};
$("truncation").oninput = () => {
  const truncation = Number($("truncation").value);
  change((recipe) => { recipe.truncation = truncation; }, "truncation");
};
for (const end of ["a", "b"]) $(`set-${end}`).onclick = () => setEnd(end);
$("share").oninput = morph;
$("pad").onpointerdown = (event) => { $("pad").setPointerCapture(event.pointerId); $("pad").focus(); toPad(event); };
$("pad").onpointermove = (event) => { if (event.buttons) toPad(event); };
$("centre").onclick = () => change((recipe) => { recipe.moves = []; });
$("tempo").oninput = () => { sound.bpm = Number($("tempo").value); show("tempo"); };
$("own-tempo").onclick = () => { sound.bpm = null; show(); };
$("keep").onclick = keepThis;
$("volume").value = localStorage.getItem("technogen-volume") ?? 1;
looper.setVolume(Number($("volume").value));
$("volume").oninput = () => {
  looper.setVolume(Number($("volume").value));
  localStorage.setItem("technogen-volume", $("volume").value);
};
for (const id of ["match", "on-the-bar"]) {
  $(id).onclick = () => {
    $(id).setAttribute("aria-checked", !isOn(id));
    if (id === "match" && played) looper.setLevel(gainOf(played));
  };
}
for (const format of ["wav", "flac"]) {
  $(`loop-${format}`).onclick = () => download(`${query()}&format=${format}`);
  $(`track-${format}`).onclick = () => {
    const minutes = trackMinutes();
    if (minutes !== null) download(`${query()}&format=${format}&minutes=${minutes}`);
  };
}

const KEYS = { n: newSound, k: keepThis, a: () => setEnd("a"), b: () => setEnd("b") };
addEventListener("keydown", (event) => {
  const { target, key } = event;
  const typing = target.matches("input:not([type=range]), textarea");
  if (typing || event.ctrlKey || event.metaKey || event.altKey || $("play-view").hidden || !sound) return;
  if (event.code === "Space") togglePlay();
  else if (key === "z") undo();
  else if (key === "Z" || key === "y") redo();
  else if (KEYS[key.toLowerCase()] && !target.matches("select")) KEYS[key.toLowerCase()]();
  else if (key.startsWith("Arrow") && !target.matches("input, select") && model().effects.length) stepPad(key);
  else return;
  event.preventDefault();
});
addEventListener("keyup", (event) => { // a button acts when Space is released
  if (event.code === "Space" && event.target.matches("button")) event.preventDefault();
});

function openView(training) {
  $("play-view").hidden = training;
  $("training-view").hidden = !training;
  $("show-play").setAttribute("aria-pressed", !training);
  $("show-training").setAttribute("aria-pressed", training);
  if (training) openTraining(runs);
  else closeTraining();
}
$("show-play").onclick = () => openView(false);
$("show-training").onclick = () => openView(true);

// ---- the beginning

const STATES = { reading: "reading the model", compiling: "compiling it: a few seconds, longer at the very first start" };

// Asks how far the server is until all is known; sets the page up when the first model can be played.
async function watch() {
  let found = [];
  for (;;) {
    try {
      const state = await ask("api/models");
      ({ runs, limits } = state);
      found = state.models;
      takeIn(found);
    } catch (error) {
      say(`${error.message} Trying again.`, true);
    }
    const open = found.some((of) => ["reading", "compiling"].includes(of.state) || (of.state === "ready" && !of.measured));
    const missing = found.some((of) => of.state === "failed");
    await wait(open || !models.length ? STATE_MS : missing ? 10 * STATE_MS : 60 * STATE_MS);
  }
}

function takeIn(found) {
  const ready = found.filter((of) => of.state === "ready");
  $("tabs").hidden = !runs.length;
  $("minutes").max = limits.minutes[1];
  const isNew = JSON.stringify(ready) !== JSON.stringify(models);
  const first = !sound && ready.length > 0;
  models = ready;
  const failed = found.filter((of) => of.state === "failed").map((of) => of.why);
  if (failed.join() !== (notice.failed ?? "")) { notice.failed = failed.join(); notice(failed); }
  if (!ready.length) {
    const busy = found.find((of) => STATES[of.state]);
    if (busy) say(`${busy.name}: ${STATES[busy.state]}.`);
    else if (runs.length && $("training-view").hidden) openView(true);
    return;
  }
  if (!isNew) return;
  $("model").replaceChildren(...models.map(({ name }) => new Option(name, name)));
  $("model-box").hidden = models.length < 2;
  if (first || new URLSearchParams(location.search).has("moves")) { // moves wait for the directions
    const failedLines = failed.length ? failed : [];
    fromAddress();
    if (failedLines.length) notice([...failedLines, ...$("notice").textContent.split("\n").filter(Boolean)]);
  }
  if (first) {
    say("");
    place = last = history.state?.place ?? 0;
    history.replaceState({ place }, "", `?${query()}`);
    const old = (item) => { // a list of an earlier version
      try { return { name: soundName(item), sound: toQuery(item).toString() }; } catch { return null; }
    };
    kept.setUp(recall, query, old);
    frame();
  }
  show();
  if (first || sound.start.moves.some(Boolean)) make();
}

watch();
window.technogen = { looper, get sound() { return copy(sound); }, get played() { return played; } }; // for the browser's console, and the tests
