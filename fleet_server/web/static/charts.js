// Draws one chart per channel: the value, its band value ± U, and a mark for each reading that is not good.
// Everything it shows stands in the table below it too; without this script the page is complete.
(function () {
  "use strict";
  const css = getComputedStyle(document.documentElement);
  const colour = (name) => css.getPropertyValue(name).trim();
  const language = document.documentElement.lang || "en";
  const SUSPECT = 3, BAD = 4, MISSING = 9;

  // A line over hours without readings would be a claim; a null breaks it.
  function breakAtGaps(data) {
    const steps = [];
    for (let i = 1; i < data.t.length; i++) steps.push(data.t[i] - data.t[i - 1]);
    const usual = steps.slice().sort((a, b) => a - b)[Math.floor(steps.length / 2)] || 900;
    const out = { t: [], v: [], u: [], f: [] };
    data.t.forEach((t, i) => {
      if (i && t - data.t[i - 1] > 3 * usual) {
        out.t.push(data.t[i - 1] + usual); out.v.push(null); out.u.push(null); out.f.push(null);
      }
      out.t.push(t); out.v.push(data.v[i]); out.u.push(data.u[i]); out.f.push(data.f[i]);
    });
    return out;
  }

  function columns(raw) {
    const d = breakAtGaps(raw);
    const has = (i) => d.v[i] !== null && d.u[i] !== null;
    const table = [
      d.t,
      d.v,
      d.v.map((v, i) => (has(i) ? v + d.u[i] : null)),
      d.v.map((v, i) => (has(i) ? v - d.u[i] : null)),
      d.v.map((v, i) => (d.f[i] === SUSPECT ? v : null)),
      d.v.map((v, i) => (d.f[i] === BAD ? v : null)),
    ];
    return { table, flags: d.f };
  }

  // Readings that failed have no value: a short red tick on the time axis says when.
  const drawMissing = (times, flags) => (chart) => {
    const context = chart.ctx, box = chart.bbox, length = 8 * devicePixelRatio;
    context.save();
    context.strokeStyle = colour("--red");
    context.lineWidth = 2 * devicePixelRatio;
    context.beginPath();
    times.forEach((time, i) => {
      if (flags[i] !== MISSING) return;
      const x = Math.round(chart.valToPos(time, "x", true));
      if (x < box.left || x > box.left + box.width) return;
      context.moveTo(x, box.top + box.height - length);
      context.lineTo(x, box.top + box.height);
    });
    context.stroke();
    context.restore();
  };

  const shown = (data, value) => (value === null || value === undefined ? "–" : value.toLocaleString(language, {
    minimumFractionDigits: data.decimals, maximumFractionDigits: data.decimals }));

  function names() {
    const spell = (dates, form) => dates.map((date) => date.toLocaleDateString(language, { timeZone: "UTC", ...form }));
    const months = Array.from({ length: 12 }, (_, i) => new Date(Date.UTC(2024, i, 15)));
    const days = Array.from({ length: 7 }, (_, i) => new Date(Date.UTC(2024, 0, 7 + i))); // 7 January 2024 was a Sunday
    return {
      MMMM: spell(months, { month: "long" }), MMM: spell(months, { month: "short" }),
      WWWW: spell(days, { weekday: "long" }), WWW: spell(days, { weekday: "short" }),
    };
  }

  // Steps in seconds, and how a tick is written: alone, and where a new year or day begins.
  function timeTicks() {
    const date = language.startsWith("de") ? "{D}.{M}." : "{D} {MMM}", clock = "{HH}:{mm}", day = "\n" + date;
    return [
      [31536000, "{YYYY}", null, null, null, null, null, null, 1],
      [2419200, "{MMM}", "\n{YYYY}", null, null, null, null, null, 1],
      [86400, date, "\n{YYYY}", null, null, null, null, null, 1],
      [3600, clock, day, null, day, null, null, null, 1],
      [60, clock, day, null, day, null, null, null, 1],
    ];
  }

  function options(data, table, flags, width) {
    const font = "12px system-ui, sans-serif";
    const axis = { font, stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 } };
    const words = names();
    const local = (seconds) => uPlot.tzDate(new Date(seconds * 1e3), data.timeZone);
    const whole = uPlot.fmtDate(language.startsWith("de") ? "{DD}.{MM}.{YYYY}, {HH}:{mm}" : "{D} {MMM} {YYYY}, {HH}:{mm}", words);
    const line = colour(data.kind === "water" ? "--blue" : "--green");
    const withU = (chart, value, _series, i) => {
      if (value === null || value === undefined) return "–";
      const upper = table[2][i];
      return shown(data, value) + (upper === null ? "" : " ± " + shown(data, upper - value)) + " " + data.unit;
    };
    const mark = (label, name, fill) => ({ label, class: "unseen", stroke: colour(name), paths: () => null, points: { show: true, size: 8, width: 2, fill } });
    const edge = (label) => ({ label, class: "unseen", stroke: "transparent", points: { show: false } });
    return {
      width, height: 240,
      tzDate: local,
      fmtDate: (template) => uPlot.fmtDate(template, words),
      cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
      scales: {
        x: { time: true, range: [data.from, data.to] },
        y: { range: (_chart, low, high) => {
          const pad = (high - low || Math.abs(high) * 0.1 || 1) * 0.12;
          return [low - pad, high + pad];
        } },
      },
      axes: [{ ...axis, space: 70, values: timeTicks() }, { ...axis, size: 56, label: data.unit, labelSize: 22, labelFont: font }],
      series: [
        { label: data.words.time, value: (_chart, value) => (value == null ? "–" : whole(local(value))) },
        { label: data.words.value, stroke: line, width: 1.75, points: { show: false }, value: withU },
        edge(data.words.upper),
        edge(data.words.lower),
        mark(data.words.suspect, "--amber", "#fff"),
        mark(data.words.bad, "--red", colour("--red")),
      ],
      bands: [{ series: [2, 3], fill: line + "2e" }],
      hooks: { draw: [drawMissing(table[0], flags)] },
    };
  }

  function draw(box, data) {
    if (!data.t.length) return;
    box.classList.add("drawn");
    const { table, flags } = columns(data);
    let width = box.clientWidth;
    const chart = new uPlot(options(data, table, flags, width), table, box);
    new ResizeObserver(() => {
      if (box.clientWidth && box.clientWidth !== width) {
        width = box.clientWidth;
        chart.setSize({ width, height: 240 });
      }
    }).observe(box);
  }

  function load(box) {
    fetch(box.dataset.series, { credentials: "same-origin", headers: { Accept: "application/json" } })
      .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(String(answer.status)))))
      .then((data) => draw(box, data))
      .catch(() => { box.classList.add("failed"); });
  }

  if (typeof uPlot === "undefined") return;
  document.querySelectorAll(".chart[data-series]").forEach(load);
})();
