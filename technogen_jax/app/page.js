// The instrument. One object, `sound`, is what the server is asked for; controls write it, `show` reads it.
const $ = (id) => element.querySelector(`#${id}`);
const models = Object.fromEntries(props.models.map((model) => [model.name, model]));
const looper = makeLooper();
const KEPT = "technogen-kept";
let sound = null, ends = { a: null, b: null }, bpm = null, locked = false;

const model = () => models[sound.model];
const copy = (value) => JSON.parse(JSON.stringify(value));
const say = (text, wrong = false) => { $("status").textContent = text; $("status").classList.toggle("wrong", wrong); };
const clamp = (value, least, most) => Math.min(most, Math.max(least, value));
const newSeed = () => crypto.getRandomValues(new Uint16Array(1))[0]; // short enough to remember

// ---- the server

async function call(name, asked) {
  const at = `gradio_api/call/${name}`;
  const sent = await fetch(at, {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ data: [asked] }),
  });
  if (sent.status === 503) throw new Error("Many are playing just now. Try again in a moment.");
  if (!sent.ok) throw new Error(`The server refused (${sent.status}).`);
  const { event_id } = await sent.json();
  const events = await (await fetch(`${at}/${event_id}`)).text();
  const last = events.trim().split("\n\n").pop();
  const data = JSON.parse(last.slice(last.indexOf("data: ") + 6));
  if (!last.startsWith("event: complete")) throw new Error((data && data.error) || "The server could not make this.");
  return data[0];
}

function bytes(text) {
  const letters = atob(text), found = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) found[i] = letters.charCodeAt(i);
  return found;
}

function toBuffer(made) {
  const pcm = new Int16Array(bytes(made.pcm).buffer);
  const buffer = new AudioBuffer({ length: made.samples, numberOfChannels: made.channels, sampleRate: made.rate_hz });
  for (let channel = 0; channel < made.channels; channel++) {
    const into = buffer.getChannelData(channel);
    for (let i = 0; i < made.samples; i++) into[i] = pcm[i * made.channels + channel] / 32768;
  }
  return buffer;
}

// One request at a time; while it is away only the newest wish is kept.
let away = false, wanted = false;
async function make() {
  wanted = true;
  if (away) return;
  away = true;
  while (wanted) {
    wanted = false;
    element.dataset.making = "1";
    try {
      const asked = copy(sound);
      const made = await call("loop", asked);
      looper.load(toBuffer(made), models[asked.model].bars, $("on-the-bar").checked);
      draw(made);
      say("");
    } catch (error) {
      say(error.message, true);
    }
  }
  away = false;
  delete element.dataset.making;
}

async function download(format, minutes) {
  say(minutes ? "Making the track…" : "Making the file…");
  try {
    const made = await call("file", { sound, format, bpm, minutes });
    const link = Object.assign(document.createElement("a"), { href: made.address, download: made.name });
    link.click();
    say(made.name);
  } catch (error) {
    say(error.message, true);
  }
}

// ---- the address: the sound and its tempo, for others

function toAddress() {
  const query = new URLSearchParams({ model: sound.model, ...plain(sound.start) });
  if (sound.end) { query.set("share", sound.share); query.set("to", new URLSearchParams(plain(sound.end))); }
  if (bpm) query.set("bpm", bpm);
  history.replaceState(null, "", `?${query}`);
}

function plain(recipe) {
  const words = { seed: recipe.seed, truncation: recipe.truncation };
  if (recipe.label) words.label = Object.entries(recipe.label).map(([name, weight]) => `${name}:${weight}`).join(",");
  if (recipe.moves.some(Boolean)) words.moves = recipe.moves.join(",");
  return words;
}

