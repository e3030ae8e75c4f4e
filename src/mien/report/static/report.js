// The faces of a run: slide through the grids, or play them. Faces and curves follow one number, images seen.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const images = [...document.querySelectorAll(".faces img")];
  const slider = document.getElementById("time");
  const play = document.getElementById("play");
  const seenBox = document.getElementById("seen");
  let timer = 0;

  const show = (index) => {
    images.forEach((image, position) => { image.hidden = position !== index; });
    slider.value = index;
    slider.setAttribute("aria-valuetext", `${number.format(data.grids[index])} images seen`);
    seenBox.textContent = number.format(data.grids[index]);
  };

  const stop = () => {
    if (!timer) return;
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
    play.setAttribute("aria-pressed", "false");
  };

  const pointAll = readableCurves(data, (seen) => {
    if (!images.length) return;
    stop();
    show(nearest(data.grids, seen));
  });

  if (!images.length) return;

  slider.addEventListener("input", () => {
    stop();
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
})();
