// Files on the way: the server renders them one after the other, the list shows how far they are.
import { ask, OfflineError, wait } from "./api.js";
import { $, button, create, say } from "./elements.js";

const under = new Set(); // ids of renders that are not finished

export async function download(query) {
  let render;
  try {
    render = await ask(`api/renders?${query}`, { method: "POST" });
  } catch (error) {
    say(error.message, true);
    return;
  }
  const at = `api/renders/${render.id}`;
  const text = create("span", { textContent: render.name }), bar = create("progress", { max: 1, value: 0 });
  bar.setAttribute("aria-label", `Progress of ${render.name}`);
  const line = create("li", {}, text, bar, button("×", () => {
    under.delete(render.id);
    line.remove();
    ask(at, { method: "DELETE" }).catch(() => {});
  }, { title: "Cancel", ariaLabel: `Cancel ${render.name}` }));
  $("renders").append(line);
  under.add(render.id);
  try {
    while (under.has(render.id) && render.state !== "done") {
      if (render.state === "failed") throw new Error(render.why);
      text.textContent = render.state === "waiting" ? `${render.name}: waits for other files` : render.name;
      bar.value = render.share;
      await wait(300);
      try {
        render = await ask(at);
      } catch (error) {
        if (!(error instanceof OfflineError)) throw error;
      }
    }
    if (under.has(render.id)) {
      create("a", { href: `${at}/file`, download: render.name }).click();
      say(`Saved: ${render.name}`);
    }
  } catch (error) {
    say(`${render.name}: ${error.message}`, true);
  }
  under.delete(render.id);
  line.remove();
}

// Nobody waits for a file when the page is closed.
addEventListener("pagehide", () => {
  for (const id of under) fetch(`api/renders/${id}`, { method: "DELETE", keepalive: true });
});
