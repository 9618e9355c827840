"use strict";
(() => {
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const charts = read("charts");
  const frames = read("frames");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const palettes = {
    light: ["#1f5f99", "#d1682a", "#2e8b57", "#a63d5c", "#7a5cb8", "#8a6d1d",
            "#0f8b8d", "#c2489b", "#5b6b7b", "#c43c3c", "#3f7d20", "#4452c4"],
    dark: ["#7cb8ee", "#f2a56b", "#77cf9b", "#ee8aa5", "#b79cf0", "#dcc06a",
           "#63d2d3", "#eb8fcb", "#aab6c3", "#f18b8b", "#a3d483", "#9aa5f5"],
  };
  const inks = {
    light: {text: "#5a6675", line: "#dfe4ea", real: "#5a6675", from: [181, 207, 230], to: [11, 37, 64]},
    dark: {text: "#9aa7b5", line: "#2d3641", real: "#9aa7b5", from: [46, 74, 102], to: [196, 226, 255]},
  };

  // A colour comes again after 12: then its line is dashed. A mark comes again after 7,
  // which shares no factor with 12, so that colour and mark together are each line's own.
  const dashes = [[], [7, 3], [9, 3, 2, 3], [3, 3]];
  const marks = ["circle", "square", "diamond", "triangle", "inverted_triangle", "hex", "star"];
  const outlines = {
    circle: "M7 2.2a2.8 2.8 0 1 0 .01 0z", square: "M4.5 2.5h5v5h-5z", diamond: "M7 1l3 4-3 4-3-4z",
    triangle: "M7 1.5l3.5 6.5h-7z", inverted_triangle: "M7 8.5l3.5-6.5h-7z", hex: "M4 5l1.5-3h3l1.5 3-1.5 3h-3z",
    star: "M7 .6l1.2 3 3.2.2-2.5 2 .8 3.1L7 7.2 4.3 8.9l.8-3.1-2.5-2 3.2-.2z",
  };
  const dashOf = (one) => one.shade === null
    ? dashes[Math.floor(one.color / palettes.light.length) % dashes.length] : [];
  const markOf = (one) => one.shade === null ? marks[one.color % marks.length] : marks[0];

  const mix = (a, b, share) =>
    "#" + a.map((x, i) => Math.round(x + (b[i] - x) * share).toString(16).padStart(2, "0")).join("");
  const colorOf = (one, mode) => one.shade === null
    ? palettes[mode][one.color % palettes[mode].length]
    : mix(inks[mode].from, inks[mode].to, one.shade);
  const shown = (value) => value === null || value === undefined ? "" :
    typeof value === "number" ? value.toLocaleString("en", {maximumSignificantDigits: 5}) : value;

  function axisStyle(axis, ink) {
    axis.axis_label_text_color = axis.major_label_text_color = ink.text;
    axis.axis_label_text_font_style = "normal";
    axis.axis_label_text_font_size = axis.major_label_text_font_size = "11px";
    axis.axis_line_color = axis.major_tick_line_color = ink.line;
    axis.minor_tick_line_color = null;
  }

  function rangesOf(spec) {
    const values = spec.series.flatMap((s) => [...s.y, ...s.low, ...s.high]).concat(spec.lines.map((l) => l.y))
      .filter((y) => y !== null && (!spec.log || y > 0));
    if (!values.length) return {};
    let low = Math.min(...values), high = Math.max(...values);
    if (spec.log) return {y_range: new Bokeh.Range1d({start: low / 1.15, end: high * 1.15})};
    const room = 0.06 * (high - low || Math.abs(high) || 1);
    low = spec.zero ? Math.min(0, low) : low - room;
    return {y_range: new Bokeh.Range1d({start: low, end: high + room})};
  }

  // Around a single value Bokeh takes one to either side, below 0 and between steps.
  function rangeOfOne(spec) {
    const [first, ...others] = new Set(spec.series.flatMap((one) => one.x));
    if (spec.categories.length || others.length || !first) return {};
    const [start, end] = [0.9 * first, 1.1 * first].sort((a, b) => a - b);
    return {x_range: new Bokeh.Range1d({start, end})};
  }

  function draw(place, spec, mode, hidden) {
    const ink = inks[mode];
    const figure = Bokeh.Plotting.figure({
      height: 260, sizing_mode: "stretch_width", tools: "pan,box_zoom,reset,save",
      x_axis_label: spec.x, y_axis_label: spec.y, y_axis_type: spec.log ? "log" : "linear",
      background_fill_color: null, border_fill_color: null, outline_line_color: null,
      ...(spec.categories.length ? {x_range: new Bokeh.FactorRange({factors: spec.categories})} : {}),
      ...rangesOf(spec),
      ...rangeOfOne(spec),
    });
    figure.toolbar.logo = null;
    figure.toolbar.autohide = true;
    figure.toolbar.active_drag = null;
    [figure.xaxis, figure.yaxis].flat().forEach((axis) => axisStyle(axis, ink));
    figure.xgrid.grid_line_color = null;
    figure.ygrid.grid_line_color = ink.line;
    figure.below.forEach((axis) => { if (axis.ticker && axis.ticker.desired_num_ticks) axis.ticker.desired_num_ticks = 5; });
    // 0.0005, not 5.000e-4.
    const plain = () => new Bokeh.BasicTickFormatter({power_limit_low: -5});
    if (!spec.log) figure.yaxis.formatter = plain();
    if (!spec.categories.length) figure.xaxis.formatter = plain();
    const isWhole = spec.series.every((one) => one.x.every(Number.isInteger));
    if (isWhole) figure.below.forEach((axis) => { axis.ticker.min_interval = 1; });
    if (spec.categories.length > 5) figure.xaxis.major_label_orientation = 0.6;
    const glyphs = spec.series.map((one) => {
      const color = colorOf(one, mode);
      const data = {x: one.x, y: one.y.map((y) => y === null ? NaN : y), name: one.x.map(() => one.name)};
      const source = new Bokeh.ColumnDataSource({data});
      const made = [];
      if (one.low.length) {
        made.push(figure.varea({
          x: one.x, y1: one.low, y2: one.high, fill_color: color, fill_alpha: 0.15}));
      }
      if (!one.pointsOnly) {
        made.push(figure.line({
          x: {field: "x"}, y: {field: "y"}, source, line_color: color, line_width: 2,
          line_dash: dashOf(one)}));
      }
      if (one.marked || one.pointsOnly) {
        made.push(figure.scatter({
          x: {field: "x"}, y: {field: "y"}, source, fill_color: color, line_color: null,
          marker: markOf(one), size: (one.pointsOnly ? 8 : 5) + (["circle", "square"].includes(markOf(one)) ? 0 : 2),
          fill_alpha: one.pointsOnly ? 0.75 : 1}));
      }
      const hovered = made[made.length - 1];
      figure.add_tools(new Bokeh.HoverTool({
        renderers: [hovered], mode: "mouse", line_policy: "nearest", visible: false,
        tooltips: [["", "@name"], [spec.x, "@x"], [spec.y, "@y{0.[0000]}"]]}));
      return made;
    });
    spec.lines.forEach((line) => figure.add_layout(new Bokeh.Span({
      location: line.y, dimension: "width", line_color: ink.real, line_dash: "dotted", line_width: 1.5})));
    hidden.forEach((i) => glyphs[i].forEach((glyph) => { glyph.visible = false; }));
    place.replaceChildren();
    Bokeh.Plotting.show(figure, place);
    return glyphs;
  }

  function drawSwatch(one, color) {
    const make = (tag, attributes) => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
      Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
      return made;
    };
    const picture = make("svg", {width: 28, height: 10, viewBox: "-7 0 28 10", "aria-hidden": "true"});
    if (!one.pointsOnly) {
      picture.append(make("line", {x1: -7, x2: 21, y1: 5, y2: 5, stroke: color, "stroke-width": 2,
                                   "stroke-dasharray": dashOf(one).join(" ") || "none"}));
    }
    if (one.marked || one.pointsOnly) picture.append(make("path", {d: outlines[markOf(one)], fill: color}));
    return picture;
  }

  function fillLegend(place, spec, mode, hidden, glyphs) {
    place.replaceChildren();
    if (spec.series.length > 1) {
      spec.series.forEach((one, i) => {
        const button = document.createElement("button");
        const swatch = document.createElement("i");
        swatch.append(drawSwatch(one, colorOf(one, mode)));
        button.type = "button";
        button.append(swatch, one.name);
        button.setAttribute("aria-pressed", String(!hidden.has(i)));
        button.addEventListener("click", () => {
          const off = !hidden.has(i);
          off ? hidden.add(i) : hidden.delete(i);
          button.setAttribute("aria-pressed", String(!off));
          glyphs[i].forEach((glyph) => { glyph.visible = !off; });
        });
        place.append(button);
      });
    }
    spec.lines.forEach((line) => {
      const said = document.createElement("span");
      said.className = "note";
      said.textContent = `⋯ ${line.name}: ${shown(line.y)}`;
      place.append(said);
    });
  }

  function fillNumbers(place, spec) {
    if (place.childElementCount) return;
    const table = document.createElement("table");
    const row = (cells, tag) => {
      const made = document.createElement("tr");
      cells.forEach((cell, i) => {
        const made_cell = document.createElement(i ? tag : "th");
        made_cell.scope = tag === "th" ? "col" : i ? "" : "row";
        made_cell.textContent = shown(cell);
        made.append(made_cell);
      });
      return made;
    };
    const xs = [...new Set(spec.series.flatMap((s) => s.x))];
    if (!spec.categories.length) xs.sort((a, b) => a - b);
    const found = spec.series.map((s) => new Map(s.x.map((x, i) => [x, s.y[i]])));
    table.createTHead().append(row([spec.x, ...spec.series.map((s) => s.name)], "th"));
    const body = table.createTBody();
    xs.forEach((x) => body.append(row([x, ...found.map((f) => f.get(x))], "td")));
    const scrolled = document.createElement("div");
    scrolled.className = "scrolled";
    scrolled.tabIndex = 0;
    scrolled.append(table);
    place.append(scrolled);
  }

  const state = charts.map(() => ({hidden: new Set()}));
  function drawAll(mode) {
    document.documentElement.dataset.drawn = mode;
    charts.forEach((spec, i) => {
      const place = document.querySelector(`[data-chart="${i}"]`);
      const glyphs = draw(place, spec, mode, state[i].hidden);
      fillLegend(document.querySelector(`[data-legend="${i}"]`), spec, mode, state[i].hidden, glyphs);
    });
  }
  if (charts.length) {
    Bokeh.set_log_level("off");
    // Bokeh draws some time later, which would be too late for paper: there the style
    // turns dark charts' colours round, and none is drawn again.
    const paper = window.matchMedia("print");
    const drawAsScreen = () => { if (!paper.matches) drawAll(dark.matches ? "dark" : "light"); };
    drawAsScreen();
    dark.addEventListener("change", drawAsScreen);
  }
  document.querySelectorAll("[data-numbers]").forEach((place) => {
    place.closest("details").addEventListener("toggle", () =>
      fillNumbers(place, charts[Number(place.dataset.numbers)]));
  });

  const slider = document.getElementById("step-slider");
  if (slider) {
    const picture = document.getElementById("step-picture");
    const told = document.getElementById("step-told");
    const play = document.getElementById("step-play");
    let timer = null;
    const show = () => {
      const frame = frames[Number(slider.value)];
      picture.src = frame.src;
      picture.alt = frame.alt;
      told.textContent = frame.told;
      slider.setAttribute("aria-valuetext", frame.told);
    };
    const stop = () => {
      clearInterval(timer);
      timer = null;
      play.textContent = "Play";
    };
    slider.addEventListener("input", () => { stop(); show(); });
    play.addEventListener("click", () => {
      if (timer) { stop(); return; }
      play.textContent = "Stop";
      if (Number(slider.value) === frames.length - 1) slider.value = 0;
      show();
      timer = setInterval(() => {
        if (Number(slider.value) >= frames.length - 1) { stop(); return; }
        slider.value = Number(slider.value) + 1;
        show();
      }, 500);
    });
    show();
    const onPaper = document.getElementById("steps-on-paper");
    const most = Math.min(frames.length, 4);
    for (let i = 0; i < most; i++) {
      const frame = frames[Math.round(i * (frames.length - 1) / Math.max(most - 1, 1))];
      const figure = document.createElement("figure");
      const image = document.createElement("img");
      const caption = document.createElement("figcaption");
      Object.assign(image, {src: frame.src, alt: frame.alt, className: "picture"});
      caption.textContent = frame.told;
      figure.append(image, caption);
      onPaper.append(figure);
    }
  }

  // A box that scrolls says so: on some systems its bars show only while they move.
  const boxes = [...document.querySelectorAll(".scrolled")].map((box) => {
    const said = document.createElement("p");
    said.className = "goes-on";
    box.before(said);
    return [box, said];
  });
  const sayWhatGoesOn = () => boxes.forEach(([box, said]) => {
    const ways = [["down", box.scrollHeight - box.clientHeight], ["to the right", box.scrollWidth - box.clientWidth]];
    const on = ways.filter(([, rest]) => rest > 1).map(([way]) => way);
    said.hidden = !on.length;
    said.textContent = `This table goes on ${on.join(" and ")}: scroll in it.`;
  });
  sayWhatGoesOn();
  window.addEventListener("resize", sayWhatGoesOn);

  const search = document.getElementById("config-search");
  if (search) {
    const only = document.getElementById("config-changed");
    const rows = [...document.querySelectorAll("#configuration tbody tr")];
    const told = document.getElementById("config-told");
    const filter = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      rows.forEach((row) => {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word)) ||
          (only.checked && !row.classList.contains("changed"));
        count += row.hidden ? 0 : 1;
      });
      told.textContent = `${count} of ${rows.length} keys`;
      sayWhatGoesOn();
    };
    search.addEventListener("input", filter);
    only.addEventListener("change", filter);
    filter();
  }

  document.querySelectorAll("button.copy").forEach((button) => {
    button.addEventListener("click", async () => {
      const text = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(text.textContent);
      } catch {
        const range = document.createRange();
        range.selectNodeContents(text);
        getSelection().removeAllRanges();
        getSelection().addRange(range);
        document.execCommand("copy");
      }
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
  });
})();
