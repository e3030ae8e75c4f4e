// The faces of several runs after equal training time: each shows the last grid that it had drawn by then.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  readableCurves(data, () => {});
  const slider = document.getElementById("time");
  if (!slider) return;
  const runs = [...document.querySelectorAll(".run")].map((run) => [...run.querySelectorAll("img")]);
  const at = document.getElementById("at");

  const words = (seconds) => {
    const whole = Math.round(seconds);
    const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
    if (hours) return `${number.format(hours)} h ${minutes} min`;
    return minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
  };

  const show = () => {
    const seconds = (data.seconds * Number(slider.value)) / Number(slider.max);
    runs.forEach((images, run) => {
      const drawn = data.grids[run].filter((second) => second <= seconds + 0.5).length;
      images.forEach((image, index) => { image.hidden = index !== Math.max(0, drawn - 1); });
    });
    at.textContent = words(seconds);
    slider.setAttribute("aria-valuetext", words(seconds));
  };

  slider.addEventListener("input", show);
  show();
})();
