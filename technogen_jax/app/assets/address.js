// A sound as the query of an address. The same parameters ask the server for it: see sounds.py.
// A sound is { model, start, end, share, bpm }; start and end are recipes { seed, label, truncation, moves }.
const DIGITS = 1e4; // of numbers in addresses

export const copy = (value) => structuredClone(value);
export const clamp = (value, least, most) => Math.min(most, Math.max(least, value));
export const newSeed = () => crypto.getRandomValues(new Uint16Array(1))[0]; // short enough to remember
export const mixed = (from, to, share) => Math.round((from * (1 - share) + to * share) * DIGITS) / DIGITS;

export function plainRecipe(seed = newSeed()) {
  return { seed, label: null, truncation: 1, moves: [] };
}

export function toQuery(sound) {
  const query = new URLSearchParams({ model: sound.model });
  writeRecipe(query, "", sound.start, plainRecipe(null));
  if (sound.end) {
    writeRecipe(query, "to_", sound.end, { ...sound.start, seed: null });
    query.set("share", sound.share);
  }
  if (sound.bpm) query.set("bpm", sound.bpm);
  return query;
}

const labelText = (label) =>
  Object.entries(label ?? {}).map(([name, weight]) => `${encodeURIComponent(name)}:${weight}`).join(",");
const movesText = (moves) => (moves.some(Boolean) ? moves.join(",") : "");

function writeRecipe(query, prefix, recipe, otherwise) {
  if (recipe.seed !== otherwise.seed) query.set(`${prefix}seed`, recipe.seed);
  const texts = [["label", labelText], ["moves", movesText], ["truncation", String]];
  for (const [name, text] of texts) {
    if (text(recipe[name]) !== text(otherwise[name])) query.set(prefix + name, text(recipe[name]));
  }
}

// Reads an address of this or an older version. What it names and is not there is told in `warnings`.
export function fromQuery(text, models, limits, warnings = []) {
  const query = new URLSearchParams(text);
  if (query.has("to")) { // older: the other end as a query of its own
    for (const [name, value] of new URLSearchParams(query.get("to"))) query.set(`to_${name}`, value);
  }
  const asked = query.get("model");
  const of = models.find((model) => model.name === asked) ?? models[0];
  if (asked !== null && asked !== of.name) {
    warnings.push(`The link is to the model “${asked}”, which is not open here. You hear ${of.name}, which sounds different.`);
  }
  const start = readRecipe(query, "", of, limits, plainRecipe(), warnings);
  const sound = { model: of.name, start, end: null, share: 0, bpm: null };
  if ([...query.keys()].some((name) => name.startsWith("to_"))) {
    sound.end = readRecipe(query, "to_", of, limits, start, warnings);
    sound.share = clamp(Number(query.get("share")) || 0, 0, 1);
  }
  const bpm = Number(query.get("bpm"));
  if (bpm && of.tempo) sound.bpm = clamp(bpm, ...of.tempo);
  return sound;
}

function readRecipe(query, prefix, of, limits, otherwise, warnings) {
  const get = (name) => query.get(prefix + name);
  const number = (value, least, most, without) =>
    value !== null && value.trim() !== "" && Number.isFinite(Number(value)) ? clamp(Number(value), least, most) : without;
  const moves = get("moves") === null ? otherwise.moves : get("moves").split(",");
  return {
    seed: Math.round(number(get("seed"), 0, 2 ** 32 - 1, otherwise.seed)),
    label: get("label") === null ? otherwise.label : readLabel(get("label"), of, number, warnings),
    truncation: number(get("truncation"), 0.05, 1, otherwise.truncation),
    moves: Array.from(moves, (move) => number(String(move), -limits.move, limits.move, 0)).slice(0, of.effects.length),
  };
}

function readLabel(text, of, number, warnings) {
  const label = {};
  for (const part of text ? text.split(",") : []) {
    const colon = part.lastIndexOf(":"), raw = colon < 0 ? part : part.slice(0, colon);
    let name = raw;
    try { name = decodeURIComponent(raw); } catch { /* a name with a % of its own */ }
    if (of.classes.includes(name)) label[name] = number(colon < 0 ? "1" : part.slice(colon + 1), 0, 1, 1);
    else warnings.push(`The link asks for the label “${name}”, which ${of.name} does not have. You hear another sound.`);
  }
  return Object.values(label).some((weight) => weight > 0) ? label : null;
}

// ---- a sound that is between two

// What the controls show: the values of a morph are between those of its ends.
export function shown(sound, classes, moves) {
  const { start, end, share } = sound;
  const at = (recipe, i) => recipe.moves[i] ?? 0;
  const weights = (label) => classes.map((name) => (label ? (label[name] ?? 0) : 0));
  const own = { ...start, moves: Array.from({ length: moves }, (_, i) => at(start, i)) };
  if (!end) return own;
  own.truncation = mixed(start.truncation, end.truncation, share);
  own.moves = own.moves.map((move, i) => mixed(move, at(end, i), share));
  if (start.label && end.label) {
    const [from, to] = [weights(start.label), weights(end.label)];
    own.label = Object.fromEntries(classes.map((name, i) => [name, mixed(from[i], to[i], share)]).filter(([, weight]) => weight));
  } else if (end.label || start.label) own.label = null;
  return own;
}

export function nameOf(recipe) {
  const label = Object.entries(recipe.label ?? {}).filter(([, weight]) => weight).map(([name]) => name);
  const changed = (recipe.moves.some(Boolean) ? " shaped" : "") + (recipe.truncation < 1 ? ` safe ${recipe.truncation}` : "");
  return [recipe.seed, ...label].join(" ") + changed;
}

export const soundName = (sound) =>
  sound.end ? `${nameOf(sound.start)} → ${nameOf(sound.end)}, ${Math.round(100 * sound.share)} %` : nameOf(sound.start);
