// The report's three gestures: slide through the grids, play them, read a point of the curves. All follow one number, images seen.
(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("data").textContent);
  const number = new Intl.NumberFormat("en-GB");
  const images = [...document.querySelectorAll(".faces img")];
  const slider = document.getElementById("time");
  const play = document.getElementById("play");
  const seenBox = document.getElementById("seen");
  const span = Math.max(1, data.to - data.from);
  let timer = 0;

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

  const charts = [...document.querySelectorAll(".chart")].map((figure) => {
    const series = data.charts[Number(figure.dataset.chart)];
    const area = figure.querySelector(".area");
    const cursor = figure.querySelector(".cursor");
    const at = figure.querySelector(".at");
    const values = [...figure.querySelectorAll(".value")];
    const names = [...figure.querySelectorAll(".readout b")].map((name) => name.textContent);
    const longest = series.reduce((a, b) => (b.seen.length > a.seen.length ? b : a)).seen;
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
      area.setAttribute("aria-valuenow", here);
      const said = found.map((value, position) => `${names[position]} ${value}`).join(", ");
      area.setAttribute("aria-valuetext", `${number.format(here)} images: ${said}`);
      return index;
    };
    return { area, longest, point, index: longest.length - 1 };
  });

  const pointAll = (seen) => charts.forEach((chart) => { chart.index = chart.point(seen); });

  const show = (index) => {
    images.forEach((image, position) => { image.hidden = position !== index; });
    slider.value = index;
    const words = `${number.format(data.grids[index])} images seen`;
    slider.setAttribute("aria-valuetext", words);
    seenBox.textContent = number.format(data.grids[index]);
  };

  const showAt = (seen) => { if (images.length) show(nearest(data.grids, seen)); };

  const stop = () => {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  };

  if (images.length) {
    slider.addEventListener("input", () => {
      if (timer) stop();
      show(Number(slider.value));
      pointAll(data.grids[Number(slider.value)]);
    });
    play.addEventListener("click", () => {
      if (timer) { stop(); return; }
      play.textContent = "Pause";
      play.setAttribute("aria-pressed", "true");
      let next = Number(slider.value) >= images.length - 1 ? 0 : Number(slider.value);
      const advance = () => {
        show(next);
        pointAll(data.grids[next]);
        next += 1;
        if (next >= images.length) stop();
      };
      timer = setInterval(advance, Math.max(120, Math.min(600, 9000 / images.length)));
      advance();
    });
    show(images.length - 1);
  }

  charts.forEach((chart) => {
    const seenAt = (event) => {
      const box = chart.area.getBoundingClientRect();
      return data.from + (span * (event.clientX - box.left)) / box.width;
    };
    chart.area.addEventListener("pointermove", (event) => {
      pointAll(seenAt(event));
      if (event.buttons) showAt(seenAt(event));
    });
    chart.area.addEventListener("pointerdown", (event) => {
      if (timer) stop();
      pointAll(seenAt(event));
      showAt(seenAt(event));
    });
    chart.area.addEventListener("keydown", (event) => {
      const last = chart.longest.length - 1;
      const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -20, PageUp: 20, Home: -last, End: last };
      if (!(event.key in steps)) return;
      event.preventDefault();
      const index = Math.max(0, Math.min(last, chart.index + steps[event.key]));
      pointAll(chart.longest[index]);
      chart.index = index;
      showAt(chart.longest[index]);
    });
  });
  pointAll(data.to);
})();
