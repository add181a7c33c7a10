"use strict";
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const touch = matchMedia("(pointer: coarse)").matches;
  const drawn = new Map(); // figure -> the view that is shown
  const said = (text) => document.querySelectorAll(".plot").forEach((place) => {
    place.innerHTML = "";
    const line = document.createElement("p");
    line.className = "wait";
    line.textContent = text;
    place.append(line);
  });

  // plotly's script is packed in the page; unpacked, it becomes a script element of its own
  async function unpack() {
    const text = atob(document.getElementById("plotly").textContent.trim());
    const bytes = Uint8Array.from(text, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }

  // "$0", "$ink", "$0@0.2": a colour of the theme, the last one transparent
  function colours() {
    const style = getComputedStyle(document.documentElement);
    return (token) => {
      const [name, alpha] = token.slice(1).split("@");
      const value = style.getPropertyValue(/^\d/.test(name) ? `--m${name}` : `--${name}`).trim();
      if (!alpha) return value;
      const [r, g, b] = [1, 3, 5].map((place) => parseInt(value.slice(place, place + 2), 16));
      return `rgba(${r},${g},${b},${alpha})`;
    };
  }

  function painted(value, colour) {
    if (typeof value === "string") return /^\$(\d|ink|muted|grid|paper|soft)/.test(value) ? colour(value) : value;
    if (Array.isArray(value)) return value.every((x) => typeof x === "number" || x === null) ? value : value.map((x) => painted(x, colour));
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, x]) => [k, painted(x, colour)]));
    return value;
  }

  function common(colour) {
    const ink = colour("$ink"), muted = colour("$muted"), grid = colour("$grid");
    const axis = { gridcolor: grid, zerolinecolor: grid, linecolor: colour("$line"), tickcolor: grid, automargin: true, exponentformat: "power", title: { font: { size: 13 }, standoff: 10 } };
    return {
      axis,
      layout: {
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: muted },
        hoverlabel: { bgcolor: colour("$sheet"), bordercolor: colour("$line"), font: { color: ink, size: 13 } },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: muted, activecolor: ink },
        dragmode: touch ? false : "zoom", // a finger scrolls the page, until zoom or pan is chosen
        autosize: true,
      },
    };
  }

  function merged(base, more) {
    const result = { ...base };
    for (const [key, value] of Object.entries(more)) {
      const nested = value && typeof value === "object" && !Array.isArray(value);
      result[key] = nested && typeof base[key] === "object" ? merged(base[key], value) : value;
    }
    return result;
  }

  function draw(key, view) {
    const place = document.getElementById(`plot-${key}`);
    const views = JSON.parse(document.getElementById(`data-${key}`).textContent);
    const colour = colours();
    const { axis, layout } = common(colour);
    const own = painted(views[view].layout, colour);
    const whole = merged({ ...layout, xaxis: axis, yaxis: axis }, own);
    const narrow = touch || place.clientWidth < 520;
    if (narrow) whole.margin = { ...whole.margin, t: whole.margin.t + 34 }; // the buttons stand above, not over it
    const data = painted(views[view].data, colour);
    const options = { responsive: true, displaylogo: false, displayModeBar: narrow ? true : "hover",
      modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
      toImageButtonOptions: { format: "svg", filename: `mpibench-${key}` } };
    place.style.height = `${Number(place.dataset.height) + (narrow ? 34 : 0)}px`;
    if (!drawn.has(key)) place.innerHTML = "";
    drawn.set(key, view);
    return Plotly.react(place, data, whole, options);
  }

  async function begin() {
    if (typeof DecompressionStream === "undefined") {
      said("Interactive figures need a browser of 2023 or later; the tables hold the numbers.");
      return;
    }
    await unpack();
    const places = [...document.querySelectorAll(".plot")];
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries.filter((each) => each.isIntersecting && !drawn.has(each.target.dataset.figure))) {
        seen.unobserve(entry.target);
        draw(entry.target.dataset.figure, 0);
      }
    }, { rootMargin: "900px 0px" });
    places.forEach((place) => seen.observe(place));
    document.querySelectorAll(".views button").forEach((button) => button.addEventListener("click", () => {
      button.parentElement.querySelectorAll("button").forEach((other) => other.setAttribute("aria-pressed", other === button));
      draw(button.dataset.figure, Number(button.dataset.view));
    }));
    const again = () => drawn.forEach((view, key) => draw(key, view));
    dark.addEventListener("change", again);
    addEventListener("beforeprint", () => places.forEach((place) => drawn.has(place.dataset.figure) || draw(place.dataset.figure, 0)));
    document.documentElement.dataset.ready = "true";
  }

  begin().catch((error) => {
    console.error(error);
    said("The figures could not be drawn; the tables hold the numbers.");
  });
})();
