// Draws the clouds and charts of a report from the JSON in the page; see page.py for what lies there.
"use strict";
(async () => {
  const VIRIDIS = ["#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
  const LINES = ["#2457c5", "#e07b00", "#2c9b4b", "#8250c4", "#c2308c", "#0f97a6", "#8a8b12", "#5d6678"];
  const FADED = "#e9ebef";
  // At elevation 22° and azimuth −60°, as in the contact sheet; straight from above for a flat embedding.
  const CAMERA = { eye: { x: 0.71, y: -1.22, z: 0.57 }, center: { x: 0, y: 0, z: 0 }, up: { x: 0, y: 0, z: 1 } };
  const FROM_ABOVE = { eye: { x: 0, y: 0, z: 1.5 }, center: { x: 0, y: 0, z: 0 }, up: { x: 0, y: 1, z: 0 } };
  const LIVE = 2; // viewers with WebGL contexts, five each; browsers allow about 16
  const CONFIG = { displayModeBar: false, responsive: true };

  const errors = document.getElementById("errors");
  const report = (message) => {
    errors.hidden = false;
    errors.append(Object.assign(document.createElement("div"), { textContent: "This page met an error: " + message }));
  };
  addEventListener("error", (event) => report(event.message));
  addEventListener("unhandledrejection", (event) => report(event.reason));

  // ---- images: one of a section at a time ----

  for (const root of document.querySelectorAll(".images")) {
    const chips = root.querySelectorAll(".chip"), rows = root.querySelectorAll(".row");
    for (const chip of chips) chip.onclick = () => {
      for (const other of chips) other.setAttribute("aria-pressed", String(other === chip));
      for (const row of rows) row.hidden = row.id !== chip.dataset.shape;
    };
    for (const panel of root.querySelectorAll(".panel")) {
      panel.querySelector(".enlarge").onclick = () => panel.classList.toggle("large");
    }
  }

  const bytes = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
  const unpacked = (id) => new Response(new Blob([bytes(document.getElementById(id).textContent.trim())]).stream()
    .pipeThrough(new DecompressionStream("gzip"))).text();
  (0, eval)(await unpacked("plotly")); // as a script of its own: it defines Plotly

  const ARRAYS = { i1: Int8Array, u1: Uint8Array, u2: Uint16Array, i2: Int16Array, i4: Int32Array };
  const decode = (x) => new ARRAYS[x.dtype](bytes(x.bdata).buffer);
  const columns = (x) => {
    const values = decode(x.values), d = x.low.length;
    return x.low.map((low, a) => Float32Array.from({ length: values.length / d }, (_, i) => low + x.scale[a] * values[i * d + a]));
  };
  const plain = (s) => s.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;"); // plotly reads HTML
  const short = (x) => String(Number(x.toPrecision(3)));
  const element = (tag, text, className) => Object.assign(document.createElement(tag), { textContent: text ?? "", className: className ?? "" });
  const swatch = (color) => {
    const dot = element("span", "", "swatch");
    dot.style.background = color;
    return dot;
  };

  // ---- the points of a shape ----

  function load(id) {
    const shape = JSON.parse(document.getElementById(id).textContent);
    shape.pos = columns(shape.input);
    shape.rgb = shape.rgb && decode(shape.rgb);
    for (const side of [shape.truth, shape.found]) if (side) side.label = decode(side.label);
    shape.logs = columns(shape.sigma);
    shape.unsure = shape.unsure && Float32Array.from(decode(shape.unsure), (x) => x / 255);
    if (shape.mean) {
      const all = columns(shape.mean);
      while (all.length < 3) all.push(new Float32Array(all[0].length));
      shape.mu = all.map((x) => x.subarray(0, shape.drawn));
      shape.seeds = all.map((x) => x.subarray(shape.drawn));
    }
    return shape;
  }

  const named = (x) => (x.class === null ? "" : " · " + plain(x.class));

  const otherClass = (x) => (x.match < 0 && x.best?.[1] > 0.5 ? " of another class" : "");

  function describe(shape, side) { // hover text of each instance
    if (side === shape.truth) {
      return side.instances.map((x, i) => `<b>true ${shape.noun} ${i + 1}</b>${named(x)}<br>` + (x.match >= 0
        ? `found as ${x.match + 1}, IoU ${x.best[1].toFixed(2)}` : `<b>missed</b>${x.best ? `, best IoU ${x.best[1].toFixed(2)}` : ""}${otherClass(x)}`));
    }
    return side.instances.map((x, i) => {
      const head = `<b>found ${shape.noun} ${i + 1}</b>${named(x)}<br>score ${x.score.toFixed(2)}`;
      if (!shape.truth) return head;
      const iou = x.best ? `IoU ${x.best[1].toFixed(2)} with true ${shape.noun} ${x.best[0] + 1}` : "overlaps nothing true";
      return `${head}<br>${x.match >= 0 ? "" : "<b>false</b>: "}${iou}${otherClass(x)}`;
    });
  }

  // One colour, size and text a point; what is not in focus fades.
  function painted(shape, side, color, emphasis, focus) {
    const texts = describe(shape, side), size = dot(shape);
    const keep = (k) => focus === null || k === focus;
    const colors = side.instances.map((x, k) => (keep(k) ? color(x) : FADED));
    const sizes = side.instances.map((x, k) => (keep(k) && emphasis(x) ? 1.4 * size : size));
    return {
      color: Array.from(side.label, (k) => (k < 0 ? (focus === null ? shape.none : FADED) : colors[k])),
      size: Array.from(side.label, (k) => (k < 0 ? size : sizes[k])),
      text: Array.from(side.label, (k) => (k < 0 ? "none" : texts[k])),
    };
  }

  const dot = (shape) => Math.min(3.5, Math.max(1.3, 1.7 * Math.sqrt(8000 / shape.drawn)));

  function cloud(shape, [x, y, z], { color, text, size, ...marker }) {
    return {
      type: "scatter3d", mode: "markers", x, y, z, text, hoverinfo: text ? "text" : "none", showlegend: false,
      marker: { color, size: size ?? dot(shape), sizeref: 0.5, opacity: 1, line: { width: 0 }, ...marker }, // an array of sizes as one size
    };
  }

  // Traces, names of choices and a legend for each panel.
  const PANELS = {
    input(shape) {
      const z = shape.pos[2], low = z.reduce((a, b) => Math.min(a, b)), high = z.reduce((a, b) => Math.max(a, b));
      const shade = (i) => 60 + Math.round((150 * (z[i] - low)) / Math.max(high - low, 1e-9));
      const color = Array.from(z, (_, i) => (shape.rgb
        ? `rgb(${shape.rgb[3 * i]},${shape.rgb[3 * i + 1]},${shape.rgb[3 * i + 2]})`
        : `rgb(${shade(i)},${shade(i)},${Math.min(255, shade(i) + 8)})`));
      return { traces: [cloud(shape, shape.pos, { color })], key: [shape.rgb ? "colour as measured" : "shaded by height"] };
    },
    truth(shape, viewer) {
      const all = viewer.choice.truth === 1;
      const missed = shape.true - shape.right;
      const look = painted(shape, shape.truth, (x) => (all ? x.own : x.color), (x) => !all && x.match < 0, viewer.focus?.truth ?? null);
      return {
        traces: [cloud(shape, shape.pos, look)],
        names: missed ? ["missed", "all"] : [],
        key: [`${shape.right} of ${shape.true} found`, ...(missed ? [["#1a1a1a", `${missed} missed`]] : [])],
      };
    },
    found(shape, viewer) {
      const look = painted(shape, shape.found, (x) => x.color, (x) => shape.truth && x.match < 0, viewer.focus?.found ?? null);
      const n = shape.found.instances.length;
      const key = shape.truth ? [`${shape.right} right`, ...(shape.false ? [["#d7191c", `${shape.false} false`]] : [])] : [`${n} found`];
      return { traces: [cloud(shape, shape.pos, look)], key };
    },
    sigma(shape, viewer) {
      const { axes } = shape.sigma, names = shape.unsure ? ["point", ...axes] : axes, colorscale = VIRIDIS.map((c, i) => [i / (VIRIDIS.length - 1), c]);
      const choice = Math.min(viewer.choice.sigma ?? 0, names.length - 1), axis = choice - (names.length - axes.length), logs = shape.logs[axis];
      if (axis < 0) { // of points in instances; all others are as unsure as can be
        const inside = [], outside = [];
        shape.found.label.forEach((k, i) => (k < 0 ? outside : inside).push(i));
        const unsure = inside.map((i) => shape.unsure[i]), [low, high] = middle(unsure);
        const of = (rows) => shape.pos.map((x) => Float32Array.from(rows, (i) => x[i]));
        const text = unsure.map((x) => `uncertainty ${short(x)}`);
        return {
          traces: [cloud(shape, of(inside), { color: unsure, text, colorscale, cmin: low, cmax: high, showscale: false }),
            cloud(shape, of(outside), { color: shape.none, text: "none" })],
          names, key: [colorBar([0, 0.5, 1].map((t) => [Number((low + t * (high - low)).toFixed(2)), t])), "1 − score · κ"],
        };
      }
      const [low, high] = middle(shape.logs.flatMap((x) => Array.from(x)));
      const text = Array.from(logs, (_, i) => axes.map((name, a) => `${name} = ${short(Math.exp(shape.logs[a][i]))}`).join("<br>"));
      const unit = shape.unit ? ` in ${shape.unit}` : " in the unit of the positions";
      return {
        traces: [cloud(shape, shape.pos, { color: logs, text, colorscale, cmin: low, cmax: high, showscale: false })],
        names, key: [colorBar(logTicks(low, high)), axes[axis] + unit],
      };
    },
    mean(shape, viewer) {
      const look = painted(shape, shape.found, (x) => x.color, (x) => shape.truth && x.match < 0, viewer.focus?.found ?? null);
      const seeds = cloud(shape, shape.seeds, {
        color: shape.found.instances.map((x) => x.color), size: 6, symbol: "diamond", line: { width: 1, color: "#000" },
        text: describe(shape, shape.found).map((t) => "seed of " + t),
      });
      const d = shape.mean.dim;
      return {
        traces: [cloud(shape, shape.mu, look), seeds], flat: d < 3, box: true,
        key: ["at best one tight spot each", ["◆", "seed"], ...(d > 3 ? [`axes 1 to 3 of ${d}`] : [])],
      };
    },
  };

  function middle(values) { // from the percentile 2 to 98
    const sorted = Float32Array.from(values).sort(), last = sorted.length - 1;
    if (last < 0) return [0, 1];
    const low = sorted[Math.floor(0.02 * last)], high = sorted[Math.ceil(0.98 * last)];
    return high - low < 1e-3 ? [low - 0.05, high + 0.05] : [low, high]; // one value for all
  }

  // Round values between two logarithms, and where each is along the bar.
  function logTicks(low, high) {
    const nice = [];
    for (let e = Math.floor(low / Math.LN10); e <= high / Math.LN10; e++) for (const m of [1, 2, 5]) nice.push(m * 10 ** e);
    let shown = nice.filter((v) => Math.log(v) >= low && Math.log(v) <= high);
    if (shown.length < 2) shown = [0.08, 0.5, 0.92].map((t) => Math.exp(low + t * (high - low)));
    const every = Math.ceil(shown.length / 5);
    return shown.filter((_, i) => i % every === 0).map((v) => [v, (Math.log(v) - low) / (high - low)]);
  }

  function colorBar(values) {
    const box = element("div"), bar = element("div", "", "bar"), ticks = element("div", "", "ticks");
    bar.style.background = `linear-gradient(90deg, ${VIRIDIS.join(", ")})`;
    for (const [value, at] of values) {
      const tick = element("span", short(value));
      tick.style.left = `${Math.min(95, Math.max(5, 100 * at))}%`;
      ticks.append(tick);
    }
    box.append(bar, ticks);
    return box;
  }

  // All axes have the same length, so that nothing is distorted.
  function layout(traces, camera, flat, box) {
    const range = ["x", "y", "z"].map((a) => {
      let low = Infinity, high = -Infinity;
      for (const trace of traces) for (const v of trace[a]) { low = Math.min(low, v); high = Math.max(high, v); }
      return [low, high];
    });
    const edges = range.map(([a, b]) => b - a); // of wide clouds the corners would be out of sight
    const half = Math.max(0.52 * Math.max(...edges, 1e-6), 0.4 * Math.hypot(...edges));
    const axis = ([a, b], title) => ({
      range: [(a + b) / 2 - half, (a + b) / 2 + half], visible: box, showticklabels: false, title: { text: title }, showspikes: false,
      showbackground: false, gridcolor: "#e8ebf0", zeroline: false, linecolor: "#c9ced8", showline: true,
    });
    return {
      margin: { l: 0, r: 0, t: 0, b: 0 }, paper_bgcolor: "#fff", hoverlabel: { align: "left" },
      scene: {
        xaxis: axis(range[0], ""), yaxis: axis(range[1], ""), zaxis: axis(range[2], ""), aspectmode: "cube",
        camera: structuredClone(camera), dragmode: flat ? "orbit" : "turntable",
      },
    };
  }

  // ---- a viewer: one shape of a section at a time ----

  const viewers = new Map();
  const live = []; // oldest first

  function Viewer(root) {
    const viewer = { root, camera: CAMERA, choice: {}, focus: null, shape: null, panels: [...root.querySelectorAll(".panel")] };
    for (const chip of root.querySelectorAll(".chip")) chip.onclick = () => choose(viewer, chip);
    root.querySelector(".reset").onclick = () => { viewer.camera = CAMERA; draw(viewer); };
    for (const panel of viewer.panels) {
      const plot = panel.querySelector(".plot");
      panel.querySelector(".enlarge").onclick = () => { panel.classList.toggle("large"); Plotly.Plots.resize(plot); };
      // Only the panel under the pointer turns the others: their own events would come back, rounded, for ever.
      panel.addEventListener("pointerenter", (event) => { if (!event.buttons) viewer.hand = panel; });
      panel.addEventListener("pointerdown", () => { viewer.hand = panel; }, { capture: true });
      // The wheel scrolls the page over a picture too; with Ctrl, which a pinch also sends, it zooms. Not by plotly,
      // whose step grows with the time since it last drew.
      plot.addEventListener("wheel", (event) => {
        event.stopPropagation();
        if (!event.ctrlKey || panel.dataset.state !== "drawn") return;
        event.preventDefault();
        zoom(viewer, panel, Math.exp(0.003 * Math.max(-100, Math.min(100, event.deltaY))));
      }, { capture: true, passive: false });
    }
    viewers.set(root, viewer);
    choose(viewer, root.querySelector('.chip[aria-pressed="true"]'));
  }

  function choose(viewer, chip) {
    for (const other of viewer.root.querySelectorAll(".chip")) other.setAttribute("aria-pressed", String(other === chip));
    viewer.id = chip.dataset.shape;
    viewer.shape = viewer.focus = null;
    if (live.includes(viewer)) draw(viewer);
  }

  function draw(viewer) {
    const shape = (viewer.shape ??= load(viewer.id));
    about(viewer, shape);
    for (const panel of viewer.panels) {
      const kind = panel.dataset.kind;
      panel.hidden = !shape[kind];
      if (shape[kind]) drawPanel(viewer, panel, PANELS[kind](shape, viewer)); else clear(panel);
    }
  }

  function drawPanel(viewer, panel, { traces, names, key, flat, box }) {
    const plot = panel.querySelector(".plot"), kind = panel.dataset.kind;
    choices(panel.querySelector(".choice"), names ?? [], viewer.choice[kind] ?? 0, (i) => { viewer.choice[kind] = i; draw(viewer); });
    const legend = key.map((k) => {
      if (k instanceof Node) return k;
      const item = element("span", Array.isArray(k) ? k[1] : k);
      if (Array.isArray(k)) item.prepend(k[0] === "◆" ? "◆ " : swatch(k[0]));
      return item;
    });
    panel.querySelector(".key").replaceChildren(...legend);
    const fresh = panel.dataset.state === undefined;
    panel.dataset.state = "drawing";
    panel.linked = !flat;
    Plotly.react(plot, traces, layout(traces, flat ? FROM_ABOVE : viewer.camera, flat, Boolean(box)), CONFIG).then(() => {
      panel.dataset.state = "drawn";
      if (!fresh) return;
      const turned = (event) => { if (event["scene.camera"] && panel.linked && viewer.hand === panel) turn(viewer, event["scene.camera"], panel); };
      plot.on("plotly_relayouting", turned);
      plot.on("plotly_relayout", turned);
    });
  }

  function choices(place, names, chosen, act) { // buttons, or a list where they would not fit
    if (names.length < 2) return place.replaceChildren();
    if (names.length > 3) {
      const list = element("select");
      list.append(...names.map((name, i) => new Option(name, i, false, i === chosen)));
      list.onchange = () => act(list.selectedIndex);
      return place.replaceChildren(list);
    }
    return place.replaceChildren(...names.map((name, i) => {
      const button = element("button", name);
      button.type = "button";
      button.setAttribute("aria-pressed", String(i === chosen));
      button.onclick = () => act(i);
      return button;
    }));
  }

  // Give the camera to all panels but the one that has it.
  function turn(viewer, camera, source) {
    viewer.camera = structuredClone(camera);
    viewer.source = source;
    viewer.turning ||= requestAnimationFrame(() => {
      viewer.turning = 0;
      for (const panel of viewer.panels) {
        if (panel === viewer.source || panel.dataset.state !== "drawn" || !panel.linked) continue;
        Plotly.relayout(panel.querySelector(".plot"), { "scene.camera": structuredClone(viewer.camera) });
      }
    });
  }

  function zoom(viewer, panel, factor) {
    const plot = panel.querySelector(".plot");
    const camera = structuredClone(panel.linked ? viewer.camera : plot.layout.scene.camera), { eye, center } = camera;
    const axes = ["x", "y", "z"], distance = Math.hypot(...axes.map((a) => eye[a] - center[a]));
    const scale = Math.min(10, Math.max(0.1, factor * distance)) / distance;
    for (const a of axes) eye[a] = center[a] + scale * (eye[a] - center[a]);
    if (panel.linked) turn(viewer, camera, null); else Plotly.relayout(plot, { "scene.camera": camera });
  }

  function clear(panel) {
    if (panel.dataset.state === undefined) return;
    delete panel.dataset.state;
    const plot = panel.querySelector(".plot"), canvases = [...plot.querySelectorAll("canvas")];
    Plotly.purge(plot);
    // A purged canvas keeps its context until it is collected, which may be too late for the next ones.
    for (const canvas of canvases) canvas.getContext("webgl")?.getExtension("WEBGL_lose_context")?.loseContext();
  }

  // ---- the list of instances ----

  function about(viewer, shape) {
    const name = viewer.root.querySelector(".name"), count = (n) => n.toLocaleString("en");
    name.replaceChildren(shape.name + " ", element("small", shape.drawn < shape.points
      ? `${count(shape.drawn)} of its ${count(shape.points)} points are drawn, all are counted` : `${count(shape.points)} points`));
    const rows = [];
    const found = shape.found.instances;
    const iou = (x) => (x?.best ? x.best[1].toFixed(2) : "–");
    found.forEach((x, k) => {
      if (!shape.truth) rows.push(["found", x, null, { truth: -1, found: k }]);
      else if (x.match >= 0) rows.push(["found", x, shape.truth.instances[x.match], { truth: x.match, found: k }]);
    });
    if (shape.truth) {
      found.forEach((x, k) => { if (x.match < 0) rows.push(["false", x, null, { truth: -1, found: k }]); });
      shape.truth.instances.forEach((x, g) => { if (x.match < 0 && x.points) rows.push(["missed", null, x, { truth: g, found: -1 }]); });
    }
    const classes = [...found, ...(shape.truth?.instances ?? [])].some((x) => x.class !== null);
    const heads = ["", "", ...(classes ? ["class"] : []), "score", ...(shape.truth ? ["best IoU"] : []), "points"];
    const head = element("tr"), body = element("tbody"), table = element("table"), top = element("thead");
    head.append(...heads.map((text, i) => element("th", text, i > 1 && text !== "class" ? "number" : "")));
    for (const [verdict, x, g, focus] of rows) {
      const line = element("tr"), first = element("td", "", verdict);
      first.append(swatch((x ?? g).color), { false: "false detection", missed: "missed", found: "found" }[verdict] + otherClass(x ?? g).replace(" of", ":"));
      const which = [x && `found ${focus.found + 1}`, g && `true ${focus.truth + 1}`].filter(Boolean).join(" = ");
      line.append(first, element("td", which));
      if (classes) line.append(element("td", (x ?? g).class ?? "–"));
      line.append(element("td", x ? x.score.toFixed(2) : "–", "number"));
      if (shape.truth) line.append(element("td", iou(x ?? g), "number"));
      line.append(element("td", count((x ?? g).points), "number"));
      const same = viewer.focus && viewer.focus.truth === focus.truth && viewer.focus.found === focus.found;
      line.classList.toggle("focus", Boolean(same));
      line.onclick = () => { viewer.focus = same ? null : focus; draw(viewer); };
      body.append(line);
    }
    const list = viewer.root.querySelector(".instances"), scroll = list.scrollTop;
    top.append(head);
    table.append(top, body);
    list.replaceChildren(...(rows.length ? [table] : []));
    list.scrollTop = scroll;
  }

  // ---- charts ----

  function drawChart(figure) {
    const chart = JSON.parse(figure.querySelector("script").textContent), plot = figure.querySelector(".plot");
    const few = Math.max(...chart.lines.map((line) => line.x.length)) <= 40 && !chart.square;
    const traces = chart.lines.map((line, i) => ({
      type: "scatter", mode: few ? "lines+markers" : "lines", name: plain(line.name), x: line.x, y: line.y,
      line: { color: LINES[i % LINES.length], width: 2, dash: ["solid", "dash", "dot"][Math.floor(i / LINES.length) % 3] },
    }));
    const axis = (title) => ({
      title: { text: plain(title), standoff: 8 }, gridcolor: "#eceff4", zeroline: false, linecolor: "#c9ced8", automargin: true,
      ...(chart.square ? { range: [-0.01, 1.03] } : {}),
    });
    const mark = chart.mark && {
      shapes: [{ type: "line", x0: chart.mark[0], x1: chart.mark[0], yref: "paper", y0: 0, y1: 1, line: { color: "#c4161c", dash: "dot", width: 1.5 } }],
      annotations: [{ x: chart.mark[0], yref: "paper", y: 1, text: plain(chart.mark[1]), showarrow: false, xanchor: "left", xshift: 4, font: { color: "#c4161c" } }],
    };
    return Plotly.newPlot(plot, traces, {
      margin: { l: 50, r: 12, t: 10, b: 40 }, xaxis: axis(chart.x), yaxis: axis(chart.y), showlegend: traces.length > 1,
      legend: { orientation: "h", y: -0.25, font: { size: 11 } }, font: { size: 12, color: "#1d2330" }, ...mark,
    }, CONFIG).then(() => { figure.dataset.state = "drawn"; });
  }

  // ---- draw what comes into view; give its contexts back when it leaves ----

  function stop(viewer) {
    live.splice(live.indexOf(viewer), 1);
    viewer.panels.forEach(clear);
  }

  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const viewer = viewers.get(target);
      if (!viewer) {
        if (isIntersecting) { watch.unobserve(target); drawChart(target); }
      } else if (isIntersecting && !live.includes(viewer)) {
        while (live.length >= LIVE) stop(live[0]);
        live.push(viewer);
        draw(viewer);
      } else if (!isIntersecting && live.includes(viewer)) {
        stop(viewer);
      }
    }
  }, { rootMargin: "150px" });

  for (const root of document.querySelectorAll(".viewer")) { Viewer(root); watch.observe(root); }
  for (const figure of document.querySelectorAll(".chart")) watch.observe(figure);
})();
