"use strict";
// What is shown comes from /api/ of the same server; nothing else is asked.

const form = document.getElementById("form");
const said = document.getElementById("said");
const go = document.getElementById("go");
const GONE = "The server does not answer: was it ended?";
const VERBS = { draw: "Draw", between: "Go between", node: "Look" };
let told = null; // of /api/model
let view = "draw";
let drawn = null; // the fields of the last drawing, and its answer
let node = 0;
let asking = false;

function make(name, attributes = {}, ...children) {
  const svg = ["svg", "line", "circle", "rect", "image", "text"].includes(name);
  const space = svg ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
  const element = document.createElementNS(space, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function say(text, wrong = false) {
  said.textContent = text;
  said.classList.toggle("wrong", wrong);
}

function fields() {
  const all = Object.fromEntries(new FormData(form));
  for (const input of form.querySelectorAll("input:disabled")) all[input.name] = input.value;
  all.estimates = all.estimates === "yes";
  if (view === "between") all.number = all.between_number;
  return all;
}

async function ask(what, body) {
  if (asking) return null;
  asking = go.disabled = true;
  const began = performance.now();
  const clock = setInterval(async () => {
    const seconds = Math.round((performance.now() - began) / 1000);
    let waiting = 1;
    try {
      waiting = (await (await fetch("api/queue")).json()).waiting;
    } catch { /* the answer itself says that the server is gone */ }
    if (!asking) return;
    const queue = waiting > 1 ? `, ${waiting} in the queue` : "";
    say(`At work for ${seconds} s${queue}. New settings are compiled once.`);
  }, 1000);
  say("At work.");
  try {
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch(`api/${what}`, { method: "POST", headers, body: JSON.stringify(body) });
    const found = answer.ok ? await answer.json() : { error: await answer.text() };
    say(found.error ?? (found.seconds ? `Done in ${found.seconds.toFixed(1)} s.` : ""), "error" in found);
    return "error" in found ? null : found;
  } catch {
    say(GONE, true);
    return null;
  } finally {
    clearInterval(clock);
    asking = go.disabled = false;
  }
}

// A strip of frames on a canvas, one of them shown.
class Strip {
  constructor(source, count, label, side) {
    this.canvas = make("canvas", { role: "img", "aria-label": label });
    this.canvas.style.setProperty("--side", `${side}px`);
    this.picture = new Image();
    this.count = count;
    this.ready = new Promise((done) => { this.picture.onload = done; });
    this.picture.src = source;
  }
  async show(frame) {
    this.frame = frame;
    await this.ready;
    if (frame !== this.frame) return;
    const wide = this.picture.naturalWidth / this.count;
    const high = this.picture.naturalHeight;
    if (this.canvas.width !== wide || this.canvas.height !== high) {
      [this.canvas.width, this.canvas.height] = [wide, high];
      this.canvas.classList.toggle("crisp", wide < 128);
    }
    this.canvas.getContext("2d").drawImage(this.picture, frame * wide, 0, wide, high, 0, 0, wide, high);
    this.canvas.dataset.frame = frame;
  }
}

// Play and slider above a view.
class Player {
  constructor(section, milliseconds) {
    this.root = section.querySelector(".player");
    this.button = this.root.querySelector(".play");
    this.slider = this.root.querySelector("input");
    this.output = this.root.querySelector("output");
    this.milliseconds = milliseconds;
    this.slider.addEventListener("input", () => { this.stop(); this.show(); });
    this.button.addEventListener("click", () => (this.timer ? this.stop() : this.play()));
  }
  set(count, show, caption) {
    this.stop();
    [this.slider.max, this.slider.value] = [count - 1, count - 1];
    [this.shown, this.caption] = [show, caption];
    this.root.hidden = false;
    this.show();
  }
  get frame() { return Number(this.slider.value); }
  show() {
    this.output.textContent = this.caption(this.frame);
    this.shown(this.frame);
  }
  play() {
    if (this.frame >= Number(this.slider.max)) this.slider.value = 0;
    this.show();
    this.button.textContent = "❚❚";
    this.button.setAttribute("aria-label", "Pause");
    this.timer = setInterval(() => {
      this.slider.value = this.frame + 1;
      this.show();
      if (this.frame >= Number(this.slider.max)) this.stop();
    }, this.milliseconds);
  }
  stop() {
    clearInterval(this.timer);
    this.timer = null;
    this.button.textContent = "▶";
    this.button.setAttribute("aria-label", "Play");
  }
}

const sections = Object.fromEntries(["draw", "between", "node"].map((name) => [name, document.getElementById(name)]));
const players = {
  draw: new Player(sections.draw, 110),
  between: new Player(sections.between, 160),
  node: new Player(sections.node, 1000),
};

function results(name, ...articles) {
  sections[name].querySelector(".results").replaceChildren(...articles);
  sections[name].querySelector(".hint").hidden = articles.length > 0;
}

function heading(name) {
  return told.models.length > 1 ? [make("h2", {}, name)] : [];
}

function sideOf(number) {
  const wide = told.models[0].image[1];
  return Math.max(wide >= 64 ? 128 : 96, number === 1 ? 192 : 0);
}

async function draw() {
  const asked = fields();
  const answer = await ask("draw", asked);
  if (!answer) return;
  drawn = { asked, answer };
  const strips = [];
  const articles = answer.models.map((model, m) => {
    const images = model.images.map((image, i) => {
      const label = image.name ? `Image ${i + 1}: ${image.name}` : `Image ${i + 1}`;
      const strip = new Strip(image.strip, model.times.length, label, sideOf(model.images.length));
      strips.push(strip);
      const caption = image.name ? [make("figcaption", {}, image.name)] : [];
      if (!told.models[m].graph) return make("figure", {}, strip.canvas, ...caption);
      const inside = make("button", { type: "button", title: "Inside the graph" }, strip.canvas);
      inside.addEventListener("click", () => {
        [form.elements.image.value, form.elements.model.value] = [i + 1, m + 1];
        choose("node");
        look();
      });
      return make("figure", {}, inside, ...caption);
    });
    return make("article", {}, ...heading(model.name), make("div", { class: "images" }, ...images));
  });
  results("draw", ...articles);
  const times = answer.models[0].times;
  const caption = (f) => (f === times.length - 1 ? "drawn" : `time ${times[f].toFixed(2)}`);
  players.draw.set(times.length, (f) => strips.forEach((strip) => strip.show(f)), caption);
  players.node.root.hidden = true;
  results("node");
  players.draw.play();
}

async function between() {
  const answer = await ask("between", fields());
  if (!answer) return;
  const large = [];
  const articles = answer.models.map((model) => {
    const big = new Strip(model.strip, model.count, "Between the two", 224);
    large.push(big);
    const row = Array.from({ length: model.count }, (_, f) => {
      const strip = new Strip(model.strip, model.count, `Image ${f + 1} of ${model.count}`, 72);
      strip.show(f);
      const button = make("button", { type: "button" }, strip.canvas);
      button.addEventListener("click", () => { players.between.stop(); players.between.slider.value = f; players.between.show(); });
      return make("figure", {}, button);
    });
    return make("article", {}, ...heading(model.name), make("div", { class: "large" }, big.canvas), make("div", { class: "images" }, ...row));
  });
  results("between", ...articles);
  const count = answer.models[0].count;
  players.between.set(count, (f) => large.forEach((strip) => strip.show(f)), (f) => `${Math.round((100 * f) / (count - 1))}% of the way`);
  players.between.play();
}

async function look() {
  if (!drawn) { say("Draw images first.", true); return; }
  const times = drawn.answer.models[0].times;
  if (players.node.root.hidden) {
    const start = Math.round((times.length - 1) * 0.8);
    players.node.set(times.length, () => {}, (f) => `time ${times[f].toFixed(2)}`);
    players.node.slider.value = start;
    players.node.shown = () => receive();
    players.node.show();
    return;
  }
  await receive();
}

async function receive() {
  const own = fields();
  const asked = { ...drawn.asked, estimates: false, image: own.image, block: own.block };
  asked.model = told.models.length > 1 ? own.model : "1";
  asked.node = String(node);
  asked.frame = String(players.node.frame + 1);
  const answer = await ask("node", asked);
  if (answer) showNode(told.models[Number(asked.model) - 1], answer);
}

function places(graph) {
  const [rows, cols] = graph.size;
  const found = [];
  for (const scale of graph.scales) {
    for (let i = 0; i < scale.rows * scale.cols; i++) {
      found.push([(i % scale.cols + 0.5) * scale.patch, (Math.floor(i / scale.cols) + 0.5) * scale.patch]);
    }
  }
  graph.hubs.forEach((_, i) => {
    const inColumn = Math.ceil((graph.hubs.length - (i % 2)) / 2);
    found.push([cols * (i % 2 ? 1.13 : -0.13), (rows * (Math.floor(i / 2) + 0.5)) / inColumn]);
  });
  return found;
}

function scaleOf(graph, number) {
  return graph.scales.findIndex((s) => number >= s.start && number < s.start + s.rows * s.cols);
}

function colorOf(graph, number) {
  const scale = scaleOf(graph, number);
  return scale < 0 ? "var(--hub)" : `var(--scale${scale % 4})`;
}

// Whether lines show how large what is sent is: where weights alone would all be alike.
function showsSizes(graph, answer) {
  const weights = answer.groups.flatMap((g) => g.weights);
  return graph.learned || Math.max(...weights) - Math.min(...weights) < 1e-6;
}

// How wide a sender's line is, from 0 to 1; null for hubs where lines show sizes.
function shares(graph, answer) {
  const sizes = showsSizes(graph, answer);
  const of = (group) => (sizes ? group.sent : group.weights);
  const known = answer.groups.flatMap(of).filter((value) => value !== null);
  const most = Math.max(...known);
  const least = sizes ? Math.min(...known) : 0; // sizes are often nearly alike
  return (group, i) => {
    const value = of(group)[i];
    if (value === null) return null;
    return most > least ? (value - least) / (most - least) : 1;
  };
}

function drawing(graph, answer) {
  const [rows, cols] = graph.size;
  const at = places(graph);
  const unit = cols / 100;
  const side = graph.hubs.length ? 0.24 * cols : 0.03 * cols;
  const svg = make("svg", { viewBox: `${-side} ${-0.03 * rows} ${cols + 2 * side} ${1.06 * rows}`, tabindex: 0, role: "application", "aria-label": "The graph over the image; arrow keys move the node" });
  svg.append(make("image", { href: answer.picture, width: cols, height: rows, preserveAspectRatio: "none", class: cols < 128 ? "crisp" : "", opacity: 0.75 }));
  for (const [i, scale] of graph.scales.entries()) {
    if (scale.rows * scale.cols > 1100) continue;
    for (let n = scale.start; n < scale.start + scale.rows * scale.cols; n++) {
      svg.append(make("circle", { cx: at[n][0], cy: at[n][1], r: (0.9 + 0.4 * i) * unit, fill: `var(--scale${i % 4})`, opacity: 0.8 }));
    }
  }
  graph.hubs.forEach((name, i) => {
    const [x, y] = at[at.length - graph.hubs.length + i];
    svg.append(make("circle", { cx: x, cy: y, r: 2 * unit, fill: "var(--hub)" }));
    svg.append(make("text", { x, y: y + 7 * unit, "font-size": 4.5 * unit, "text-anchor": "middle", fill: "var(--soft)" }, name));
  });
  const share = shares(graph, answer);
  for (const group of [...answer.groups].reverse()) {
    const [x2, y2] = at[group.receiver];
    const scale = graph.scales[scaleOf(graph, group.receiver)];
    if (scale) svg.append(make("rect", { x: x2 - scale.patch / 2, y: y2 - scale.patch / 2, width: scale.patch, height: scale.patch, fill: "none", stroke: colorOf(graph, group.receiver), "stroke-width": 0.7 * unit }));
    group.senders.forEach((sender, i) => {
      const [x1, y1] = at[sender];
      const part = share(group, i);
      // A hub's features are not known here, where lines show sizes.
      const width = (0.25 + 1.5 * (part ?? 0.2)) * unit;
      const dashes = part === null ? { "stroke-dasharray": `${unit} ${2 * unit}` } : {};
      const stroke = colorOf(graph, sender);
      if (sender === group.receiver) {
        svg.append(make("circle", { cx: x2, cy: y2, r: 4 * unit, fill: "none", stroke, "stroke-width": width, ...dashes }));
        return;
      }
      svg.append(make("line", { x1, y1, x2, y2, stroke, "stroke-width": width, ...dashes, "stroke-linecap": "round", opacity: 0.9, class: "message" }));
      svg.append(make("circle", { cx: x1, cy: y1, r: 1.6 * unit, fill: stroke }));
    });
  }
  svg.append(make("circle", { cx: at[node][0], cy: at[node][1], r: 2.4 * unit, fill: "var(--card)", stroke: colorOf(graph, node), "stroke-width": unit }));
  svg.addEventListener("click", (event) => {
    const inside = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    const hub = graph.hubs.findIndex((_, i) => Math.hypot(at[at.length - graph.hubs.length + i][0] - inside.x, at[at.length - graph.hubs.length + i][1] - inside.y) < 5 * unit);
    if (hub >= 0) return move(at.length - graph.hubs.length + hub);
    if (inside.x < 0 || inside.y < 0 || inside.x >= cols || inside.y >= rows) return;
    const scale = graph.scales[Math.max(scaleOf(graph, node), 0)];
    move(scale.start + Math.floor(inside.y / scale.patch) * scale.cols + Math.floor(inside.x / scale.patch));
  });
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const scale = graph.scales[scaleOf(graph, node)];
    if (!step || !scale) return;
    event.preventDefault();
    const place = node - scale.start;
    const row = Math.floor(place / scale.cols) + step[0];
    const col = (place % scale.cols) + step[1];
    if (row >= 0 && col >= 0 && row < scale.rows && col < scale.cols) move(scale.start + row * scale.cols + col);
  });
  return svg;
}

