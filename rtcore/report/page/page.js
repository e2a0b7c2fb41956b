// The page's script: draws the charts that came with the page, and the timelines from their rows.
//
// A timeline draws only what is in view. Up to MOST_DRAWN inferences (or ticks) each has its own bar; beyond that
// a cell stands for several, and shows the worst of them: nothing is left out of the count.
"use strict";
(() => {
  const DATA = JSON.parse(document.getElementById("data").textContent);
  const MOST_DRAWN = 1500;
  const COARSE_CELLS = 600;
  const MARGIN_PX = 62;
  const OUTCOMES = DATA.outcomes, KINDS = DATA.kinds;
  const COLOUR = { ...DATA.outcome_colours, ...DATA.kind_colours };
  const OUTCOME_RANK = Object.keys(DATA.outcome_colours), KIND_RANK = Object.keys(DATA.kind_colours);  // worst last
  const CONFIG = { displayModeBar: false, responsive: true, showLink: false, plotlyServerURL: "",
    doubleClick: "autosize" };
  const charts = new Set();
  const timelines = [];

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const words = (name) => name.replaceAll("_", " ");
  const escape = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  const count = (value) => value.toLocaleString("en-US");
  const span = (us) => Math.abs(us) < 1000 ? `${us.toFixed(1)} us` : `${(us / 1000).toFixed(2)} ms`;

  function themed(layout) {
    const axis = { gridcolor: css("--grid"), linecolor: css("--line"), zerolinecolor: css("--grid"), automargin: true };
    const themedLayout = {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: css("--text"), size: 12, family: "system-ui, -apple-system, Segoe UI, Roboto, Arial, sans-serif" },
      margin: { l: MARGIN_PX, r: 16, t: 10, b: 40 },
      hoverlabel: { align: "left", font: { size: 12 } },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
      ...layout,
    };
    for (const key of Object.keys(layout).filter((name) => /^[xy]axis/.test(name))) {
      themedLayout[key] = { ...axis, ...layout[key] };
    }
    return themedLayout;
  }

  function draw(id, figure, extra = {}) {
    const place = document.getElementById(id);
    if (!place || !figure) return null;
    const show = () => Plotly.react(place, figure.data, themed({ ...figure.layout, ...extra }), CONFIG);
    charts.add(show);
    show();
    return place;
  }

  // -- what is in view ----------------------------------------------------------------------------------------

  function lowerBound(sorted, value) {
    let low = 0, high = sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] < value) low = middle + 1; else high = middle;
    }
    return low;
  }

  class Timeline {
    constructor(index) {
      this.index = index;
      this.run = DATA.timelines[index];
      this.ticks = this.run.ticks;
      this.jobs = this.run.jobs;
      this.lanes = document.getElementById(`lanes-${index}`);
      this.first = this.ticks.tick[0];
      this.last = this.ticks.tick.at(-1) + 1;
      this.range = this.run.start.slice();
      this.trouble = this.findTrouble();
      const height = Math.min(900, Math.max(190, 26 * this.run.workers + 110));
      this.lanes.style.height = `${height}px`;
      this.laneShare = 34 / (height - 60);
      charts.add(() => this.show());
      this.show();
      this.listen();
    }

    // Stretches of ticks without a due action, or with one that came late: their first ticks.
    findTrouble() {
      const { tick, kind, skipped } = this.ticks, found = new Set();
      const missed = KINDS.indexOf("missed");
      tick.forEach((number, i) => { if (kind[i] === missed || skipped[i]) found.add(number); });
      const bad = new Set(["late", "dropped_late", "dropped_dead_worker"].map((name) => OUTCOMES.indexOf(name)));
      this.jobs.outcome.forEach((outcome, j) => { if (bad.has(outcome)) found.add(this.jobs.resolved[j]); });
      const sorted = [...found].sort((a, b) => a - b);
      return sorted.filter((number, i) => i === 0 || number > sorted[i - 1] + 3);
    }

    jobsInView() {
      const [low, high] = this.range, { booked, resolved } = this.jobs, seen = [];
      const until = lowerBound(booked, high);
      for (let j = 0; j < until; j++) if (resolved[j] >= low) seen.push(j);
      return seen;
    }

    show() {
      const [low, high] = this.range;
      const jobs = this.jobsInView();
      const from = lowerBound(this.ticks.tick, Math.floor(low)), to = lowerBound(this.ticks.tick, high);
      const fine = jobs.length <= MOST_DRAWN && to - from <= MOST_DRAWN;
      const traces = fine ? [...this.jobBars(jobs), ...this.tickBars(from, to)] : this.cells(jobs, from, to);
      Plotly.react(this.lanes, traces, this.layout(), CONFIG);
      const shown = `Ticks ${count(Math.max(this.first, Math.floor(low)))} to ${count(Math.min(this.last, Math.ceil(high)) - 1)}: ` +
        `${count(to - from)} ticks that ran, ${count(jobs.length)} inferences. `;
      const cell = Math.ceil((high - low) / COARSE_CELLS);
      document.getElementById(`view-${this.index}`).textContent = shown + (fine ? "All of them are drawn." :
        `Too many to draw one by one: a cell stands for ${cell} ticks and shows the worst in it. ` +
        `Zoom in to ${count(MOST_DRAWN)} or fewer to see each; the band above the buttons shows how many there were of each.`);
      this.markOverview();
    }

    layout() {
      const workers = this.run.workers, step = Math.ceil(workers / 24);
      const rows = Array.from({ length: Math.ceil(workers / step) }, (_, i) => i * step);
      return themed({
        xaxis: { range: this.range.slice(), title: { text: "tick" }, anchor: "y2", tickformat: ",d", hoverformat: ",.2f" },
        yaxis: { range: [workers - 0.4, -0.6], fixedrange: true, domain: [this.laneShare + 0.03, 1], zeroline: false,
          tickvals: rows, ticktext: rows.map((row) => `w${String(row).padStart(2, "0")}`), showgrid: false },
        yaxis2: { range: [0, 1], fixedrange: true, domain: [0, this.laneShare], tickvals: [0.5], ticktext: ["ticks"], showgrid: false },
        barmode: "overlay", bargap: 0, showlegend: false, dragmode: "zoom", hovermode: "closest",
        margin: { l: MARGIN_PX, r: 16, t: 8, b: 38 },
      });
    }

    // -- one bar each -----------------------------------------------------------------------------------------

    jobBars(seen) {
      const { worker, outcome, due, from, to, resolved, infer } = this.jobs, traces = [];
      OUTCOMES.forEach((name, number) => {
        const mine = seen.filter((j) => outcome[j] === number);
        if (!mine.length) return;
        const text = mine.map((j) => this.jobText(j));
        const bar = { type: "bar", orientation: "h", y: mine.map((j) => worker[j]), hovertext: text, hoverinfo: "text" };
        const answered = mine.map((j) => infer[j] >= 0);
        traces.push({ ...bar, width: 0.34, base: mine.map((j) => to[j]),
          x: mine.map((j) => infer[j] >= 0 ? Math.max(0, Math.max(due[j], resolved[j]) - to[j]) : 0),
          marker: { color: COLOUR[name], opacity: 0.35 } });
        traces.push({ ...bar, width: 0.7, base: mine.map((j) => from[j]), x: mine.map((j) => Math.max(0.02, to[j] - from[j])),
          marker: { color: COLOUR[name], pattern: { shape: answered.map((there) => there ? "" : "/") },
            line: { color: css("--ground"), width: 1 } } });
        if (name === "on_time" || name === "late") {
          traces.push({ type: "scatter", mode: "markers", x: mine.map((j) => resolved[j]), y: mine.map((j) => worker[j]),
            hovertext: text, hoverinfo: "text", hoverlabel: { bgcolor: COLOUR[name] },
            marker: { size: 6, color: name === "late" ? css("--ground") : css("--text"), line: { color: css("--text"), width: 1.2 } } });
        }
      });
      return traces;
    }

    tickBars(from, to) {
      const { tick, kind, skipped } = this.ticks, traces = [];
      const bar = { type: "bar", yaxis: "y2", hoverinfo: "text" };
      const line = { color: css("--ground"), width: to - from > 300 ? 0 : 0.8 };
      KINDS.forEach((name, number) => {
        const mine = [];
        for (let i = from; i < to; i++) if (kind[i] === number) mine.push(i);
        if (mine.length) {
          traces.push({ ...bar, x: mine.map((i) => tick[i] + 0.5), y: mine.map(() => 1), width: 1,
            hovertext: mine.map((i) => this.tickText(i)), marker: { color: COLOUR[name], line } });
        }
      });
      const gone = [];
      for (let i = from; i < Math.min(to + 1, tick.length); i++) {
        for (let number = tick[i] - skipped[i]; number < tick[i]; number++) gone.push(number);
      }
      if (gone.length) {
        traces.push({ ...bar, x: gone.map((number) => number + 0.5), y: gone.map(() => 1), width: 1,
          hovertext: gone.map((number) => `<b>tick ${count(number)}: skipped</b><br>it did not run`),
          marker: { color: COLOUR.skipped, line } });
      }
      return traces;
    }

    // -- several to a cell ------------------------------------------------------------------------------------

    cells(seen, from, to) {
      const [low, high] = this.range, width = Math.ceil((high - low) / COARSE_CELLS), begin = Math.floor(low / width) * width;
      const columns = Math.ceil((high - begin) / width);
      const at = Array.from({ length: columns }, (_, c) => begin + (c + 0.5) * width);
      const tallies = (rows) => Array.from({ length: rows }, () => Array.from({ length: columns }, () => null));
      const add = (row, tick, name) => {
        const column = Math.floor((tick - begin) / width);
        if (column < 0 || column >= columns) return;
        (row[column] ??= {})[name] = (row[column][name] ?? 0) + 1;
      };
      const lanes = tallies(this.run.workers), strip = tallies(1);
      for (const j of seen) add(lanes[this.jobs.worker[j]], this.jobs.resolved[j], OUTCOMES[this.jobs.outcome[j]]);
      for (let i = from; i < to; i++) {
        add(strip[0], this.ticks.tick[i], KINDS[this.ticks.kind[i]]);
        for (let n = 1; n <= this.ticks.skipped[i]; n++) add(strip[0], this.ticks.tick[i] - n, "skipped");
      }
      const range = (c) => `ticks ${count(begin + c * width)} to ${count(begin + (c + 1) * width - 1)}`;
      const heat = (rows, ranks, yaxis, y, label) => ({
        type: "heatmap", x: at, y, yaxis, showscale: false, hoverinfo: "text", xgap: 0, ygap: yaxis === "y" ? 3 : 0,
        zmin: 0, zmax: ranks.length, zsmooth: false,
        z: rows.map((row) => row.map((tally) => tally && 0.5 + Math.max(...Object.keys(tally).map((name) => ranks.indexOf(name))))),
        hovertext: rows.map((row, r) => row.map((tally, c) => tally === null ? "" : `<b>${label(r)}${range(c)}</b><br>` +
          Object.entries(tally).map(([name, n]) => `${words(name)} ${count(n)}`).join("<br>"))),
        colorscale: ranks.flatMap((name, i) => [[i / ranks.length, COLOUR[name]], [(i + 1) / ranks.length, COLOUR[name]]]),
      });
      return [
        heat(lanes, OUTCOME_RANK, "y", lanes.map((_, worker) => worker), (worker) => `worker ${worker}, `),
        heat(strip, KIND_RANK, "y2", [0.5], () => ""),
      ];
    }

    // -- words ------------------------------------------------------------------------------------------------

    jobText(j) {
      const job = Object.fromEntries(Object.entries(this.jobs).map(([name, column]) => [name, column[j]]));
      const lines = [`<b>worker ${job.worker}: ${words(OUTCOMES[job.outcome])}</b>`,
        `booked at tick ${count(job.booked)}${job.due >= 0 ? `, due at tick ${count(job.due)}` : ""}`];
      if (job.infer < 0) {
        lines.push("no answer", `settled at tick ${count(job.resolved)}`);
        return lines.join("<br>");
      }
      lines.push(`frame of tick ${count(job.obs)}, episode ${job.episode}`, `settled at tick ${count(job.resolved)}`,
        `booking to start ${span(job.wake)}`, `to its own copy of the frame ${span(job.read)}`,
        `inference ${span(job.infer)}`, `writing ${span(job.write)}`,
        `answer at tick ${job.to.toFixed(2)}`);
      return lines.join("<br>");
    }

    tickText(i) {
      const tick = Object.fromEntries(Object.entries(this.ticks).map(([name, column]) => [name, column[i]]));
      const kind = KINDS[tick.kind], source = this.run.sources[tick.source], action = this.run.actions[tick.action];
      const lines = [`<b>tick ${count(tick.tick)}: ${words(kind)}</b>`];
      if (kind === "acted") {
        lines.push(`action ${escape(action)} of worker ${tick.worker}, ${words(OUTCOMES[tick.outcome])}`,
          `frame of tick ${count(tick.obs)}, ${tick.tick - tick.obs} ticks old, due at tick ${count(tick.due)}`);
      } else if (action !== "") {
        lines.push(`action ${escape(action)} (${escape(source)})`);
      } else {
        lines.push("world held, no action");
      }
      lines.push(`began ${span(tick.late)} late, world ${span(tick.step)}`,
        `episode ${tick.episode}, reward ${+tick.reward.toPrecision(6)}, return ${+tick.total.toPrecision(6)}`);
      if (tick.end) lines.push(`episode ended: ${tick.end & 1 ? "terminated" : "truncated"}`);
      if (tick.skipped) lines.push(`${tick.skipped} ticks before it were skipped`);
      return lines.join("<br>");
    }

    // -- moving about -----------------------------------------------------------------------------------------

    markOverview() {
      const place = document.getElementById(`overview-${this.index}`);
      if (!place.data) return;
      const [x0, x1] = this.range;
      Plotly.relayout(place, { shapes: [{ type: "rect", xref: "x", yref: "paper", x0, x1, y0: 0, y1: 1,
        line: { color: css("--text"), width: 1.5 }, fillcolor: css("--text"), opacity: 0.25 }] });
    }

    // Keep at least 8 ticks in view and at most the run.
    go(low, high, follow = true) {
      const size = Math.min(this.last - this.first, Math.max(8, high - low));
      const middle = (low + high) / 2;
      const begin = Math.min(Math.max(this.first, middle - size / 2), this.last - size);
      this.range = [begin, begin + size];
      this.show();
      if (follow && document.getElementById("linked")?.checked) {
        for (const other of timelines) if (other && other !== this) other.go(...this.range, false);
      }
    }

    listen() {
      this.lanes.on("plotly_relayout", (change) => {
        if (change["xaxis.autorange"]) this.go(this.first, this.last);
        else if ("xaxis.range[0]" in change) this.go(change["xaxis.range[0]"], change["xaxis.range[1]"]);
        else if (change["xaxis.range"]) this.go(...change["xaxis.range"]);
      });
      this.lanes.closest(".timeline").addEventListener("click", (event) => {
        const where = event.target.dataset?.go;
        if (where) this.press(where);
      });
    }

    press(where) {
      const [low, high] = this.range, size = high - low, middle = (low + high) / 2;
      const moves = { earlier: [low - size / 2, high - size / 2], later: [low + size / 2, high + size / 2],
        in: [middle - size / 4, middle + size / 4], out: [middle - size, middle + size], whole: [this.first, this.last] };
      if (moves[where]) return this.go(...moves[where]);
      // Trouble stands a third into the view, so that what led to it shows too.
      const wide = Math.min(size, MOST_DRAWN / 4), mark = size <= wide ? low + size / 3 : low;
      const found = where === "next" ? this.trouble.find((tick) => tick > mark + 1) : this.trouble.findLast((tick) => tick < mark - 1);
      const line = document.getElementById(`view-${this.index}`);
      if (found === undefined) { line.textContent = `No ${where === "next" ? "later" : "earlier"} missed, skipped, late or lost one.`; return; }
      this.go(found - wide / 3, found + wide * 2 / 3);
    }
  }

  function drawOverview(index) {
    const figure = DATA.overviews[index];
    if (!figure) return;
    const place = draw(`overview-${index}`, figure, { showlegend: false, dragmode: "zoom", hovermode: "x unified",
      xaxis: { fixedrange: false, showgrid: false, tickformat: ",d" }, yaxis: { fixedrange: true, showticklabels: false, showgrid: false },
      margin: { l: MARGIN_PX, r: 16, t: 4, b: 20 } });
    place?.on("plotly_relayout", (change) => {
      if (!("xaxis.range[0]" in change)) return;
      const range = [change["xaxis.range[0]"], change["xaxis.range[1]"]];
      Plotly.relayout(place, { "xaxis.autorange": true });
      timelines[index]?.go(...range);
    });
  }

  for (const [id, figure] of Object.entries(DATA.figures)) draw(id, figure);
  DATA.timelines.forEach((run, index) => {
    if (!run.ticks.tick.length || !document.getElementById(`lanes-${index}`)) return;
    drawOverview(index);
    timelines[index] = new Timeline(index);
  });
  if (document.getElementById("linked")?.checked) timelines.find(Boolean)?.go(...timelines.find(Boolean).range);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((show) => show()));
  document.documentElement.dataset.ready = "yes";
})();