function recipeFrom(query, of) {
  const numberOf = (text, least, most, otherwise) =>
    text !== null && text.trim() !== "" && Number.isFinite(Number(text)) ? clamp(Number(text), least, most) : otherwise;
  const moves = (query.get("moves") ?? "").split(",").slice(0, of.moves);
  const weights = (query.get("label") ?? "").split(",").map((pair) => pair.split(":"));
  const label = Object.fromEntries(
    weights.filter(([name]) => of.classes.includes(name)).map(([name, weight]) => [name, numberOf(weight ?? "1", 0, 1, 1)]),
  );
  return {
    seed: Math.round(numberOf(query.get("seed"), 0, 2 ** 32 - 1, newSeed())),
    label: Object.values(label).some((weight) => weight > 0) ? label : null,
    truncation: numberOf(query.get("truncation"), 0.05, 1, 1),
    moves: Array.from({ length: of.moves }, (_, i) => numberOf(moves[i] ?? null, -props.limits.move, props.limits.move, 0)),
  };
}

function fromAddress() {
  const query = new URLSearchParams(location.search);
  const of = models[query.get("model")] ?? props.models[0];
  sound = { model: of.name, start: recipeFrom(query, of), end: null, share: 0 };
  if (query.has("to")) {
    sound.end = recipeFrom(new URLSearchParams(query.get("to")), of);
    sound.share = clamp(Number(query.get("share")) || 0, 0, 1);
  }
  const asked = Number(query.get("bpm"));
  bpm = asked && of.tempo ? clamp(asked, ...of.tempo) : null;
}

// ---- what is seen

const COLOURS = [[11, 13, 16], [20, 45, 56], [30, 110, 110], [150, 200, 80], [240, 250, 190]];
const palette = Uint32Array.from({ length: 256 }, (_, level) => { // as a pixel lies in memory: alpha, blue, green, red
  const at = (level / 255) * (COLOURS.length - 1), low = Math.min(Math.floor(at), COLOURS.length - 2);
  const [red, green, blue] = COLOURS[low].map((value, i) => Math.round(value + (COLOURS[low + 1][i] - value) * (at - low)));
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
});

function draw(made) {
  const wave = $("wave"), spectrum = $("spectrum"), data = looper.buffer.getChannelData(0);
  wave.width = 800; wave.height = 120;
  const pen = wave.getContext("2d");
  pen.fillStyle = "#b8e04a";
  for (let x = 0; x < wave.width; x++) {
    let low = 1, high = -1;
    const end = Math.max(Math.floor(((x + 1) * data.length) / wave.width), Math.floor((x * data.length) / wave.width) + 1);
    for (let i = Math.floor((x * data.length) / wave.width); i < end; i++) {
      low = Math.min(low, data[i]); high = Math.max(high, data[i]);
    }
    pen.fillRect(x, 60 - 58 * high, 1, Math.max(58 * (high - low), 1));
  }
  const levels = bytes(made.picture), bands = levels.length / made.frames;
  spectrum.width = made.frames; spectrum.height = bands;
  const image = new ImageData(made.frames, bands), points = new Uint32Array(image.data.buffer);
  for (let i = 0; i < levels.length; i++) { // the lowest band comes first and is drawn last
    points[(bands - 1 - Math.floor(i / made.frames)) * made.frames + (i % made.frames)] = palette[levels[i]];
  }
  spectrum.getContext("2d").putImageData(image, 0, 0);
}

function frame() {
  const position = looper.position();
  $("head").style.display = position === null ? "none" : "block";
  if (position !== null) $("head").style.left = `${100 * position}%`;
  if (element.isConnected) requestAnimationFrame(frame);
}

const recipeName = (recipe) =>
  [recipe.seed, ...(recipe.label ? Object.keys(recipe.label).filter((name) => recipe.label[name]) : [])].join(" ");
const soundName = (of) => recipeName(of.start) + (of.end ? ` → ${recipeName(of.end)}` : "");

