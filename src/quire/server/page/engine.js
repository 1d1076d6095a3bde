// The live picture: figures, the tokens a second of the last minute, and the map of KV blocks.

const byId = (id) => document.getElementById(id);
const UNKNOWN = "–";
const MAX_POINTS = 240;
const FLASH_MS = 500; // a block that has just changed is brighter for so long

export class EngineView {
  constructor() {
    this.last = null;
    this.rates = [];
    this.cells = "";
    this.changed = new Float64Array(0); // when each cell last changed
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(byId("blocks").parentElement);
  }

  show(data) {
    const { stats, blocks } = data;
    if (!stats || !blocks) {
      this.clear();
      return;
    }
    this.countTokens(data);
    const usable = stats.num_blocks - 1;
    const inUse = usable > 0 ? 1 - stats.num_free_blocks / usable : 0;
    const queried = stats.num_prefix_query_tokens;
    setText("running", stats.num_running);
    setText("waiting", stats.num_waiting);
    setText("ttft", data.ttft_s === null ? UNKNOWN : milliseconds(data.ttft_s));
    setText("kv", percent(inUse));
    setText("total", short(stats.num_generation_tokens));
    setText("hits", queried ? percent(stats.num_prefix_hit_tokens / queried) : UNKNOWN);
    blocks.counts.forEach((count, kind) => setText(`count-${kind}`, count.toLocaleString()));
    const size = `${stats.block_size} tokens a block`;
    setText("scale", blocks.per_cell > 1 ? `${blocks.per_cell} blocks a cell, ${size}` : size);
    this.setCells(blocks.cells);
    this.draw();
  }

  // Nobody knows the engine's state: what was true before must not look as if it still were.
  clear() {
    this.last = null;
    this.rates = [];
    document.querySelectorAll(".engine b").forEach((figure) => (figure.textContent = UNKNOWN));
    setText("scale", "");
    this.setCells("");
    this.draw();
  }

  // Counts that fall are those of a new engine.
  countTokens({ time_s: time, stats }) {
    const tokens = stats.num_generation_tokens;
    if (this.last !== null && time > this.last.time && tokens >= this.last.tokens) {
      this.rates.push((tokens - this.last.tokens) / (time - this.last.time));
      if (this.rates.length > MAX_POINTS) this.rates.shift();
      const recent = this.rates.slice(-4);
      const rate = recent.reduce((sum, one) => sum + one, 0) / recent.length;
      setText("rate", rate < 100 ? rate.toFixed(1) : Math.round(rate).toLocaleString());
    }
    if (this.last === null || time > this.last.time) this.last = { time, tokens };
  }

  setCells(cells) {
    const now = performance.now();
    if (cells.length !== this.cells.length) {
      this.changed = new Float64Array(cells.length).fill(-Infinity);
    } else {
      for (let i = 0; i < cells.length; i += 1) {
        if (cells[i] !== this.cells[i]) this.changed[i] = now;
      }
    }
    this.cells = cells;
    byId("blocks").dataset.cells = cells; // for tests, and for the curious
  }

  draw() {
    const style = getComputedStyle(document.documentElement);
    drawLine(byId("sparkline"), this.rates, style.getPropertyValue("--accent"));
    const colours = [0, 1, 2, 3].map((kind) => style.getPropertyValue(`--block-${kind}`));
    const flash = style.getPropertyValue("--text");
    drawCells(byId("blocks"), this.cells, colours, this.changed, flash);
  }
}

function drawLine(canvas, values, colour) {
  const { context, width, height } = sized(canvas);
  context.clearRect(0, 0, width, height);
  if (values.length < 2) return;
  const top = Math.max(...values, 1);
  const x = (i) => width - ((values.length - 1 - i) * width) / (MAX_POINTS - 1);
  const y = (value) => height - 2 - (value / top) * (height - 6);
  context.beginPath();
  values.forEach((value, i) => context.lineTo(x(i), y(value)));
  context.strokeStyle = colour;
  context.lineWidth = 2;
  context.lineJoin = "round";
  context.stroke();
  context.lineTo(width, height);
  context.lineTo(x(0), height);
  context.globalAlpha = 0.15;
  context.fillStyle = colour;
  context.fill();
  context.globalAlpha = 1;
}

function drawCells(canvas, cells, colours, changed, flash) {
  const { context, width, height } = sized(canvas);
  context.clearRect(0, 0, width, height);
  if (cells.length === 0) return;
  const size = cellSize(cells.length, width, height);
  const columns = Math.max(1, Math.floor(width / size));
  const side = Math.max(1, size - (size > 5 ? 2 : 1));
  const now = performance.now();
  for (let i = 0; i < cells.length; i += 1) {
    const x = (i % columns) * size;
    const y = Math.floor(i / columns) * size;
    context.fillStyle = colours[Number(cells[i])];
    context.fillRect(x, y, side, side);
    const age = now - changed[i];
    if (age < FLASH_MS) {
      context.globalAlpha = 0.45 * (1 - age / FLASH_MS);
      context.fillStyle = flash;
      context.fillRect(x, y, side, side);
      context.globalAlpha = 1;
    }
  }
}

// The largest square cells that all fit.
function cellSize(count, width, height) {
  let size = Math.min(26, Math.max(2, Math.floor(Math.sqrt((width * height) / count))));
  while (size > 2 && Math.ceil(count / Math.floor(width / size)) * size > height) size -= 1;
  return size;
}

function sized(canvas) {
  const scale = window.devicePixelRatio || 1;
  const { clientWidth: width, clientHeight: height } = canvas;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  return { context, width, height };
}

function setText(id, value) {
  byId(id).textContent = value;
}

function percent(share) {
  return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
}

function short(count) {
  return new Intl.NumberFormat("en", { notation: "compact" }).format(count);
}

function milliseconds(seconds) {
  return seconds < 1 ? `${Math.round(seconds * 1000)} ms` : `${seconds.toFixed(1)} s`;
}