function move(number) {
  if (asking) return;
  node = number;
  const graph = told.models[Number(form.elements.model.value || 1) - 1].graph;
  form.elements.scale.value = scaleOf(graph, node) < 0 ? `hub${node}` : String(scaleOf(graph, node));
  receive().then(() => sections.node.querySelector("svg")?.focus());
}

function nameOf(graph, number) {
  const index = scaleOf(graph, number);
  if (index < 0) return graph.hubs[number - graph.nodes + graph.hubs.length];
  const scale = graph.scales[index];
  const place = number - scale.start;
  return `${scale.patch}-pixel patch, row ${Math.floor(place / scale.cols) + 1}, column ${(place % scale.cols) + 1}`;
}

function weightsOf(graph, group) {
  const counts = new Map();
  group.senders.forEach((sender, i) => {
    const kind = sender === group.receiver ? "itself" : scaleOf(graph, sender) < 0 ? graph.hubs[sender - graph.nodes + graph.hubs.length] : "patches";
    const key = `${kind} ${group.weights[i].toPrecision(3)}`;
    counts.set(key, [kind, group.weights[i], (counts.get(key)?.[2] ?? 0) + 1]);
  });
  const few = [...counts.values()].slice(0, 6);
  return few.map(([kind, weight, count]) => `${kind === "patches" ? `${count} patch${count > 1 ? "es" : ""} at ` : `${kind} `}${Number(weight.toPrecision(3))}`).join(", ") + (counts.size > 6 ? ", …" : "");
}

