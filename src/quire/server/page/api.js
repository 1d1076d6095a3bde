// Requests to this server, with the key if it asks for one. The key lives in this tab only.

const KEY = "quire-api-key";

export class Unauthorized extends Error {}

export function setKey(key) {
  sessionStorage.setItem(KEY, key);
}

export function hasKey() {
  return sessionStorage.getItem(KEY) !== null;
}

// Paths are relative, so that the page works behind a proxy that adds a prefix.
export async function request(path, options = {}) {
  const headers = { ...options.headers };
  const key = sessionStorage.getItem(KEY);
  // No header can carry other characters, such as those that come along when a key is pasted.
  if (key && !/^[\x21-\x7e]+$/.test(key)) throw new Unauthorized("The API key is wrong.");
  if (key) headers.Authorization = `Bearer ${key}`;
  const response = await fetch(path, { ...options, headers });
  if (response.status === 401) throw new Unauthorized("The API key is missing or wrong.");
  return response;
}

// The data of each server-sent event of a response.
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data:")) yield line.slice(5).trim();
    }
  }
}
