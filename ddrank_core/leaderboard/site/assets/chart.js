"use strict";

// Score against size: what accuracy a method's bytes buy, drawn with Chart.js.
const SizeChart = (() => {
  let chart = null;

  // Okabe and Ito's colours, told apart with any colour vision, and lighter ones of the same hue for a dark
  // page; each kind of label has a shape too.
  const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];
  const DARK = ["#56b4e9", "#f0944d", "#3ecfa3", "#e6a3c8"];
  const SHAPES = ["circle", "triangle", "rect", "rectRot"];

  const errorBars = {
    id: "errorBars",
    beforeDatasetsDraw({ ctx, scales, data, chartArea }) {
      ctx.save();
      ctx.beginPath();
      ctx.rect(chartArea.left, chartArea.top, chartArea.width, chartArea.height);
      ctx.clip();
      ctx.globalAlpha = 0.45;
      for (const { data: points, borderColor } of data.datasets) {
        ctx.strokeStyle = borderColor;
        ctx.beginPath();
        for (const { x, y, half } of points) {
          if (!half) continue;
          const at = scales.x.getPixelForValue(x);
          ctx.moveTo(at, scales.y.getPixelForValue(y - half));
          ctx.lineTo(at, scales.y.getPixelForValue(y + half));
        }
        ctx.stroke();
      }
      ctx.restore();
    },
  };

  function datasets(lines, by) {
    const drawn = lines.filter((line) => line[by].mean !== null && line.row.size > 0);
    const labels = [...new Set(drawn.map(({ row }) => row.labels))].sort();
    const palette = document.getElementById("theme").getAttribute("aria-pressed") === "true" ? DARK : LIGHT;
    return labels.map((label, kind) => {
      const [colour, shape] = [palette[kind % palette.length], SHAPES[kind % SHAPES.length]];
      const points = drawn.filter(({ row }) => row.labels === label)
        .map((line) => ({ x: line.row.size, y: line[by].mean, half: line[by].half, line }));
      return { label: `${label} labels`, data: points, borderColor: colour, backgroundColor: `${colour}99`, pointStyle: shape, radius: 4, hoverRadius: 7 };
    });
  }

  function colours(canvas) {
    // Custom properties are read as they are written; a resolved colour is an element's.
    const style = getComputedStyle(canvas);
    return { ink: style.color, grid: style.borderTopColor, font: style.fontFamily };
  }

  function settings(canvas) {
    const { ink, grid, font } = colours(canvas);
    const axis = (text) => ({ title: { display: true, text, color: ink }, ticks: { color: ink }, grid: { color: grid }, border: { color: grid } });
    return {
      animation: false,
      maintainAspectRatio: false,
      font: { family: font },
      scales: {
        x: { type: "logarithmic", ...axis("bytes of images, labels and teacher"), ticks: { color: ink, maxTicksLimit: 7, maxRotation: 0, callback: (value) => (Number.isInteger(Math.log10(value)) ? bytes(value) : null) } },
        y: { ...axis("") },
      },
      plugins: {
        legend: { position: "top", align: "end", labels: { color: ink, usePointStyle: true, boxHeight: 7 } },
        tooltip: { callbacks: { label: ({ raw }) => tip(raw) } },
      },
      onClick: (_, found, { data }) => {
        if (found.length) location.href = data.datasets[found[0].datasetIndex].data[found[0].index].line.row.page;
      },
    };
  }

  function tip({ y, half, line }) {
    const { row, name } = line;
    const error = half === null ? "" : ` ± ${half.toFixed(3)}`;
    return [name, `${row.dataset}, IPC ${row.ipc}`, `${y.toFixed(3)}${error}, ${bytes(row.size)}`];
  }

  // Room for a mark at either end, and a power of ten at least: only these are named.
  function reach(sizes) {
    const [min, max] = [Math.min(...sizes) / 1.5, Math.max(...sizes) * 1.5];
    const [below, above] = [Math.floor(Math.log10(min)), Math.ceil(Math.log10(max))];
    return above - below > 1 ? { min, max } : { min: 10 ** below, max: 10 ** above };
  }

  function show(lines, by, canvas) {
    const data = datasets(lines, by);
    chart ??= new Chart(canvas, { type: "scatter", data: { datasets: [] }, plugins: [errorBars] });
    chart.data.datasets = data;
    const options = settings(canvas);
    options.scales.y.title.text = by.toUpperCase();
    const points = data.flatMap(({ data: of }) => of);
    if (points.length) {
      Object.assign(options.scales.x, reach(points.map(({ x }) => x)));
      // All of every error bar.
      options.scales.y.suggestedMin = Math.min(...points.map(({ y, half }) => y - (half ?? 0)));
      options.scales.y.suggestedMax = Math.max(...points.map(({ y, half }) => y + (half ?? 0)));
    }
    chart.options = options;
    chart.update("none");
  }

  return { show };
})();