function show() {
  const recipe = sound.start, of = model();
  $("model").value = sound.model;
  $("model").hidden = props.models.length < 2;
  $("seed").value = recipe.seed;
  $("truncation").value = recipe.truncation;
  $("dice").disabled = $("seed").disabled = locked;
  $("lock").setAttribute("aria-pressed", locked);
  showLabels(recipe.label, of.classes);
  $("dot").style.left = `${50 + (25 * recipe.moves[0] * 2) / props.limits.move}%`;
  $("dot").style.top = `${50 - (25 * (recipe.moves[1] ?? 0) * 2) / props.limits.move}%`;
  showMoves(recipe.moves);
  for (const end of ["a", "b"]) $(`set-${end}`).classList.toggle("set", Boolean(ends[end]));
  $("share").disabled = !(ends.a && ends.b);
  if (sound.end) $("share").value = sound.share;
  $("share").classList.toggle("on", Boolean(sound.end));
  $("tempo-box").hidden = !of.bpm;
  if (of.bpm) {
    [$("tempo").min, $("tempo").max] = [Math.ceil(of.tempo[0]), Math.floor(of.tempo[1])];
    $("tempo").value = bpm ?? of.bpm;
    $("bpm").textContent = `${(bpm ?? of.bpm).toFixed(1)} BPM`;
    looper.setRate((bpm ?? of.bpm) / of.bpm);
  } else looper.setRate(1);
  $("track").hidden = !of.bars;
  showKept();
  toAddress();
}

function showLabels(label, classes) {
  const named = label ? Object.keys(label).filter((name) => label[name] > 0) : [];
  const chosen = !label ? "Any" : named.length === 1 ? named[0] : "Mix";
  const choices = classes.length ? ["Any", ...classes, ...(classes.length > 1 ? ["Mix"] : [])] : [];
  const even = Object.fromEntries(classes.map((name) => [name, 0.5]));
  $("labels").replaceChildren(...choices.map((name) => button(name, name === chosen, () => {
    change((recipe) => { recipe.label = name === "Any" ? null : name === "Mix" ? even : { [name]: 1 }; });
  })));
  $("mix").hidden = chosen !== "Mix";
  if (chosen !== "Mix" || $("mix").contains(document.activeElement)) return;
  $("mix").replaceChildren(...classes.map((name) => slider(name, 0, 1, label[name] ?? 0, (value) => {
    change((recipe) => { recipe.label[name] = Math.max(value, 0.01); });
  })));
}

function showMoves(moves) {
  const box = $("moves");
  if (box.children.length !== Math.max(moves.length - 2, 0)) {
    box.replaceChildren(...moves.slice(2).map((value, i) => slider(String(i + 1), -props.limits.move, props.limits.move, value, (set) => {
      change((recipe) => { recipe.moves[i + 2] = set; });
    })));
  }
  box.querySelectorAll("input").forEach((input, i) => { input.value = moves[i + 2]; });
}

function button(text, on, click) {
  const made = Object.assign(document.createElement("button"), { textContent: text, onclick: click });
  made.setAttribute("aria-pressed", on);
  return made;
}

function slider(text, min, max, value, set) {
  const label = document.createElement("label"), input = document.createElement("input");
  Object.assign(input, { type: "range", min, max, step: 0.01, value });
  input.oninput = () => set(Number(input.value));
  input.ondblclick = () => set(min < 0 ? 0 : value);
  label.className = "slider";
  label.append(Object.assign(document.createElement("span"), { textContent: text }), input);
  return label;
}

// ---- what is done

function change(set) {
  sound.end = null; // a hand on any other control ends a morph
  sound.share = 0;
  set(sound.start);
  show();
  make();
}

function recall(other) {
  sound = copy(other);
  if (sound.end) ends = { a: copy(sound.start), b: copy(sound.end) };
  show();
  make();
}

const kept = () => JSON.parse(localStorage.getItem(KEPT) ?? "[]").filter((item) => models[item.model]);
const setKept = (list) => { localStorage.setItem(KEPT, JSON.stringify(list.slice(-50))); showKept(); };

