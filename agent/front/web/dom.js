// Building and updating elements, and numbers as people read them.

/** el("p.note", {title: "x"}, "text", child): attributes; a function is a listener. */
export function el(spec, attributes = {}, ...children) {
  const [tag, ...classes] = spec.split(".");
  const node = document.createElement(tag);
  if (classes.length) node.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** Sets text only where it differs: selections and screen readers stay quiet. */
export function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

/** Makes parent's children those of items, by key; what stays keeps its focus. */
export function sync(parent, items, key, make, update) {
  const old = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  let next = parent.firstElementChild;
  for (const item of items) {
    const k = String(key(item));
    let node = old.get(k);
    old.delete(k);
    if (!node) {
      node = make(item);
      node.dataset.key = k;
    }
    if (node === next) next = next.nextElementSibling;
    else parent.insertBefore(node, next);
    update(node, item);
  }
  old.forEach((node) => node.remove());
}

const whole = new Intl.NumberFormat("en", {maximumFractionDigits: 0});

export const count = (n) => whole.format(n);

/** 1234567, "bit/s" -> "1.23 Mbit/s" */
export function si(n, unit) {
  for (const [limit, prefix] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (n >= limit) return `${(n / limit).toPrecision(3)} ${prefix}${unit}`;
  }
  return `${n >= 10 || Number.isInteger(n) ? Math.round(n) : n.toFixed(1)} ${unit}`;
}

export function bytes(n) {
  for (const [shift, unit] of [[30, "GiB"], [20, "MiB"], [10, "KiB"]]) {
    if (n >= 2 ** shift) return `${Number((n / 2 ** shift).toPrecision(3))} ${unit}`;
  }
  return `${n} B`;
}

/** Seconds as "48 s", "5 min", "3 h", "2 d". */
export function span(seconds) {
  for (const [limit, unit] of [[172800, "d"], [7200, "h"], [120, "min"]]) {
    if (seconds >= limit) return `${Math.floor(seconds / {d: 86400, h: 3600, min: 60}[unit])} ${unit}`;
  }
  return `${Math.max(0, Math.round(seconds))} s`;
}

export const ms = (n) => n === null ? "–" : n < 10 ? `${n.toFixed(1)} ms` : `${Math.round(n)} ms`;

export const age = (since) => (Date.now() - Date.parse(since)) / 1000;
