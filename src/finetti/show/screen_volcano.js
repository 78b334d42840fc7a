// A volcano of many tests on two canvases, the points below and what is pointed at above: effect across, local false sign
// rate upwards. Used by screen_table.js, which tells which tests are shown, found and chosen, and hears which is pointed
// at (`mark`) and which is clicked (`take`).
const volcanoOf = ({ label, values, places, floor, write, chosen, shown, isFound, mark, take }) => {
  const TAU = 2 * Math.PI, NEAR = 24, INK = "#222", FAINT = "#e6e6e6", MUTED = "#5f5f5f";
  const BULK = "#9a9a9a", FOUND = "#0072b2", CHOSEN = "#d55e00";
  let active = -1;
  const plot = document.getElementById("volcano"), tip = document.getElementById("tip");
  const [base, over] = plot.querySelectorAll("canvas");
  const height = values.lfsr.map((v) => -Math.log10(Math.max(v, floor))); // smaller rates lie at the upper edge
  const most = height.reduce((a, b) => Math.max(a, b), 1), top = 1.06 * most, cut = values.lfsr.some((v) => v < floor);
  const EDGE = { left: 52, right: 14, top: 12, bottom: 42 };
  let size = { w: 0, h: 0 }, reach = [0, 1], across = values.mean;
  const X = (v) => EDGE.left + ((v - reach[0]) / (reach[1] - reach[0])) * (size.w - EDGE.left - EDGE.right);
  const Y = (v) => size.h - EDGE.bottom - (Math.min(v, top) / top) * (size.h - EDGE.bottom - EDGE.top);
  const step = (span, most) => {
    const raw = span / most, ten = 10 ** Math.floor(Math.log10(raw));
    return ten * [1, 2, 5, 10].find((m) => m * ten >= raw);
  };
  const dots = (pen, rows, colour, radius, alpha) => {
    pen.fillStyle = colour;
    pen.globalAlpha = alpha;
    pen.beginPath();
    for (const i of rows) {
      const x = X(across[i]), y = Y(height[i]);
      pen.moveTo(x + radius, y);
      pen.arc(x, y, radius, 0, TAU);
    }
    pen.fill();
    pen.globalAlpha = 1;
  };
  const axes = (pen) => {
    pen.font = "12px system-ui, sans-serif";
    pen.lineWidth = 1;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    const line = (x0, y0, x1, y1, colour) => {
      pen.strokeStyle = colour;
      pen.beginPath();
      pen.moveTo(x0, y0);
      pen.lineTo(x1, y1);
      pen.stroke();
    };
    const raised = (n) => String(n).replace(/\d/g, (d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]);
    for (let v = 0, by = Math.max(1, step(top, size.h / 50)); v <= top; v += by) {
      line(EDGE.left, Y(v), size.w - EDGE.right, Y(v), FAINT);
      pen.fillStyle = INK;
      const least = cut && v + by > most ? "≤ " : "";
      pen.fillText(least + (v === 0 ? "1" : v <= 3 ? (10 ** -v).toFixed(v) : `10⁻${raised(v)}`), EDGE.left - 7, Y(v));
    }
    pen.textAlign = "center";
    pen.textBaseline = "top";
    const by = step(reach[1] - reach[0], size.w / 90), digits = Math.max(0, -Math.floor(Math.log10(by) + 1e-9));
    for (let k = Math.ceil(reach[0] / by); k * by <= reach[1]; k += 1) {
      line(X(k * by), size.h - EDGE.bottom, X(k * by), size.h - EDGE.bottom + 4, BULK);
      pen.fillText((k * by).toFixed(digits).replace("-", "−"), X(k * by), size.h - EDGE.bottom + 7);
    }
    line(X(0), EDGE.top, X(0), size.h - EDGE.bottom, BULK);
    pen.fillStyle = MUTED;
    pen.fillText(document.querySelector('input[name="across"]:checked').parentElement.textContent.trim(),
      (EDGE.left + size.w - EDGE.right) / 2, size.h - 16);
  };
  const clean = (canvas) => {
    const ratio = window.devicePixelRatio || 1, pen = canvas.getContext("2d");
    if (canvas.width !== Math.round(size.w * ratio) || canvas.height !== Math.round(size.h * ratio)) {
      canvas.width = Math.round(size.w * ratio);
      canvas.height = Math.round(size.h * ratio);
    }
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, size.w, size.h);
    return pen;
  };
  const draw = () => {
    size = { w: plot.clientWidth, h: plot.clientHeight };
    if (size.w < 80) return;
    across = values[document.querySelector('input[name="across"]:checked').value];
    const [low, high] = across.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [0, 0]);
    const air = 0.04 * (high - low) || 1;
    reach = [low - air, high + air];
    const pen = clean(base), every = [...label.keys()], seen = new Set(shown());
    axes(pen);
    dots(pen, every.filter((i) => !isFound(i) && !seen.has(i)), BULK, 2, 0.3);
    dots(pen, every.filter((i) => !isFound(i) && seen.has(i)), BULK, 2, 0.75);
    dots(pen, every.filter((i) => isFound(i) && !seen.has(i)), FOUND, 3.5, 0.25);
    dots(pen, every.filter((i) => isFound(i) && seen.has(i)), FOUND, 3.5, 0.9);
    point(active);
  };
  const say = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });
  const point = (i) => {
    active = i;
    mark(i);
    const pen = clean(over);
    dots(pen, chosen, CHOSEN, 4.5, 1);
    tip.hidden = i < 0;
    if (i < 0) return;
    const x = X(across[i]), y = Y(height[i]), of = (name, digits) => write(values[name][i], digits);
    pen.strokeStyle = INK;
    pen.lineWidth = 2;
    pen.beginPath();
    pen.arc(x, y, 7, 0, TAU);
    pen.stroke();
    const se = values.se ? ` (se ${of("se", places)})` : "";
    tip.replaceChildren(say("b", label[i]), say("span", `effect ${of("effect", places)}${se}`),
      say("span", `after shrinkage ${of("mean", places)} (${of("q5", places)} to ${of("q95", places)})`),
      say("span", `null with probability ${of("prob_null", null)}`), say("span", `false sign rate ${of("lfsr", null)}`));
    const left = x + 14 + tip.offsetWidth > size.w ? x - 14 - tip.offsetWidth : x + 14;
    tip.style.left = `${Math.max(0, Math.min(left, size.w - tip.offsetWidth))}px`;
    tip.style.top = `${Math.max(0, Math.min(y - tip.offsetHeight / 2, size.h - tip.offsetHeight))}px`;
  };
  const nearest = (event) => {
    const box = plot.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    let best = -1, least = NEAR * NEAR;
    for (let i = 0; i < label.length; i += 1) {
      const d = (X(across[i]) - x) ** 2 + (Y(height[i]) - y) ** 2;
      if (d < least) [best, least] = [i, d];
    }
    return best;
  };
  plot.addEventListener("pointermove", (event) => event.pointerType === "mouse" && point(nearest(event)));
  plot.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && point(-1));
  plot.addEventListener("click", (event) => take(nearest(event)));
  let order = { of: null, rows: [] };
  const besides = (by) => { // left and right
    if (order.of !== across) order = { of: across, rows: [...label.keys()].sort((a, b) => across[a] - across[b]) };
    const at = order.rows.indexOf(active) + by;
    return order.rows[Math.min(Math.max(at, 0), label.length - 1)];
  };
  const moves = {
    ArrowLeft: () => besides(-1), ArrowRight: () => besides(1), Home: () => 0, Escape: () => -1,
    ArrowUp: () => Math.max(0, active - 1), ArrowDown: () => Math.min(label.length - 1, active + 1),
  };
  plot.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") take(active);
    else if (event.key in moves) point(active < 0 && event.key !== "Escape" ? 0 : moves[event.key]());
    else return;
    event.preventDefault();
  });
  plot.addEventListener("blur", () => point(-1));
  document.querySelectorAll('input[name="across"]').forEach((input) => input.addEventListener("change", draw));
  new ResizeObserver(draw).observe(plot);
  return { draw, point };
};
