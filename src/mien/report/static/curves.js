// Curves that can be read: a point by mouse, touch or keyboard, shown on all curves at once. `picked(seen)` hears of clicks and keys.
"use strict";
const number = new Intl.NumberFormat("en-GB");

const nearest = (sorted, wanted) => {
  let best = 0;
  sorted.forEach((value, index) => {
    if (Math.abs(value - wanted) <= Math.abs(sorted[best] - wanted)) best = index;
  });
  return best;
};

const tidy = (value) => {
  const size = Math.abs(value);
  return size >= 1e5 || (size > 0 && size < 1e-3) ? value.toExponential(2) : number.format(Number(value.toPrecision(4)));
};

const readableCurves = (data, picked) => {
  const span = Math.max(1, data.to - data.from);

  const charts = [...document.querySelectorAll(".chart")].map((figure) => {
    const series = data.charts[Number(figure.dataset.chart)];
    const area = figure.querySelector(".area");
    const cursor = figure.querySelector(".cursor");
    const at = figure.querySelector(".at");
    const values = [...figure.querySelectorAll(".value")];
    const names = [...figure.querySelectorAll(".readout b")].map((name) => name.textContent);
    const longest = series.reduce((a, b) => (b.seen.at(-1) > a.seen.at(-1) ? b : a)).seen;
    const point = (seen) => {
      const index = nearest(longest, seen);
      const here = longest[index];
      const x = (1000 * (here - data.from)) / span;
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
      cursor.setAttribute("visibility", here < data.to ? "visible" : "hidden");
      at.textContent = number.format(here);
      const found = series.map((one) => tidy(one.value[nearest(one.seen, here)]));
      found.forEach((value, position) => { values[position].textContent = value; });
      const said = found.map((value, position) => `${names[position]} ${value}`).join(", ");
      area.setAttribute("aria-valuenow", here);
      area.setAttribute("aria-valuetext", `${number.format(here)} images: ${said}`);
      return index;
    };
    return { area, longest, point, index: longest.length - 1 };
  });

  const pointAll = (seen) => charts.forEach((chart) => { chart.index = chart.point(seen); });

  charts.forEach((chart) => {
    const seenAt = (event) => {
      const box = chart.area.getBoundingClientRect();
      return data.from + (span * (event.clientX - box.left)) / box.width;
    };
    chart.area.addEventListener("pointermove", (event) => {
      pointAll(seenAt(event));
      if (event.buttons) picked(seenAt(event));
    });
    chart.area.addEventListener("pointerdown", (event) => {
      pointAll(seenAt(event));
      picked(seenAt(event));
    });
    chart.area.addEventListener("keydown", (event) => {
      const last = chart.longest.length - 1;
      const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -20, PageUp: 20, Home: -last, End: last };
      if (!(event.key in steps)) return;
      event.preventDefault();
      const index = Math.max(0, Math.min(last, chart.index + steps[event.key]));
      pointAll(chart.longest[index]);
      chart.index = index;
      picked(chart.longest[index]);
    });
  });

  pointAll(data.to);
  return pointAll;
};