function showNode(model, answer) {
  const graph = model.graph;
  const head = ["", "from, with its weight", "norm"].map((text) => make("th", {}, text));
  const rows = answer.groups.map((group) => {
    const dot = make("span", { class: "dot" });
    dot.style.background = colorOf(graph, graph.pools ? group.receiver : group.senders[0]);
    return make("tr", {}, make("td", {}, dot, group.name), make("td", {}, weightsOf(graph, group)), make("td", {}, group.norm === null ? "–" : group.norm.toPrecision(3)));
  });
  const learned = graph.learned ? " Each relation's mean is multiplied by weights that the network has learned for each channel, which are not in these." : "";
  const pools = graph.pools ? " At coarser scales the patch around the node receives for it, from the means of the patches that others cover." : "";
  const wide = showsSizes(graph, answer)
    ? " Lines go from thin, for the sender that sends the least of these, to wide, for the one that sends the most: weight times the norm of its features. Those of hubs, which are not known here, are dashed."
    : " A line is as wide as its weight is large.";
  const article = make("article", {}, ...heading(model.name), make("div", { class: "split" }, drawing(graph, answer),
    make("div", {}, make("h2", {}, nameOf(graph, node)), make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...rows)),
      make("p", { class: "note" }, `One hop: what arrives is the sum of the senders' features times these weights.${pools}${learned} The norm is that of the patches' part, of their features after this block, for the image as it is at this time.${wide}`))));
  results("node", article);
}

