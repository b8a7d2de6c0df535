// The listener's side: plays what the server names by numbers without meaning, and sends the answers.
"use strict";
const LEAST_S = 2, FADE_S = 0.01;
const $ = (id) => document.getElementById(id);
const root = location.pathname.replace(/\/$/, "");
const PAIR = [["left", "A", "1"], ["right", "B", "2"]];
const SCALE = ["certain", "fairly sure", "leaning", "a guess"];

let state = null, player = null, choice = null, began = 0, counts = null, busy = false, training = false;

async function ask(path, body) {
  const options = body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const reply = await fetch(root + path, options);
  if (!reply.ok) throw new Error(await reply.text());
  return reply;
}

function say(text, wrong = false) {
  $("status").textContent = text;
  $("status").className = wrong ? "wrong" : "";
}

// All clips of a question run from one start, in step; choosing one is a matter of gains, so a change takes effect at once.
function makePlayer(buffers) {
  let context = null, sources = [], gains = [], now = null, since = 0, startedAt = 0;
  const played = buffers.map(() => 0);
  const settle = () => {
    const time = performance.now() / 1000;
    if (now !== null && context.state === "running") played[now] += time - since;
    since = time;
  };
  const fade = (to) => gains.forEach((gain, place) => {
    gain.gain.setTargetAtTime(place === to ? 1 : 0, context.currentTime, FADE_S / 3);
  });
  return {
    buffers,
    get now() { return now; },
    get sources() { return sources; },
    secondsPlayed() { settle(); return played.slice(); },
    position() {
      return now === null ? 0 : (Math.max(0, context.currentTime - startedAt) % buffers[0].duration) / buffers[0].duration;
    },
    async play(place) {
      if (!context) {
        context = new AudioContext({ sampleRate: buffers[0].sampleRate }); // its own rate: no sample is changed
        await context.resume();
        startedAt = context.currentTime + 0.05;
        gains = buffers.map(() => new GainNode(context, { gain: 0 }));
        sources = buffers.map((buffer, number) => {
          const source = new AudioBufferSourceNode(context, { buffer, loop: true });
          source.connect(gains[number]).connect(context.destination);
          source.start(startedAt);
          return source;
        });
        since = performance.now() / 1000;
      }
      await context.resume();
      settle();
      now = place;
      fade(place);
    },
    stop() {
      if (now === null) return;
      settle();
      now = null;
      fade(null);
      const stopped = context;
      setTimeout(() => { if (now === null && stopped.state === "running") stopped.suspend(); }, 60);
    },
    close() { this.stop(); context?.close(); context = null; },
  };
}

function toBuffer(bytes) { // 16 bits after the 44 bytes that every such WAV file begins with
  const view = new DataView(bytes), channels = view.getUint16(22, true), rate = view.getUint32(24, true);
  const samples = view.getUint32(40, true) / 2 / channels;
  const buffer = new AudioBuffer({ length: samples, numberOfChannels: channels, sampleRate: rate });
  for (let c = 0; c < channels; c++) {
    const data = buffer.getChannelData(c);
    for (let i = 0; i < samples; i++) data[i] = view.getInt16(44 + 2 * (i * channels + c), true) / 32768;
  }
  return buffer;
}

