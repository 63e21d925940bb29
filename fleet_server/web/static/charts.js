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
    return [
      d.t,
      d.v,
      d.v.map((v, i) => (has(i) ? v + d.u[i] : null)),
      d.v.map((v, i) => (has(i) ? v - d.u[i] : null)),
      d.v.map((v, i) => (d.f[i] === SUSPECT ? v : null)),
      d.v.map((v, i) => (d.f[i] === BAD ? v : null)),
      d.f,
    ];
  }

  // Readings that failed have no value: a short red tick on the time axis says when.
  function drawMissing(u) {
    const flags = u.data[6], times = u.data[0], context = u.ctx, box = u.bbox;
    context.save();
    context.strokeStyle = colour("--red");
    context.lineWidth = 2 * devicePixelRatio;
    context.beginPath();
    for (let i = 0; i < times.length; i++) {
      if (flags[i] !== MISSING) continue;
      const x = Math.round(u.valToPos(times[i], "x", true));
      if (x < box.left || x > box.left + box.width) continue;
      context.moveTo(x, box.top + box.height - 8 * devicePixelRatio);
      context.lineTo(x, box.top + box.height);
    }
    context.stroke();
    context.restore();
  }

  const shown = (data, u, v) => (v === null || v === undefined ? "–" : v.toLocaleString(language, {
    minimumFractionDigits: data.decimals, maximumFractionDigits: data.decimals }));

  function options(data, width) {
    const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 },
                   ticks: { stroke: colour("--line"), width: 1 }, font: "12px system-ui, sans-serif" };
    const names = (style) => (key, n) => Array.from({ length: n }, (_, i) => new Date(Date.UTC(2024, 0, key === "month" ? 15 : 7 + i, 12)));
    const months = Array.from({ length: 12 }, (_, i) => new Date(Date.UTC(2024, i, 15)));
    const days = names()("day", 7);
    const spell = (dates, form) => dates.map((d) => d.toLocaleDateString(language, { timeZone: "UTC", ...form }));
    const words = {
      MMMM: spell(months, { month: "long" }), MMM: spell(months, { month: "short" }),
      WWWW: spell(days, { weekday: "long" }), WWW: spell(days, { weekday: "short" }),
    };
    const line = data.kind === "water" ? "--blue" : "--green";
    const whole = language.startsWith("de") ? "{DD}.{MM}.{YYYY} {HH}:{mm}" : "{DD} {MMM} {YYYY} {HH}:{mm}";
    const value = (u, v) => shown(data, u, v);
    const day = 86400, year = 31536000;
    const date = language.startsWith("de") ? "{D}.{M}." : "{D} {MMM}";
    return {
      width, height: 240,
      tzDate: (ts) => uPlot.tzDate(new Date(ts * 1e3), data.timeZone),
      fmtDate: (template) => uPlot.fmtDate(template, words),
      cursor: { y: false, points: { size: 7 } },
      legend: { live: true },
      scales: { x: { min: data.from, max: data.to, time: true }, y: { range: { min: { pad: 0.12 }, max: { pad: 0.12 } } } },
      axes: [
        { ...axis, space: 70, values: [
          [year, "{YYYY}", null, null, null, null, null, null, 1],
          [day * 28, "{MMM}", "\n{YYYY}", null, null, null, null, null, 1],
          [day, date, "\n{YYYY}", null, null, null, null, null, 1],
          [3600, "{HH}:{mm}", "\n" + date, null, "\n" + date, null, null, null, 1],
          [60, "{HH}:{mm}", "\n" + date, null, "\n" + date, null, null, null, 1],
        ] },
        { ...axis, size: 56, label: data.unit, labelSize: 22, labelFont: "12px system-ui, sans-serif" },
      ],
      series: [
        { label: data.words.time, value: (u, v) => (v == null ? "–" : uPlot.fmtDate(whole, words)(uPlot.tzDate(new Date(v * 1e3), data.timeZone))) },
        { label: data.words.value, stroke: colour(line), width: 1.75, points: { show: false }, value },
        { label: data.words.upper, stroke: "transparent", points: { show: false }, value },
        { label: data.words.lower, stroke: "transparent", points: { show: false }, value },
        { label: data.words.suspect, stroke: colour("--amber"), width: 0, paths: () => null, points: { show: true, size: 8, width: 2, fill: "#fff" }, value },
        { label: data.words.bad, stroke: colour("--red"), width: 0, paths: () => null, points: { show: true, size: 8, width: 2, fill: colour("--red") }, value },
      ],
      bands: [{ series: [2, 3], fill: colour(line) + "2e" }],
      hooks: { draw: [drawMissing] },
    };
  }

  function draw(box, data) {
    if (!data.t.length) return;
    box.classList.add("drawn");
    const table = columns(data);
    const chart = new uPlot(options(data, box.clientWidth), table.slice(0, 6), box);
    chart.data[6] = table[6];
    chart.redraw();
    let width = box.clientWidth;
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