function showKept() {
  const list = kept();
  $("kept").replaceChildren(...list.map((item, index) => {
    const line = document.createElement("li");
    line.append(
      button(soundName(item), JSON.stringify(item) === JSON.stringify(sound), () => recall(item)),
      Object.assign(button("×", false, () => setKept(list.filter((_, i) => i !== index))), { title: "Remove" }),
    );
    return line;
  }));
}

async function toggle() {
  if (looper.playing) looper.stop();
  else await looper.play();
  $("play").classList.toggle("on", looper.playing);
  $("play").setAttribute("aria-label", looper.playing ? "Stop" : "Play");
  $("play").querySelector("path").setAttribute("d", looper.playing ? "M6 5h12v14H6z" : "M7 4v16l13-8z");
}

function toPad(event) {
  const box = $("pad").getBoundingClientRect();
  const along = (share) => Math.round(200 * props.limits.move * clamp(2 * share - 1, -1, 1)) / 200;
  change((recipe) => {
    recipe.moves[0] = along((event.clientX - box.left) / box.width);
    if (recipe.moves.length > 1) recipe.moves[1] = -along((event.clientY - box.top) / box.height);
  });
}

$("model").append(...props.models.map(({ name }) => new Option(name, name)));
$("model").onchange = () => {
  const of = models[$("model").value];
  sound = { model: of.name, start: recipeFrom(new URLSearchParams({ seed: sound.start.seed }), of), end: null, share: 0 };
  ends = { a: null, b: null };
  bpm = null;
  show();
  make();
};
$("play").onclick = toggle;
$("seed").onchange = () => {
  const seed = $("seed").valueAsNumber;
  change((recipe) => { if (Number.isFinite(seed)) recipe.seed = clamp(Math.round(seed), 0, 2 ** 32 - 1); });
};
$("dice").onclick = () => change((recipe) => { recipe.seed = newSeed(); });
$("lock").onclick = () => { locked = !locked; show(); };
$("link").onclick = async () => {
  try { await navigator.clipboard.writeText(location.href); say("Link copied."); } catch { say(location.href); }
};
$("truncation").oninput = () => change((recipe) => { recipe.truncation = Number($("truncation").value); });
for (const end of ["a", "b"]) $(`set-${end}`).onclick = () => { ends[end] = copy(sound.start); show(); };
$("share").oninput = () => {
  sound = { model: sound.model, start: copy(ends.a), end: copy(ends.b), share: Number($("share").value) };
  show();
  make();
};
$("pad").onpointerdown = (event) => { $("pad").setPointerCapture(event.pointerId); toPad(event); };
$("pad").onpointermove = (event) => { if (event.buttons) toPad(event); };
$("pad").onkeydown = (event) => {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowDown: [1, -1], ArrowUp: [1, 1] }[event.key];
  if (!step || step[0] >= sound.start.moves.length) return;
  event.preventDefault();
  change(({ moves }) => { moves[step[0]] = clamp(moves[step[0]] + step[1] * 0.1, -props.limits.move, props.limits.move); });
};
$("centre").onclick = () => change((recipe) => recipe.moves.fill(0));
$("tempo").oninput = () => { bpm = Number($("tempo").value); show(); };
$("own-tempo").onclick = () => { bpm = null; show(); };
$("keep").onclick = () => setKept([...kept(), copy(sound)]);
$("minutes").max = props.limits.minutes;
for (const format of ["wav", "flac"]) {
  $(`loop-${format}`).onclick = () => download(format, null);
  $(`track-${format}`).onclick = () => download(format, $("minutes").valueAsNumber);
}
document.addEventListener("keydown", (event) => {
  if (event.code !== "Space" || ["INPUT", "SELECT", "BUTTON", "TEXTAREA"].includes(event.target.tagName)) return;
  event.preventDefault();
  toggle();
});

if (props.models.length) {
  fromAddress();
  if (sound.end) ends = { a: copy(sound.start), b: copy(sound.end) };
  show();
  make();
  frame();
}
window.technogen = { looper, get sound() { return copy(sound); } }; // for the browser's console, and the tests