async function show(next) {
  state = next;
  player?.close();
  player = null;
  choice = null;
  training = Boolean(state.training && state.begun && !training && !state.done);
  const over = state.done >= state.of;
  $("welcome").hidden = state.begun;
  $("minutes").textContent = `${state.minutes} minute${state.minutes === 1 ? "" : "s"}`;
  $("trial").hidden = !state.begun || over;
  $("end").hidden = !over;
  $("count").textContent = state.begun && !over && !training ? `${state.done + 1} of ${state.of}` : "";
  $("bar").firstElementChild.style.width = `${(100 * state.done) / state.of}%`;
  if (over) {
    $("result").textContent = `You were right about ${state.result.right} of ${state.result.of} pairs; guessing gives half.`;
    say("");
    return;
  }
  if (!state.begun) return;
  const clips = training ? state.training : state.clips;
  const pair = clips.length === 2;
  $("question").textContent = training ? "Two examples first. Listen to both."
    : pair ? "Which of the two was made by a human?" : "Was this made by a human or by a machine?";
  const names = training ? ["A human", "A machine"] : pair ? ["A", "B"] : ["Listen"];
  $("clips").replaceChildren(...names.map((name, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.disabled = true;
    const small = document.createElement("small"), key = document.createElement("kbd");
    key.textContent = pair ? ["←", "→"][place] : "←";
    small.append("play", key);
    button.append(name, small, document.createElement("i"));
    button.onclick = () => listen(place);
    return button;
  }));
  $("answers").replaceChildren(...(training ? [] : pair
    ? PAIR.map(([value, name, key]) => answerButton(`${name} is human`, key, { answer: value, confidence: null }))
    : SCALE.flatMap((word, row) => ["real", "generated"].map((value, column) =>
      answerButton(`${column ? "Machine" : "Human"}, ${word}`, String(1 + row + 4 * column), { answer: value, confidence: 4 - row })))));
  const loaded = await Promise.all(clips.map(async (token) => toBuffer(await (await ask(`/sound/${token}`)).arrayBuffer())));
  player = makePlayer(loaded);
  counts = { plays: 0, switches: 0 };
  began = performance.now();
  for (const button of $("clips").children) button.disabled = false;
  refresh();
  say(pair ? "Listen to both, as often as you like." : "Listen as long as you like.");
}

function answerButton(text, key, value) {
  const button = document.createElement("button"), hint = document.createElement("kbd");
  button.type = "button";
  hint.textContent = key;
  button.append(text, hint);
  button.dataset.key = key;
  button.disabled = true;
  button.onclick = () => {
    choice = value;
    for (const other of $("answers").children) other.setAttribute("aria-pressed", String(other === button));
    refresh();
  };
  return button;
}

function refresh() {
  const ready = Boolean(player) && player.secondsPlayed().every((seconds) => seconds >= LEAST_S);
  for (const button of $("answers").children) button.disabled = !ready;
  $("next").disabled = !ready || busy || (!training && !choice);
  $("stop").disabled = !player || player.now === null;
  [...$("clips").children].forEach((button, place) => {
    const on = player?.now === place;
    button.setAttribute("aria-pressed", String(on));
    button.lastElementChild.style.width = on ? `${100 * player.position()}%` : "0";
  });
}

async function listen(place) {
  if (!player) return;
  counts.plays += player.now === null;
  counts.switches += player.now !== null && player.now !== place;
  await player.play(place);
  refresh();
}

async function next() {
  if ($("next").disabled) return;
  busy = true;
  refresh();
  try {
    if (training) {
      await show(state);
      return;
    }
    const answer = { trial: state.done, ...choice, rt_ms: Math.round(performance.now() - began), heard_s: player.secondsPlayed(), ...counts };
    await show(await (await ask("/answer", answer)).json());
  } catch (error) {
    say(`Not sent, press Next again. ${error.message}`, true); // the server takes an answer once, however often it comes
  } finally {
    busy = false;
    refresh();
  }
}

document.querySelector("form").onsubmit = async (event) => {
  event.preventDefault();
  const said = new FormData(event.target);
  try {
    const about = { sound: said.get("sound"), producer: said.get("producer") === "yes", years: Number(said.get("years")) };
    await show(await (await ask("/begin", about)).json());
  } catch (error) {
    say(`Not sent, try again. ${error.message}`, true);
  }
};
$("next").onclick = next;
$("stop").onclick = () => { player?.stop(); refresh(); };

document.onkeydown = (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  if (!$("welcome").hidden) {
    if (event.key === "Enter" && event.target.tagName !== "BUTTON" && event.target.tagName !== "INPUT") document.querySelector("form").requestSubmit();
    return;
  }
  if (!player) return;
  refresh();
  const wanted = [...$("answers").children].find((button) => button.dataset.key === event.key);
  if (event.key === "ArrowLeft") listen(0);
  else if (event.key === "ArrowRight" && player.buffers.length === 2) listen(1);
  else if (event.key === " ") player.now === null ? listen(0) : (player.stop(), refresh());
  else if (event.key === "Enter") next();
  else if (wanted) wanted.click();
  else return;
  event.preventDefault();
};

setInterval(() => player && refresh(), 60);
window.listening = { get player() { return player; }, get state() { return state; } };
ask("/state").then((reply) => reply.json()).then(show).catch((error) => say(`Load the page again. ${error.message}`, true));
