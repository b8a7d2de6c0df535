// The list of kept sounds. The server keeps it for the user of its machine; for others this browser does.
import { ask, OfflineError } from "./api.js";
import { $, button, create, say, toggle } from "./elements.js";

const KEY = "technogen-kept";
let items = [], onServer = false, recall = () => {}, current = () => "";

export async function setUp(onRecall, currentQuery, convertOld) {
  [recall, current] = [onRecall, currentQuery];
  try {
    items = await ask("api/kept");
    onServer = true;
  } catch { /* another machine: the list is this browser's */ }
  const own = JSON.parse(localStorage.getItem(KEY) ?? "[]").map((item) => (item.sound ? item : convertOld(item)));
  const known = new Set(items.map((item) => item.sound));
  const more = own.filter((item) => item && !known.has(item.sound));
  if (more.length) items = [...items, ...more];
  if (onServer && own.length) {
    await store();
    localStorage.removeItem(KEY);
  }
  showKept();
  addEventListener("focus", reload); // another tab may have changed it
}

async function reload() {
  if (!onServer || $("kept").querySelector("input")) return;
  try { items = await ask("api/kept"); showKept(); } catch { /* the old list stays */ }
}

async function store() {
  if (!onServer) {
    localStorage.setItem(KEY, JSON.stringify(items));
    return;
  }
  try {
    items = await ask("api/kept", { method: "PUT", body: JSON.stringify(items) });
  } catch (error) {
    say(error instanceof OfflineError ? "Not saved: the server does not answer." : `Not saved: ${error.message}`, true);
  }
}

async function change(next) {
  items = next;
  showKept();
  await store();
  showKept();
}

export function keep(name, sound) {
  if (items.some((item) => item.sound === sound)) say("This sound is kept already.");
  else { say(`Kept: ${name}`); change([...items, { name, sound }]); }
}

function rename(index) {
  const field = create("input", { type: "text", value: items[index].name, maxLength: 80 });
  field.setAttribute("aria-label", "New name");
  let done = false;
  const finish = (save) => {
    if (done) return;
    done = true;
    const name = field.value.trim();
    field.remove();
    if (save && name) change(items.map((item, i) => (i === index ? { ...item, name } : item)));
    else showKept();
  };
  field.onkeydown = (event) => {
    if (event.key === "Enter") finish(true);
    if (event.key === "Escape") finish(false);
  };
  field.onblur = () => finish(true);
  $("kept").children[index].replaceChildren(field);
  field.select();
}

export function showKept() {
  if ($("kept").querySelector("input:focus")) return;
  $("kept").replaceChildren(...items.map((item, index) => create(
    "li", {},
    toggle(item.name, item.sound === current(), () => recall(item.sound)),
    button("✎", () => rename(index), { title: "Rename", ariaLabel: `Rename ${item.name}` }),
    button("×", () => change(items.filter((_, i) => i !== index)), { title: "Remove", ariaLabel: `Remove ${item.name}` }),
  )));
}

$("export").onclick = () => {
  const file = new Blob([`${JSON.stringify(items, null, 1)}\n`], { type: "application/json" });
  const link = create("a", { href: URL.createObjectURL(file), download: "technogen-kept.json" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
};
$("import").onclick = () => $("import-file").click();
$("import-file").onchange = async () => {
  const [file] = $("import-file").files;
  $("import-file").value = "";
  if (!file) return;
  try {
    const found = JSON.parse(await file.text());
    const good = Array.isArray(found) && found.every((item) => typeof item?.name === "string" && typeof item?.sound === "string");
    if (!good) throw new Error();
    const known = new Set(items.map((item) => item.sound));
    const more = found.filter((item) => !known.has(item.sound)).map(({ name, sound }) => ({ name, sound }));
    await change([...items, ...more]);
    say(`${more.length} sounds added, ${found.length - more.length} were there already.`);
  } catch {
    say(`${file.name}: expected a list that this page exported.`, true);
  }
};
