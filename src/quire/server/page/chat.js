// The playground: one conversation, streamed from /v1/chat/completions.

import { Unauthorized, events, request } from "./api.js";
import { render } from "./markdown.js";

const byId = (id) => document.getElementById(id);

export class Chat {
  constructor(onUnauthorized) {
    this.onUnauthorized = onUnauthorized;
    this.history = [];
    this.model = null;
    this.abort = null;
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    byId("input").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.send();
      }
    });
    byId("input").addEventListener("input", fitInput);
    byId("stop").addEventListener("click", () => this.abort?.abort());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && !event.isComposing) this.abort?.abort();
    });
    byId("clear").addEventListener("click", () => this.clear());
  }

  setModel(model) {
    this.model = model;
    byId("send").disabled = model === null;
  }

  clear() {
    this.abort?.abort();
    this.history = [];
    byId("messages").replaceChildren();
  }

  async send() {
    const text = byId("input").value.trim();
    if (!text || this.model === null || this.abort !== null) return;
    byId("input").value = "";
    fitInput();
    document.querySelector(".hint")?.remove();
    addMessage("user").textContent = text;
    const history = this.history;
    history.push({ role: "user", content: text });
    const answer = await this.answer();
    // Templates want no earlier thoughts, and users and answers to take turns.
    if (answer.text || answer.thoughts) history.push({ role: "assistant", content: answer.text });
    else history.pop();
  }

  async answer() {
    const view = new AnswerView(addMessage("assistant"));
    this.abort = new AbortController();
    setBusy(true);
    try {
      await this.stream(view);
      view.end();
    } catch (error) {
      if (error.name === "AbortError") view.end("stopped");
      else view.fail(error.message);
      if (error instanceof Unauthorized) this.onUnauthorized();
    } finally {
      this.abort = null;
      setBusy(false);
    }
    return view;
  }

  async stream(view) {
    const response = await request("v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(this.body()),
      signal: this.abort.signal,
    });
    if (!response.ok) throw new Error(await reason(response));
    for await (const data of events(response)) {
      if (data === "[DONE]") return;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      view.add(chunk);
    }
  }

  body() {
    const system = byId("system").value.trim();
    const messages = system ? [{ role: "system", content: system }, ...this.history] : this.history;
    return {
      model: this.model,
      messages,
      temperature: numberOf("temperature"),
      max_tokens: numberOf("max-tokens"),
      stream: true,
      stream_options: { include_usage: true },
    };
  }
}

// What a field says; one that is empty is not sent.
function numberOf(id) {
  const text = byId(id).value.trim();
  return text === "" ? undefined : Number(text);
}

// One answer as it grows, with the thoughts before it and its figures.
class AnswerView {
  constructor(target) {
    this.target = target;
    this.thinking = new ThoughtsView();
    this.content = document.createElement("div");
    this.content.className = "text";
    this.figures = document.createElement("div");
    this.figures.className = "figures";
    target.replaceChildren(this.thinking.element, this.content, this.figures);
    target.classList.add("busy");
    this.text = "";
    this.thoughts = "";
    this.finish = null;
    this.numTokens = null;
    this.started = performance.now();
    this.first = null;
    this.drawing = false;
  }

  add(chunk) {
    const choice = chunk.choices[0];
    const piece = choice?.delta?.content ?? "";
    const thought = choice?.delta?.reasoning ?? choice?.delta?.reasoning_content ?? "";
    if ((piece || thought) && this.first === null) this.first = performance.now();
    if (chunk.usage) this.numTokens = chunk.usage.completion_tokens;
    this.finish = choice?.finish_reason ?? this.finish;
    this.text += piece;
    this.thoughts += thought;
    if ((piece || thought) && !this.drawing) {
      this.drawing = true;
      requestAnimationFrame(() => this.draw());
    }
  }

  draw() {
    this.drawing = false;
    const list = this.target.parentElement;
    if (list === null) return; // the chat was cleared
    const isAtEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
    this.thinking.show(this.thoughts, this.text !== "");
    render(this.content, this.text);
    if (isAtEnd) list.scrollTop = list.scrollHeight;
  }

  end(note) {
    this.target.classList.remove("busy");
    this.draw();
    this.figures.textContent = [...this.times(), this.cut(), note].filter(Boolean).join(" · ");
    const list = this.target.parentElement;
    if (list) list.scrollTop = list.scrollHeight;
  }

  cut() {
    const isCut = this.finish === "length" && this.thoughts && !this.text;
    return isCut ? "cut off while still thinking: allow more tokens" : null;
  }

  times() {
    if (this.first === null) return [];
    const parts = [`first token ${Math.round(this.first - this.started)} ms`];
    const seconds = (performance.now() - this.first) / 1000;
    if (this.numTokens > 1 && seconds > 0) {
      parts.push(`${this.numTokens} tokens`, `${((this.numTokens - 1) / seconds).toFixed(1)} tok/s`);
    }
    return parts;
  }

  fail(message) {
    this.end();
    const line = document.createElement("p");
    line.className = "error";
    line.textContent = message;
    this.target.append(line);
  }
}

// What a model thinks before it answers: open until the answer begins, then folded, once.
class ThoughtsView {
  constructor() {
    this.element = document.createElement("details");
    this.element.className = "thoughts";
    this.element.open = true;
    this.element.hidden = true;
    const summary = document.createElement("summary");
    summary.textContent = "Thoughts";
    this.content = document.createElement("div");
    this.element.append(summary, this.content);
    this.isOver = false;
  }

  show(text, isOver) {
    this.element.hidden = text === "";
    this.content.textContent = text;
    if (isOver && !this.isOver) this.element.open = false;
    this.isOver = isOver;
  }
}

async function reason(response) {
  const text = await response.text();
  try {
    return JSON.parse(text).error.message;
  } catch {
    return `${response.status} ${response.statusText}`;
  }
}

function addMessage(role) {
  const message = document.createElement("div");
  message.className = `message ${role}`;
  const list = byId("messages");
  list.append(message);
  list.scrollTop = list.scrollHeight;
  return message;
}

function setBusy(isBusy) {
  byId("send").hidden = isBusy;
  byId("stop").hidden = !isBusy;
}

function fitInput() {
  const input = byId("input");
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight + 2}px`;
}
