// Helpers for the elements of the page.
export const $ = (id) => document.getElementById(id);

export function create(tag, fields = {}, ...children) {
  const made = Object.assign(document.createElement(tag), fields);
  made.append(...children);
  return made;
}

export function button(text, click, fields = {}) {
  return create("button", { textContent: text, onclick: click, type: "button", ...fields });
}

export function toggle(text, on, click) {
  const made = button(text, click);
  made.setAttribute("aria-pressed", on);
  return made;
}

// A slider between two words, or behind one.
export function slider(words, range, value, set) {
  const input = create("input", { type: "range", min: range[0], max: range[1], step: 0.01, value });
  input.oninput = () => set(Number(input.value));
  input.ondblclick = () => { input.value = range[0] < 0 ? 0 : value; set(Number(input.value)); };
  input.setAttribute("aria-label", words.join(" to "));
  const spans = words.map((word) => create("span", { textContent: word }));
  const made = create("label", { className: words.length > 1 ? "slider ends" : "slider" }, spans[0], input);
  made.append(...spans.slice(1));
  return made;
}

export const say = (text, wrong = false) => {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
};