function fillScales() {
  const graph = told.models[Number(form.elements.model.value || 1) - 1].graph;
  if (!graph) return;
  const patches = graph.scales.slice(0, graph.pools ? 1 : undefined);
  const options = patches.map((s, i) => make("option", { value: i }, `${s.patch}-pixel patches`));
  graph.hubs.forEach((name, i) => options.push(make("option", { value: `hub${graph.nodes - graph.hubs.length + i}` }, name)));
  form.elements.scale.replaceChildren(...options);
  form.elements.block.value = graph.blocks;
  const first = graph.scales[0];
  node = first.start + Math.floor(first.rows / 2) * first.cols + Math.floor(first.cols / 2);
}

function choose(name) {
  view = name;
  for (const button of document.querySelectorAll("nav button")) button.setAttribute("aria-pressed", button.dataset.view === name);
  for (const [other, section] of Object.entries(sections)) section.hidden = other !== name;
  for (const set of form.querySelectorAll("fieldset")) set.hidden = !set.classList.contains(`of-${name}`);
  go.textContent = VERBS[name];
  for (const player of Object.values(players)) player.stop();
  say("");
}

async function start() {
  const names = document.getElementById("models");
  try {
    told = await (await fetch("api/model")).json();
  } catch {
    names.textContent = GONE;
    return;
  }
  const { defaults, models } = told;
  names.textContent = models.length > 1 ? "two models, from the same noise" : models[0].name;
  for (const name of ["solver", "steps", "guidance", "seed", "number"]) {
    if (name === "solver") form.elements.solver.append(...defaults.solvers.map((s) => make("option", {}, s)));
    form.elements[name].value = defaults[name];
  }
  const classes = models[0].classes;
  document.getElementById("classes").append(...classes.map((c) => make("option", { value: c.name }, c.name === String(c.label) ? "" : `label ${c.label}`)));
  for (const name of ["class", "from_class", "to_class"]) form.elements[name].disabled = !classes.length;
  if (classes.length) {
    form.elements.from_class.value = classes[0].name;
    form.elements.to_class.value = classes[Math.min(1, classes.length - 1)].name;
  }
  const guided = models.every((m) => m.guided);
  form.elements.guidance.disabled = !guided;
  document.getElementById("unguided").hidden = guided;
  models.forEach((m, i) => m.graph && form.elements.model.append(make("option", { value: i + 1 }, `${i + 1}: ${m.name.split(" · ").pop()}`)));
  document.getElementById("which").hidden = models.length === 1;
  document.querySelector("[data-view=node]").hidden = !models.some((m) => m.graph);
  fillScales();
  choose("draw");
  for (const button of document.querySelectorAll("nav button")) button.disabled = false;
  document.querySelector("main").hidden = false;
}

for (const button of document.querySelectorAll("nav button")) {
  button.addEventListener("click", () => { choose(button.dataset.view); if (view === "node" && drawn) look(); });
}
form.addEventListener("submit", (event) => {
  event.preventDefault();
  ({ draw, between, node: look })[view]();
});
form.elements.model.addEventListener("change", () => { fillScales(); if (view === "node") look(); });
form.elements.scale.addEventListener("change", () => {
  const graph = told.models[Number(form.elements.model.value || 1) - 1].graph;
  const chosen = form.elements.scale.value;
  if (chosen.startsWith("hub")) return move(Number(chosen.slice(3)));
  const scale = graph.scales[Number(chosen)];
  move(scale.start + Math.floor(scale.rows / 2) * scale.cols + Math.floor(scale.cols / 2));
});
start();
