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
  const COLOUR = { ...DATA.outcome_colours, ...DATA.kind_colours };
  const OUTCOME_RANK = Object.keys(DATA.outcome_colours), KIND_RANK = Object.keys(DATA.kind_colours);  // worst last
  const CONFIG = { displayModeBar: false, responsive: true, showLink: false, plotlyServerURL: "",
    doubleClick: "autosize" };
  const charts = new Set();
  const timelines = [];

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const words = (name) => name.replaceAll("_", " ");
  const count = (value) => value.toLocaleString("en-US");

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

  // -- timelines ----------------------------------------------------------------------------------------------

  // The rows of a group of inferences or ticks that are in view: its lists, cut down to those.
  function inView(group, low, high) {
    const rows = [...group.from.keys()].filter((i) => group.from[i] < high && (group.until?.[i] ?? group.from[i] + 1) >= low);
    return Object.fromEntries(Object.entries(group).map(([key, value]) =>
      [key, Array.isArray(value) ? rows.map((i) => value[i]) : value]));
  }

  const sizeOf = (groups) => groups.reduce((sum, group) => sum + group.from.length, 0);

  // Pale while the answer waits, the computing itself, and a dot where it was applied.
  function jobBars(group) {
    const colour = COLOUR[group.name], label = { customdata: group.facts, hovertemplate: group.text };
    const bar = { type: "bar", orientation: "h", y: group.lane, ...label };
    const traces = [
      { ...bar, width: 0.34, base: group.to, x: group.to.map((to, i) => Math.max(0, group.until[i] - to)),
        marker: { color: colour, opacity: 0.35 } },
      { ...bar, width: 0.7, base: group.from, x: group.from.map((from, i) => Math.max(0.02, group.to[i] - from)),
        marker: { color: colour, pattern: { shape: group.answered ? "" : "/" }, line: { color: css("--ground"), width: 1 } } },
    ];
    if (group.name === "on_time" || group.name === "late") {
      traces.push({ type: "scatter", mode: "markers", x: group.settled, y: group.lane, ...label, hoverlabel: { bgcolor: colour },
        marker: { size: 6, color: css(group.name === "late" ? "--ground" : "--text"), line: { color: css("--text"), width: 1.2 } } });
    }
    return traces;
  }

  function tickBars(group) {
    return { type: "bar", yaxis: "y2", x: group.from.map((tick) => tick + 0.5), y: group.from.map(() => 1), width: 1,
      customdata: group.facts, hovertemplate: group.text,
      marker: { color: COLOUR[group.name], line: { color: css("--ground"), width: group.from.length > 300 ? 0 : 0.8 } } };
  }

  class Timeline {
    constructor(index) {
      this.index = index;
      this.run = DATA.timelines[index];
      this.lanes = document.getElementById(`lanes-${index}`);
      ({ first: this.first, last: this.last } = this.run);
      this.range = this.run.start.slice();
      const height = Math.min(900, Math.max(190, 26 * this.run.lanes.length + 110));
      this.lanes.style.height = `${height}px`;
      this.laneShare = 34 / (height - 60);
      charts.add(() => this.show());
      this.show();
      this.listen();
    }

    show() {
      const [low, high] = this.range;
      const [jobs, ticks] = [this.run.jobs, this.run.ticks].map((groups) => groups.map((group) => inView(group, low, high)));
      const ran = sizeOf(ticks.filter((group) => group.name !== "skipped"));
      const fine = sizeOf(jobs) <= MOST_DRAWN && sizeOf(ticks) <= MOST_DRAWN;
      const traces = fine ? [...jobs.flatMap(jobBars), ...ticks.map(tickBars)] : this.cells(jobs, ticks);
      Plotly.react(this.lanes, traces, this.layout(), CONFIG);
      const shown = `Ticks ${count(Math.max(this.first, Math.floor(low)))} to ${count(Math.min(this.last, Math.ceil(high)) - 1)}: ` +
        `${count(ran)} ticks that ran, ${count(sizeOf(jobs))} inferences. `;
      const cell = Math.ceil((high - low) / COARSE_CELLS);
      document.getElementById(`view-${this.index}`).textContent = shown + (fine ? "All of them are drawn." :
        `Too many to draw one by one: a cell stands for ${cell} ticks and shows the worst in it. ` +
        `Zoom in to ${count(MOST_DRAWN)} or fewer to see each; the band above the buttons shows how many there were of each.`);
      this.markOverview();
    }

    layout() {
      const workers = this.run.lanes.length, step = Math.ceil(workers / 24);
      const rows = this.run.lanes.map((_, i) => i).filter((i) => i % step === 0 || this.run.lanes[i] === "head");
      return themed({
        xaxis: { range: this.range.slice(), title: { text: "tick" }, anchor: "y2", tickformat: ",d", hoverformat: ",.2f" },
        yaxis: { range: [workers - 0.4, -0.6], fixedrange: true, domain: [this.laneShare + 0.03, 1], zeroline: false,
          tickvals: rows, ticktext: rows.map((row) => this.run.lanes[row]), showgrid: false },
        yaxis2: { range: [0, 1], fixedrange: true, domain: [0, this.laneShare], tickvals: [0.5], ticktext: ["ticks"], showgrid: false },
        barmode: "overlay", bargap: 0, showlegend: false, dragmode: "zoom", hovermode: "closest",
        margin: { l: MARGIN_PX, r: 16, t: 8, b: 38 },
      });
    }

    // Several to a cell, which shows the worst of them and names all.
    cells(jobs, ticks) {
      const [low, high] = this.range, width = Math.ceil((high - low) / COARSE_CELLS), begin = Math.floor(low / width) * width;
      const columns = Array.from({ length: Math.ceil((high - begin) / width) }, (_, c) => begin + c * width);
      const heat = (groups, ranks, yaxis, y, at, label) => {
        const tallies = y.map(() => columns.map(() => ({})));
        for (const group of groups) group.from.forEach((_, i) => {
          const tally = tallies[group.lane?.[i] ?? 0]?.[Math.floor((group[at][i] - begin) / width)];
          if (tally) tally[group.name] = (tally[group.name] ?? 0) + 1;
        });
        const worst = (tally) => Math.max(...Object.keys(tally).map((name) => ranks.indexOf(name)));
        const text = (tally) => Object.entries(tally).map(([name, n]) => `${words(name)} ${count(n)}`).join("<br>");
        const isEmpty = (tally) => !Object.keys(tally).length;
        return {
          type: "heatmap", x: columns.map((tick) => tick + width / 2), y, yaxis, showscale: false, hoverinfo: "text", xgap: 0,
          ygap: yaxis === "y" ? 3 : 0, zmin: 0, zmax: ranks.length, zsmooth: false,
          z: tallies.map((row) => row.map((tally) => isEmpty(tally) ? null : 0.5 + worst(tally))),
          hovertext: tallies.map((row, r) => row.map((tally, c) => isEmpty(tally) ? "" :
            `<b>${label(r)}ticks ${count(columns[c])} to ${count(columns[c] + width - 1)}</b><br>${text(tally)}`)),
          colorscale: ranks.flatMap((name, i) => [[i / ranks.length, COLOUR[name]], [(i + 1) / ranks.length, COLOUR[name]]]),
        };
      };
      return [
        heat(jobs, OUTCOME_RANK, "y", [...Array(this.run.lanes.length).keys()], "settled", (lane) => `${this.run.lanes[lane]}, `),
        heat(ticks, KIND_RANK, "y2", [0.5], "from", () => ""),
      ];
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
      const found = where === "next" ? this.run.trouble.find((tick) => tick > mark + 1) : this.run.trouble.findLast((tick) => tick < mark - 1);
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
    if (!run.ticks.length || !document.getElementById(`lanes-${index}`)) return;
    drawOverview(index);
    timelines[index] = new Timeline(index);
  });
  if (document.getElementById("linked")?.checked) timelines.find(Boolean)?.go(...timelines.find(Boolean).range);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((show) => show()));
  document.documentElement.dataset.ready = "yes";
})();
