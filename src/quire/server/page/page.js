// Puts the page together: asks the server for its state a few times a second, and for a key if needed.

import { Unauthorized, hasKey, request, setKey } from "./api.js";
import { Chat } from "./chat.js";
import { EngineView } from "./engine.js";

const byId = (id) => document.getElementById(id);
const INTERVAL_MS = 250;
const HIDDEN_INTERVAL_MS = 5000; // nobody looks
const FAILED_INTERVAL_MS = 1500;
const PATIENCE_MS = 6000; // the server gives an engine that is busy 4 s to answer

const engine = new EngineView();
const chat = new Chat(() => askForKey());
let keyAnswer = null; // settled when the open dialog closes

function askForKey() {
  if (keyAnswer !== null) return keyAnswer;
  const dialog = byId("key-dialog");
  byId("key-error").hidden = !hasKey();
  byId("key").value = "";
  dialog.showModal();
  keyAnswer = new Promise((resolve) => {
    const closed = () => {
      setKey(byId("key").value.trim());
      keyAnswer = null;
      resolve();
    };
    dialog.addEventListener("close", closed, { once: true });
  });
  return keyAnswer;
}

function show(data) {
  byId("state").dataset.state = data.state;
  byId("state").textContent = data.state;
  byId("state").title = data.detail;
  byId("model").textContent = data.model ?? "";
  const isReady = data.state === "ready";
  byId("loading").hidden = isReady || data.state === "draining";
  document.querySelector(".spinner").hidden = data.state === "dead";
  byId("loading-text").textContent =
    data.state === "loading" ? `${capital(data.detail)} · ${Math.round(data.elapsed_s)} s` : capital(data.detail);
  chat.setModel(isReady ? data.model : null);
  engine.show(data);
}

// What an engine has died of stays to be read, for its server ends soon after it.
function showOffline() {
  if (byId("state").dataset.state === "loading") byId("loading").hidden = true;
  byId("state").dataset.state = "offline";
  byId("state").textContent = "offline";
  byId("state").title = "the server cannot be reached";
  chat.setModel(null);
  engine.clear();
}

function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

async function watch() {
  for (;;) {
    let wait = document.hidden ? HIDDEN_INTERVAL_MS : INTERVAL_MS;
    try {
      const response = await request("page-data", { signal: AbortSignal.timeout(PATIENCE_MS) });
      if (!response.ok) throw new Error(`status ${response.status}`);
      show(await response.json());
    } catch (error) {
      if (error instanceof Unauthorized) {
        engine.clear();
        await askForKey();
        continue;
      }
      showOffline();
      wait = FAILED_INTERVAL_MS;
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
  }
}

watch();
