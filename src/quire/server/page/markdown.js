// A small part of Markdown as DOM nodes. Text only ever becomes text nodes, so nothing that a model
// writes can become markup of its own.

const INLINE = /(`[^`]+`)|(\*\*[^*]+\*\*)|(\*[^*\s][^*]*\*)|(\[[^\]]+\]\(https?:\/\/[^\s)]+\))/;

export function render(target, text) {
  target.replaceChildren(...blocks(text));
}

function blocks(text) {
  const nodes = [];
  const lines = text.split("\n");
  let i = 0;
  while (i < lines.length) {
    const line = lines[i];
    if (line.trim() === "") {
      i += 1;
    } else if (line.trimStart().startsWith("```")) {
      const end = lines.findIndex((one, at) => at > i && one.trimStart().startsWith("```"));
      const stop = end === -1 ? lines.length : end;
      const code = element("code", [lines.slice(i + 1, stop).join("\n")]);
      nodes.push(element("pre", [code]));
      i = stop + 1;
    } else if (/^#{1,6}\s/.test(line)) {
      nodes.push(element("h3", inline(line.replace(/^#+\s*/, ""))));
      i += 1;
    } else if (isItem(line)) {
      const start = i;
      while (i < lines.length && isItem(lines[i])) i += 1;
      const items = lines.slice(start, i).map((one) => element("li", inline(one.replace(ITEM, ""))));
      nodes.push(element(/^\s*\d/.test(line) ? "ol" : "ul", items));
    } else {
      const start = i;
      while (i < lines.length && !startsBlock(lines[i])) i += 1;
      nodes.push(element("p", withBreaks(lines.slice(start, i))));
    }
  }
  return nodes;
}

const ITEM = /^\s*(?:[-*+]|\d+[.)])\s+/;

function isItem(line) {
  return ITEM.test(line);
}

function startsBlock(line) {
  return line.trim() === "" || line.trimStart().startsWith("```") || /^#{1,6}\s/.test(line) || isItem(line);
}

function withBreaks(lines) {
  return lines.flatMap((line, i) => (i ? [document.createElement("br"), ...inline(line)] : inline(line)));
}

function inline(text) {
  const found = INLINE.exec(text);
  if (!found) return text ? [document.createTextNode(text)] : [];
  const before = text.slice(0, found.index);
  const after = text.slice(found.index + found[0].length);
  return [...inline(before), marked(found[0]), ...inline(after)];
}

function marked(text) {
  if (text.startsWith("`")) return element("code", [text.slice(1, -1)]);
  if (text.startsWith("**")) return element("strong", inline(text.slice(2, -2)));
  if (text.startsWith("*")) return element("em", inline(text.slice(1, -1)));
  const [, label, url] = /^\[([^\]]+)\]\((.+)\)$/.exec(text);
  const link = element("a", [label]);
  link.href = url;
  link.rel = "noopener noreferrer";
  link.target = "_blank";
  return link;
}

function element(name, children) {
  const made = document.createElement(name);
  made.append(...children);
  return made;
}
